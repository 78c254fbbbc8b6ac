"""`onnxembed embed`: where texts come from, where vectors go, and how it fails."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

from hub_server import HubServer
from onnxembed import OnnxEmbedder
from onnxembed.errors import ProviderError
from onnxembed.execution.providers import Placement
from running import Run, names, refused, rows

D = 32


def test_embed_prints_a_line_of_json_for_each_text(run: Run, artifact: Path, model: OnnxEmbedder) -> None:
    code, out, err = run("embed", artifact, "the cat", "", "Straße 東京")
    assert (code, err) == (0, "")
    assert np.array_equal(rows(out), model.encode(["the cat", "", "Straße 東京"]))


@pytest.mark.parametrize(
    ("name", "content", "arguments"),
    [
        ("texts.txt", "the cat\r\n\r\nit was", []),
        ("texts.txt", '"the cat"\n""\n"it was"\n', ["--jsonl"]),
        ("texts.jsonl", '{"text": "the cat"}\n\n{"text": ""}\n{"text": "it was"}', []),
        ("texts.jsonl", '{"b": "the cat"}\n{"b": ""}\n{"b": "it was"}', ["--field", "b"]),
        ("texts.ndjson", '{"text": "the cat"}\n{"text": ""}\n{"text": "it was"}', ["--jsonl"]),
    ],
)
def test_embed_reads_texts_from_files_and_standard_input(
    run: Run, model: OnnxEmbedder, name: str, content: str, arguments: list[str]
) -> None:
    Path(name).write_bytes(content.encode())
    expected = model.encode(["the cat", "", "it was"])
    assert np.array_equal(rows(run("embed", model.folder, name, *arguments).out), expected)
    if name.endswith(".jsonl"):
        arguments = ["--jsonl", *arguments]
    assert np.array_equal(rows(run("embed", model.folder, "-", *arguments, stdin=content.encode()).out), expected)


@pytest.mark.parametrize("count", [0, 3, 10_001])
def test_embed_writes_an_npy_file_that_numpy_reads(
    run: Run, artifact: Path, model: OnnxEmbedder, tmp_path: Path, count: int
) -> None:
    texts = [f"the cat {i % 7}" for i in range(count)]
    Path("texts.txt").write_text("".join(f"{text}\n" for text in texts))
    said = f"vectors.npy: {count:,} vectors of 32 numbers\n"
    assert run("embed", artifact, "texts.txt", "-o", "vectors.npy") == (0, said, "")
    assert np.array_equal(np.load("vectors.npy"), model.encode(texts))
    assert np.load("vectors.npy").shape == (count, D)
    assert names(tmp_path) == ["texts.txt", "vectors.npy"]


def test_embed_writes_json_lines(run: Run, artifact: Path, model: OnnxEmbedder) -> None:
    assert run("embed", artifact, "the cat", "-o", "vectors.jsonl") == (
        0,
        "vectors.jsonl: 1 vector of 32 numbers\n",
        "",
    )
    assert np.array_equal(rows(Path("vectors.jsonl").read_text()), model.encode(["the cat"]))


def test_without_input_embed_prints_nothing(run: Run, artifact: Path) -> None:
    Path("empty.jsonl").touch()
    assert run("embed", artifact, "empty.jsonl") == (0, "", "")
    assert run("embed", artifact, "-") == (0, "", "")
    assert run("embed", artifact, "-", "-o", "v.npy", "--dimensions", 8) == (0, "v.npy: 0 vectors of 8 numbers\n", "")
    assert np.load("v.npy").shape == (0, 8)


def test_embed_passes_its_options_on(run: Run, artifact: Path, model: OnnxEmbedder) -> None:
    def vector(*arguments: object) -> NDArray[np.float32]:
        code, out, err = run("embed", artifact, "the cat", *arguments)
        assert (code, err) == (0, "")
        return rows(out)

    assert np.array_equal(vector("--prompt-name", "query"), model.encode_query(["the cat"]))
    assert np.array_equal(vector("--kind", "query"), model.encode_query(["the cat"]))
    assert np.array_equal(vector("--kind", "document"), model.encode_document(["the cat"]))
    assert np.array_equal(vector("--kind", "query", "--prompt", ""), model.encode(["the cat"], prompt=""))
    assert np.array_equal(vector("--prompt", "at "), model.encode(["at the cat"]))
    assert np.array_equal(vector("--dimensions", 8), model.encode(["the cat"], dimensions=8))
    assert np.array_equal(vector("--threads", 1, "--provider", "cpu"), model.encode(["the cat"]))
    half = vector("--precision", "fp16")
    assert np.allclose(half, model.encode(["the cat"]), atol=0.01)
    assert not np.array_equal(half, model.encode(["the cat"]))


def test_embed_writes_other_types(run: Run, artifact: Path, model: OnnxEmbedder) -> None:
    texts = [f"the cat {word}" for word in "abcdefghij"] * 12
    Path("more.txt").write_text("\n".join(texts))
    vectors = model.encode(texts)
    ranges = np.vstack((vectors.min(axis=0), vectors.max(axis=0)))
    np.save("vectors.npy", vectors)
    np.save("ranges.npy", ranges)
    for dtype, size in ("float16", 32), ("int8", 32), ("uint8", 32), ("binary", 4), ("ubinary", 4):
        given = ("vectors.npy", "ranges.npy") if "int" in dtype else (None,)
        for file in given:
            arguments = ["more.txt", "--output-dtype", dtype, *(["--ranges", file] if file else [])]
            said = f"{dtype}.npy: 120 vectors of {size} numbers ({dtype})\n"
            assert run("embed", artifact, *arguments, "-o", f"{dtype}.npy", "--force") == (0, said, "")
            kept = np.load(f"{dtype}.npy")
            expected = model.encode(texts, dtype=dtype, ranges=ranges if file else None)  # type: ignore[arg-type]
            assert kept.dtype == expected.dtype
            assert np.array_equal(kept, expected)
            assert np.array_equal(rows(run("embed", artifact, *arguments)[1]).astype(expected.dtype), expected)


def test_embed_warns_in_one_line_of_texts_that_were_cut(run: Run, artifact: Path, model: OnnxEmbedder) -> None:
    code, out, err = run("embed", artifact, "the cat", "a", "--max-length", 3)
    assert code == 0
    assert np.array_equal(rows(out), model.encode(["the", "a"]))
    assert err.startswith("onnxembed: warning: 1 of 2 texts was longer than max_length=3 tokens")
    assert err.count("\n") == 1


ABSENT = ("d.parquet", "d.csv", "my d.csv", "d.CSV.gz", "d.unknown", "texts/the", "~nobody/d", "C:\\d", "../d", "*.txt")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["no texts", "- for standard input"]),
        (["absent.txt"], ["absent.txt", "No such file"]),
        (["notes.md"], ["notes.md is neither", "- < notes.md"]),
        (["table.parquet"], ["table.parquet is neither", "write its texts to a .jsonl file"]),
        (["lines.ndjson"], ["lines.ndjson is neither", "--jsonl"]),
        *(([name], [name, "No such file", "--text"]) for name in ABSENT),
        (["the cat", "absent.csv"], ["absent.csv: No such file", "--text"]),
        (["the cat", "--text", "it was"], ["'the cat' and --text cannot be combined"]),
        (["--text", "the cat", "--jsonl"], ["--jsonl", "not texts"]),
        (["--text", "the cat", "-o", "pipe.npy"], ["pipe.npy is a pipe or a device", "> pipe.npy"]),
        (["-", "--dimensions", "33"], ["dimensions is 33"]),
        (["-", "--output-dtype", "int8"], ["need ranges="]),
        (["-", "--output-dtype", "int8", "--ranges", "notes.md"], ["notes.md is not a .npy file"]),
        (["-", "--sparse", "--output-dtype", "int8"], ["--output-dtype: for dense vectors"]),
        (["-", "--prompt-name", "passage"], ["'passage'", "query, title"]),
        (["folder"], ["folder is a folder, not a text"]),
        (["the cat", "folder"], ["folder is a folder, not a text"]),
        (["pipe"], ["pipe is neither", "- < pipe"]),
        (["texts.txt", "notes.md"], ["texts.txt is a file among other arguments"]),
        (["the cat", "texts.txt"], ["texts.txt is a file among other arguments"]),
        (["-", "the cat"], ["- is a file among other arguments"]),
        (["the cat", "--jsonl"], ["--jsonl", "not texts"]),
        (["the cat", "--field", "body"], ["--field needs JSON lines", "--jsonl"]),
        (["texts.txt", "--field", "text"], ["--field needs JSON lines", "--jsonl"]),
        (["-", "--field", "body"], ["--field needs JSON lines", "--jsonl"]),
        (["latin1.txt"], ["latin1.txt, line 2", "UTF-8"]),
        (["bad.jsonl"], ["bad.jsonl, line 2", "not JSON"]),
        (["bad.jsonl", "--field", "body"], ["bad.jsonl, line 1", "no 'body'", "text", "--field"]),
        (["the cat", "-o", "v.csv"], ["v.csv", ".npy or .jsonl"]),
        (["the cat", "-o", "absent/v.npy"], ["absent is not a folder"]),
        (["the cat", "--dimensions", "33"], ["dimensions is 33", "1 to this model's 32"]),
        (["the cat", "--dimensions", "0"], ["dimensions is 0"]),
        (["the cat", "--max-length", "21"], ["max_length is 21", "1 to this model's 20"]),
        (["the cat", "--threads", "0"], ["threads is 0"]),
        (["the cat", "--prompt-name", "passage"], ["'passage'", "query, title"]),
        (["the cat", "--prompt", "a", "--prompt-name", "query"], ["not both"]),
        (["the cat", "--no-normalize"], ["normalizes in its graph", "--no-normalize"]),
        (["the cat", "--provider", "tpu"], ["tpu is not in the installed onnxruntime", "cpu, cuda, tensorrt"]),
        (["the cat", "--provider", "cpu", "--device-id", "1"], ["device_id is for CUDA", "not for CPU"]),
        (["the cat", "--device-id", "-1"], ["-1 is not a GPU number"]),
        (["the cat", "--device-id", "0", "--device-id", "0"], ["device_ids is (0, 0)", "each once"]),
        (["\udcff"], ["not Unicode"]),
    ],
)
def test_embed_refuses_impossible_arguments(
    run: Run, artifact: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    Path("folder").mkdir()
    os.mkfifo("pipe")
    os.mkfifo("pipe.npy")
    for name in ("notes.md", "table.parquet", "lines.ndjson"):
        Path(name).write_text("the cat\n")
    Path("texts.txt").write_text("the cat\n")
    Path("latin1.txt").write_bytes("the cat\nStraße\n".encode("latin-1"))
    Path("bad.jsonl").write_text('{"text": "the cat"}\n{"text": the cat}\n')
    before = names(tmp_path)
    if "-o" not in arguments:
        arguments = [*arguments, "-o", "v.npy"]
    assert refused(run("embed", artifact, *arguments), *words)
    assert names(tmp_path) == before


def test_embed_asks_for_the_gpus_that_are_named(run: Run, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(placement: Placement) -> NoReturn:
        raise ProviderError(f"asked for {placement.providers} on {placement.device_ids}")

    monkeypatch.setattr("onnxembed.runtime.open_model.decide", refuse)
    assert refused(run("embed", artifact, "the cat"), "asked for auto on None")
    named = ("--provider", "tensorrt", "--device-id", 1, "--device-id", 0)
    assert refused(run("embed", artifact, "the cat", *named), "asked for tensorrt on (1, 0)")


def test_cuda_without_a_gpu_is_an_error(run: Run, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert refused(run("embed", artifact, "the cat", "--provider", "cuda"), "pip install 'onnxembed[gpu]'")


def test_embed_looks_at_where_vectors_go_before_anything_else(run: Run) -> None:
    assert refused(run("embed", "./absent", "the cat", "-o", "v.csv"), "v.csv")


def test_embed_names_the_export_command_for_a_checkpoint(run: Run, checkpoint: Path) -> None:
    assert refused(run("embed", checkpoint, "the cat"), f"onnxembed export {checkpoint}")


def test_embed_refuses_a_damaged_file(run: Run, artifact: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(artifact, tmp_path / "damaged")
    graph = damaged / "onnx/model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    assert refused(run("embed", damaged, "the cat"), "onnx/model.onnx", "sha256")


def test_embed_takes_an_artifact_of_the_hub(run: Run, hub: HubServer, artifact: Path, model: OnnxEmbedder) -> None:
    hub.push("org/tiny-onnx", artifact)
    outcome = run("embed", "org/tiny-onnx", "the cat", "--cache-dir", "cache")
    assert np.array_equal(rows(outcome.out), model.encode(["the cat"]))


def test_text_passes_what_looks_like_a_file_or_an_option(run: Run, artifact: Path, model: OnnxEmbedder) -> None:
    Path("notes.txt").write_text("another")
    texts = ["notes.txt", "-1", "a/b", "-"]
    options = [word for text in texts for word in ("--text", text)]
    assert np.array_equal(rows(run("embed", artifact, *options).out), model.encode(texts))


def test_words_with_a_full_stop_are_texts(run: Run, artifact: Path) -> None:
    for text in ("hello.", "3.14", "e.g. this", "Mr.Cat said so", "."):
        assert run("embed", artifact, text).code == (2 if text == "." else 0)  # a folder


IDENTITIES = {
    "itself": lambda: None,
    "link.jsonl": lambda: os.symlink("docs.jsonl", "link.jsonl"),
    "hard.jsonl": lambda: os.link("docs.jsonl", "hard.jsonl"),
    "../here/docs.jsonl": lambda: None,
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_the_output_is_never_the_input(
    run: Run, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("docs.jsonl").write_text('{"text": "my only copy"}\n')
    IDENTITIES[name]()
    output = "docs.jsonl" if name == "itself" else name
    before = names(Path())
    for arguments in (("docs.jsonl", "-o", output), (output, "-o", "docs.jsonl")):
        for force in ((), ("--force",)):
            assert refused(run("embed", artifact, *arguments, *force), "is the file that is read")
    assert Path("docs.jsonl").read_text() == '{"text": "my only copy"}\n'
    assert names(Path()) == before


def test_an_output_that_exists_is_replaced_only_when_forced(run: Run, artifact: Path) -> None:
    Path("v.npy").write_text("older")
    assert refused(run("embed", artifact, "the cat", "-o", "v.npy"), "v.npy exists", "--force")
    assert Path("v.npy").read_text() == "older"
    assert run("embed", artifact, "the cat", "-o", "v.npy", "--force").code == 0
    assert np.load("v.npy").shape == (1, D)
