"""`onnxembed explain`: the files that it reads, what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from onnxembed import OnnxEmbedder
from running import Run, refused
from tiny_embedders import texts_of_many_lengths

TEXTS = texts_of_many_lengths(8)


def test_the_command_reads_both_kinds_of_files(run: Run, artifact: Path, model: OnnxEmbedder) -> None:
    vectors = model.encode(TEXTS)
    np.save("same.npy", vectors)
    Path("texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    code, out, _ = run("explain", artifact, "same.npy", "--texts", "texts.txt")
    assert (code, out.splitlines()[0].startswith("The vectors are the same")) == (0, True)
    lines = [
        json.dumps({"text": text, "embedding": (2 * row).tolist()}) for text, row in zip(TEXTS, vectors, strict=True)
    ]
    Path("twice.jsonl").write_text("\n".join(lines))
    code, out, _ = run("explain", artifact, "twice.jsonl", "--json")
    assert (code, json.loads(out)["causes"][0]["name"]) == (1, "scale")


def test_the_command_says_what_is_missing(run: Run, artifact: Path) -> None:
    np.save("a.npy", np.ones((3, 32)))
    Path("a.csv").touch()
    Path("a.jsonl").write_text('{"text": "a"}\n')
    assert refused(run("explain", artifact, "a.npy"), "--texts")
    assert refused(run("explain", artifact, "a.csv"), "neither a .npy nor a .jsonl file")
    assert refused(run("explain", artifact, "a.jsonl"), "a.jsonl, line 1: needs 'text'")
