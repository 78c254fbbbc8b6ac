"""`onnxembed explain`: the files that it reads, what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from onnxembed import OnnxEmbedder
from onnxembed.export.pipeline import export
from running import Run, refused
from tiny_embedders import texts_of_many_lengths
from tiny_rerankers import write_cross_encoder

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
    assert run("embed", artifact, "texts.txt", "-o", "rows.jsonl")[0] == 0
    code, out, _ = run("explain", artifact, "rows.jsonl", "--texts", "texts.txt")
    assert (code, out.splitlines()[0].startswith("The vectors are the same")) == (0, True)


def test_the_command_says_what_is_missing(run: Run, artifact: Path) -> None:
    np.save("a.npy", np.ones((3, 32)))
    Path("a.csv").touch()
    Path("a.jsonl").write_text('{"text": "a"}\n')
    assert refused(run("explain", artifact, "a.npy"), "--texts")
    assert refused(run("explain", artifact, "a.csv"), "neither a .npy nor a .jsonl file")
    assert refused(run("explain", artifact, "a.jsonl"), "a.jsonl, line 1: needs 'text'")
    Path("texts.txt").write_text("a\n")
    assert refused(run("explain", artifact, "a.jsonl", "--texts", "texts.txt"), "line 1: no array", "leave out --texts")
    Path("rows.jsonl").write_text("\n[1, 2]\n")
    assert refused(run("explain", artifact, "rows.jsonl"), "line 2: needs 'text'", "name their texts with --texts")
    assert refused(run("explain", artifact, "a.npy", "--texts", "none.txt"), "--texts none.txt: no such file")


def test_vectors_are_no_scores_of_a_reranker(run: Run, tmp_path: Path) -> None:
    export(write_cross_encoder(tmp_path / "checkpoint"), tmp_path / "ranker")
    np.save("a.npy", np.ones((1, 32)))
    Path("texts.txt").write_text("a\n")
    result = run("explain", tmp_path / "ranker", "a.npy", "--texts", "texts.txt")
    assert refused(result, "this model scores pairs", "a .jsonl file with query, document and score in each line")


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_compared(run: Run, artifact: Path) -> None:
    result = run("explain", artifact, "none.npy", "--texts", "none.txt", "--html", "none/page.html")
    assert refused(result, "--html none/page.html: there is no folder none")


def test_vectors_with_broken_rows_are_not_the_same(run: Run, artifact: Path, model: OnnxEmbedder) -> None:
    vectors = model.encode(TEXTS)
    vectors[3] = np.nan
    np.save("broken.npy", vectors)
    Path("texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    code, out, _ = run("explain", artifact, "broken.npy", "--texts", "texts.txt")
    assert (code, out.startswith("1 vector of theirs cannot be used")) == (1, True)
