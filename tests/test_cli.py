"""The command line as its users meet it: what it prints, what it leaves behind, and how it fails."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pytest
from numpy.typing import NDArray

from hub_server import HubServer
from onnxembed import OnnxEmbedder
from onnxembed.cli import cli, main
from onnxembed.export import verify as verifying
from onnxembed.export.probes import BRIEF, PROBES
from onnxembed.export.verify import lacking
from onnxembed.manifest import FILE_NAME, Manifest, read_manifest
from tampering import change_weights
from tiny import change_json, write_bert, write_sentence_bert

D = 32

# What a process of its own sees: not how the tests' own Python was told to treat its output.
USUAL = {name: value for name, value in os.environ.items() if name not in ("PYTHONUNBUFFERED", "PYTHONIOENCODING")}


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Runs the command line in this process, in an empty folder, with Python's usual warnings."""
    monkeypatch.chdir(tmp_path)
    terminate = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            with pytest.raises(SystemExit) as end:
                main([str(argument) for argument in arguments])
        assert isinstance(end.value.code, int)
        return Outcome(end.value.code, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, terminate)


def refused(outcome: Outcome, *words: str) -> bool:
    """Whether it ended with one sentence on standard error, with these words in it, and nothing else."""
    code, out, err = outcome
    assert (code, out) == (2, ""), outcome
    assert err.startswith("onnxembed: "), err
    assert err.count("\n") == 1, err
    assert [word for word in words if word not in err] == [], err
    return True


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "onnxembed", *map(str, arguments)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def rows(text: str) -> NDArray[np.float32]:
    return np.array([json.loads(line) for line in text.splitlines()], np.float32)


@pytest.fixture(scope="module")
def model(artifact: Path) -> Iterator[OnnxEmbedder]:
    with OnnxEmbedder(artifact) as model:
        yield model


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain checkpoint, which says neither how to pool nor whether to normalise."""
    return write_bert(tmp_path_factory.mktemp("raw") / "raw-bert")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer({}) as hub:
        hub.answer(monkeypatch)
        yield hub


# The whole of it


@pytest.mark.parametrize("arguments", [[], ["export"], ["embed"], ["inspect"], ["verify"]])
def test_help_is_there_for_every_command(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments, "--help")
    assert (code, err) == (0, "")
    assert out.startswith("Usage: ")


def test_the_version_can_be_asked(run: Run) -> None:
    from onnxembed import __version__

    assert run("--version") == (0, f"onnxembed, version {__version__}\n", "")


def test_every_option_is_explained() -> None:
    for name, each in cli.commands.items():
        for parameter in each.params:
            assert not isinstance(parameter, click.Option) or parameter.help, f"{name} {parameter.name}"


def test_the_examples_of_the_help_are_commands() -> None:
    examples = []
    for each in (cli, *cli.commands.values()):
        lines = [line.strip() for line in (each.help or "").splitlines()]
        examples += [line[line.index("onnxembed ") :] for line in lines if line.startswith(("onnxembed ", "cat "))]
    assert len(examples) > 6
    for example in examples:
        _, name, *arguments = shlex.split(example.partition(" >")[0])
        cli.commands[name].make_context(name, arguments)


@pytest.mark.parametrize("arguments", [["--nonsense"], ["embed", "--nonsense"], ["embed"], ["nonsense"], []])
def test_a_mistaken_command_shows_how_to_use_it(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: ")


def test_export_and_embed_in_processes_of_their_own(checkpoint: Path, tmp_path: Path) -> None:
    def call(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=tmp_path,
            env=USUAL,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            check=True,
            timeout=60,
        )

    exported = call("export", checkpoint, "--no-verify")
    assert exported.stderr == ""
    assert exported.stdout.splitlines()[0].startswith("tiny-bert-onnx: 32 dimensions, ")
    embedded = call("embed", "tiny-bert-onnx", "-", stdin="the cat\n\nStraße 東京\n")
    assert embedded.stderr == ""
    with OnnxEmbedder(tmp_path / "tiny-bert-onnx") as model:
        assert np.array_equal(rows(embedded.stdout), model.encode(["the cat", "", "Straße 東京"]))


# export


def exported(outcome: Outcome, folder: Path) -> Manifest:
    assert (outcome.code, outcome.err) == (0, ""), outcome
    return read_manifest(folder)


def test_export_names_the_folder_after_the_model(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    outcome = run("export", checkpoint, "--no-verify")
    exported(outcome, tmp_path / "tiny-bert-onnx")
    assert outcome.out == (
        f"tiny-bert-onnx: 32 dimensions, {outcome.out.split()[3]} MB\n"
        "run on 21 texts: vectors are finite, and the same for a text alone and among others\n"
        "not verified (--no-verify); to verify: onnxembed verify tiny-bert-onnx\n"
    )
    assert names(tmp_path) == ["tiny-bert-onnx"]


def test_export_of_this_folder_is_named_after_it(
    run: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(checkpoint, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    exported(run("export", ".", "--no-verify"), tmp_path / "here/here-onnx")


def test_export_writes_where_it_is_told_and_makes_folders_on_the_way(run: Run, checkpoint: Path) -> None:
    exported(run("export", checkpoint, "--no-verify", "-o", "some/where/model"), Path("some/where/model"))


@pytest.mark.parametrize(
    "arguments", [["--precision", "fp32,fp16"], ["--precision", "fp32", "--precision", "fp16,fp32"]]
)
def test_export_writes_every_precision_that_is_named(run: Run, checkpoint: Path, arguments: list[str]) -> None:
    manifest = exported(run("export", checkpoint, "-o", "out", "--no-verify", *arguments), Path("out"))
    assert list(manifest.variants) == ["fp32", "fp16"]


def test_the_options_of_export_arrive(run: Run, raw: Path, tmp_path: Path) -> None:
    source = tmp_path / "checkpoint"
    shutil.copytree(raw, source)
    change_json(source / "config.json", some_new_key=1)
    arguments = "--pooling mean+cls --no-normalize --max-length 12 --pooling-out --ignore-config-key some_new_key"
    assert refused(run("export", source, "-o", "out", *arguments.split()[:-2]), "some_new_key")
    manifest = exported(run("export", source, "-o", "out", "--no-verify", *arguments.split()), Path("out"))
    embedding = manifest.require_embedding()
    assert embedding.pooling.value == ("mean", "cls")
    assert embedding.normalize.value is False
    assert manifest.tokenization.max_length.value == 12
    assert embedding.pooled_by == "runtime"
    assert manifest.model.ignored_config_keys == ("some_new_key",)
    assert {each.origin for each in (embedding.pooling, embedding.normalize, manifest.tokenization.max_length)} == {
        "flag"
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "int4"], ["--precision", "'int4'", "fp32, fp16"]),
        (["--precision", "fp32,"], ["--precision", "''"]),
        (["--pooling", "average"], ["--pooling", "'average'", "mean"]),
        (["--pooling", "mean+"], ["--pooling", "''"]),
        (["--max-length", "0"], ["--max-length 0", "1 to 64"]),
        (["--max-length", "65"], ["--max-length 65", "1 to 64"]),
        (["--max-length", "2"], ["2 special tokens"]),
        (["--revision", "main"], ["no revision"]),
    ],
)
def test_export_refuses_options_that_cannot_be(
    run: Run, checkpoint: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    assert refused(run("export", checkpoint, "-o", "out", *arguments), *words)
    assert names(tmp_path) == []


def test_export_names_the_option_for_what_the_files_do_not_say(run: Run, raw: Path, tmp_path: Path) -> None:
    assert refused(run("export", raw, "-o", "out"), "how to pool", "--pooling")
    assert refused(run("export", raw, "-o", "out", "--pooling", "mean"), "normalise", "--no-normalize")
    assert names(tmp_path) == []


def test_export_replaces_an_artefact_only_when_forced(run: Run, checkpoint: Path) -> None:
    exported(run("export", checkpoint, "-o", "out", "--no-verify"), Path("out"))
    before = Path("out", FILE_NAME).stat().st_mtime_ns
    assert refused(run("export", checkpoint, "-o", "out", "--no-verify"), "out exists", "--force")
    assert Path("out", FILE_NAME).stat().st_mtime_ns == before
    assert run("export", checkpoint, "-o", "out", "--no-verify", "--force").code == 0
    assert Path("out", FILE_NAME).stat().st_mtime_ns > before


def test_export_never_replaces_what_is_not_an_artefact(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").touch()
    (tmp_path / "file").touch()
    assert refused(run("export", checkpoint, "-o", "mine", "--force"), "mine exists and is not")
    assert refused(run("export", checkpoint, "-o", "file", "--force"), "file is a file")
    assert refused(run("export", checkpoint, "-o", "file/out"), "file")
    assert names(tmp_path / "mine") == ["thesis.tex"]


def test_export_says_what_a_folder_without_a_model_lacks(run: Run, artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert refused(run("export", "empty"), "empty has no config.json")
    assert refused(run("export", "./absent"), "no folder at absent")
    assert refused(run("export", artifact), "model.safetensors")


def test_export_takes_a_model_of_the_hub(run: Run, hub: HubServer, checkpoint: Path, tmp_path: Path) -> None:
    old = hub.push("org/tiny", write_sentence_bert(tmp_path / "old", pooling="cls"), "v1")
    new = hub.push("org/tiny", checkpoint)
    manifest = exported(run("export", "org/tiny", "--cache-dir", "cache", "--no-verify"), Path("tiny-onnx"))
    assert (manifest.source.model, manifest.source.revision) == ("org/tiny", new)
    arguments = ["--revision", "v1", "--cache-dir", "cache", "--no-verify", "-o", "v1"]
    manifest = exported(run("export", "org/tiny", *arguments), Path("v1"))
    assert manifest.source.revision == old
    assert manifest.require_embedding().pooling.value == ("cls",)
    hub.requests.clear()
    assert run("export", "org/tiny", "--offline", "--cache-dir", "cache", "--no-verify", "-o", "again").code == 0
    assert hub.requests == []


def test_a_name_that_is_neither_a_folder_nor_on_the_hub(run: Run, hub: HubServer, tmp_path: Path) -> None:
    for arguments in (["export"], ["embed"], ["inspect"]):
        name, texts = arguments[0], ["text"] if arguments == ["embed"] else []
        outcome = run(name, "models/absent", *texts, "--cache-dir", "cache")
        assert refused(outcome, "no folder 'models/absent' here", "no such model on", hub.url)
    assert names(tmp_path) == []


# export, verified


needs_torch = pytest.mark.skipif(bool(lacking()), reason=lacking() or "all is there")


@needs_torch
@pytest.mark.torch
def test_a_verified_export_can_be_repeated_byte_for_byte(run: Run, checkpoint: Path) -> None:
    for name in ("one", "two"):
        code, out, err = run("export", checkpoint, "-o", name, "--precision", "fp32,fp16")
        assert (code, err) == (0, "")  # none of the reference's bars, no word about texts too long on purpose
        assert [line.split()[:2] for line in out.splitlines()[1:]] == [["verified", "fp32"], ["verified", "fp16"]]
    one, two = ({path.name: path.read_bytes() for path in Path(name).rglob("*.*")} for name in ("one", "two"))
    assert one == two
    assert read_manifest(Path("one")).verification.keys() == {"fp32", "fp16"}


@needs_torch
@pytest.mark.torch
def test_verify_prints_and_records_what_it_measured(run: Run, artifact: Path) -> None:
    shutil.copytree(artifact, "copy")
    Path("more.txt").write_text("more\ntexts\n")
    code, out, err = run("verify", "copy", "--texts", "more.txt")
    assert (code, err) == (0, "")
    assert out.startswith(f"verified fp32 on {len(PROBES) + 4} texts against sentence-transformers ")
    assert out in run("inspect", "copy").out


@needs_torch
@pytest.mark.torch
def test_an_export_that_does_not_verify_leaves_no_folder(
    run: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(verifying.REQUIRED, "fp16", {"max_abs_diff": 1e-6, "min_cosine": 0})
    outcome = run("export", checkpoint, "-o", "out", "--precision", "fp32,fp16")
    assert refused(outcome, "fp16 vectors are not the reference's: max abs difference ")
    assert names(tmp_path) == []


def test_verify_refuses_what_cannot_be(run: Run, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = run("verify", "absent")
    assert (code, out) == (2, "")
    assert "'absent' does not exist" in err
    monkeypatch.setattr(verifying, "find_spec", lambda name: None if name == "torch" else object())
    assert refused(run("verify", artifact), "torch not installed", "pip install 'onnxembed[torch]'")


@pytest.mark.parametrize("missing", [["torch"], ["torch", "onnxruntime"]])
def test_an_export_without_torch_says_what_was_done(
    run: Run, checkpoint: Path, missing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "find_spec", lambda name: None if name in missing else object())
    if "onnxruntime" in missing:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, out, err = run("export", checkpoint, "-o", "out")
    assert (code, err) == (0, "")
    _, checked, verified = out.splitlines()
    assert checked.startswith("not even run: " if "onnxruntime" in missing else f"run on {len(BRIEF)} texts: ")
    extras = "cpu,torch" if "onnxruntime" in missing else "torch"
    why = f"{', '.join(missing)} not installed: pip install 'onnxembed[{extras}]'"
    assert verified == f"not verified ({why}); to verify: onnxembed verify out"


def test_an_export_that_does_not_run_leaves_no_folder(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "source")
    change_weights(source, lambda name, tensor: tensor * (np.nan if "word_embeddings" in name else 1))
    assert refused(run("export", "source", "--no-verify"), "fp32 vectors are not finite")
    assert names(tmp_path) == ["source"]


def test_the_tools_of_export_are_asked_for(run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = import_module("onnxembed.cli.export")  # the module; the package's attribute is the command
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "onnx" else object())
    assert refused(run("export", checkpoint), "export needs onnx: pip install 'onnxembed[export]'")


# embed


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
    assert run("embed", artifact, "texts.txt", "-o", "vectors.npy") == (0, "", "")
    assert np.array_equal(np.load("vectors.npy"), model.encode(texts))
    assert np.load("vectors.npy").shape == (count, D)
    assert names(tmp_path) == ["texts.txt", "vectors.npy"]


def test_embed_writes_json_lines(run: Run, artifact: Path, model: OnnxEmbedder) -> None:
    assert run("embed", artifact, "the cat", "-o", "vectors.jsonl") == (0, "", "")
    assert np.array_equal(rows(Path("vectors.jsonl").read_text()), model.encode("the cat"))


def test_no_input_is_no_output(run: Run, artifact: Path) -> None:
    Path("empty.jsonl").touch()
    assert run("embed", artifact, "empty.jsonl") == (0, "", "")
    assert run("embed", artifact, "-") == (0, "", "")
    assert run("embed", artifact, "-", "-o", "v.npy", "--dimensions", 8) == (0, "", "")
    assert np.load("v.npy").shape == (0, 8)


def test_the_options_of_embed_arrive(run: Run, artifact: Path, model: OnnxEmbedder) -> None:
    def vector(*arguments: object) -> NDArray[np.float32]:
        code, out, err = run("embed", artifact, "the cat", *arguments)
        assert (code, err) == (0, "")
        return rows(out)

    assert np.array_equal(vector("--prompt-name", "query"), model.encode_query("the cat"))
    assert np.array_equal(vector("--prompt", "at "), model.encode("at the cat"))
    assert np.array_equal(vector("--dimensions", 8), model.encode("the cat", dimensions=8))
    assert np.array_equal(vector("--threads", 1, "--provider", "cpu"), model.encode("the cat"))
    half = vector("--precision", "fp16")
    assert np.allclose(half, model.encode("the cat"), atol=0.01)
    assert not np.array_equal(half, model.encode("the cat"))


def test_embed_warns_in_one_line_of_texts_that_were_cut(run: Run, artifact: Path, model: OnnxEmbedder) -> None:
    code, out, err = run("embed", artifact, "the cat", "a", "--max-length", 3)
    assert code == 0
    assert np.array_equal(rows(out), model.encode(["the", "a"]))
    assert err.startswith("onnxembed: warning: 1 of 2 texts were longer than max_length=3 tokens")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["no texts", "- for standard input"]),
        (["absent.txt"], ["absent.txt", "No such file"]),
        (["notes.md"], ["notes.md is a file", "- < notes.md"]),
        (["texts.txt", "notes.md"], ["texts.txt is a file among texts"]),
        (["the cat", "texts.txt"], ["texts.txt is a file among texts"]),
        (["-", "the cat"], ["- is a file among texts"]),
        (["the cat", "--jsonl"], ["--jsonl", "not for texts"]),
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
        (["the cat", "--no-normalize"], ["normalises in its graph", "--no-normalize"]),
        (["the cat", "--provider", "tpu"], ["tpu is not in the installed onnxruntime"]),
        (["\udcff"], ["not Unicode"]),
    ],
)
def test_embed_refuses_what_cannot_be(
    run: Run, artifact: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    Path("notes.md").write_text("the cat\n")
    Path("texts.txt").write_text("the cat\n")
    Path("latin1.txt").write_bytes("the cat\nStraße\n".encode("latin-1"))
    Path("bad.jsonl").write_text('{"text": "the cat"}\n{"text": the cat}\n')
    before = names(tmp_path)
    if "-o" not in arguments:
        arguments = [*arguments, "-o", "v.npy"]
    assert refused(run("embed", artifact, *arguments), *words)
    assert names(tmp_path) == before


def test_cuda_where_there_is_none_is_an_error(run: Run, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_embed_takes_an_artefact_of_the_hub(run: Run, hub: HubServer, artifact: Path, model: OnnxEmbedder) -> None:
    hub.push("org/tiny-onnx", artifact)
    outcome = run("embed", "org/tiny-onnx", "the cat", "--cache-dir", "cache")
    assert np.array_equal(rows(outcome.out), model.encode("the cat"))


# inspect


def test_inspect_says_each_decision_and_where_it_came_from(run: Run, artifact: Path) -> None:
    code, out, err = run("inspect", artifact)
    assert (code, err) == (0, "")
    for words in (
        "pooling          mean (file: 1_Pooling/config.json: pooling_mode), in the graph",
        "normalize        yes (file: modules.json has a Normalize module)",
        "max length       20 (file: sentence_bert_config.json: max_seq_length)",
        "prompt           query: 'to be: '",
        "dimensions       32",
        "fp32: onnx/model.onnx, 0.1 MB, ",
        "fp16: onnx/model_fp16.onnx",
        "LayerNormalization",
        f"not verified; to verify: onnxembed verify {artifact}",
    ):
        assert words in out


def test_inspect_prints_the_manifest_itself(run: Run, artifact: Path) -> None:
    assert run("inspect", artifact, "--json") == (0, (artifact / FILE_NAME).read_text(), "")


def test_inspect_downloads_nothing_but_the_manifest(run: Run, hub: HubServer, artifact: Path) -> None:
    hub.push("org/tiny-onnx", artifact)
    assert "pooling          mean" in run("inspect", "org/tiny-onnx", "--cache-dir", "cache").out
    assert hub.downloaded() == [FILE_NAME]


def test_inspect_refuses_what_is_no_artefact(run: Run, checkpoint: Path) -> None:
    Path("file").touch()
    assert refused(run("inspect", checkpoint), "no onnxembed.json", f"onnxembed export {checkpoint}")
    assert refused(run("inspect", "./absent"), "no folder at absent")
    assert refused(run("inspect", "file"), "file is a file")


# Terminals, pipes and signals


def part_files(folder: Path) -> list[str]:
    return [name for name in names(folder) if name.endswith(".part")]


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to pass")


def start(*arguments: object, program: str | None = None, **options: Any) -> subprocess.Popen[bytes]:
    line = command(*arguments) if program is None else [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(line, env=USUAL, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_embed_leaves_nothing(artifact: Path, tmp_path: Path, number: signal.Signals) -> None:
    with start("embed", artifact, "-", "-o", "v.npy", cwd=tmp_path, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"the cat\n" * 5000)
        process.stdin.flush()
        wait_for(lambda: part_files(tmp_path))  # from now on it waits for more
        process.send_signal(number)
        said = process.stderr.read().decode().strip()
    assert (process.returncode, said) == ((130, "onnxembed: interrupted") if number == signal.SIGINT else (143, ""))
    assert names(tmp_path) == []


BUSY = """
import sys, time
from onnxembed.cli import main
from onnxembed.session import Session

def run(self, output, feeds):
    print(flush=True)
    time.sleep(0.3)
    return original(self, output, feeds)

original, Session.run = Session.run, run
main(sys.argv[1:])
"""


def test_busy_threads_are_interrupted_too(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("".join(f"{i} {'the ' * (i % 18)}\n" for i in range(50_000)))
    arguments = ("embed", artifact, "texts.txt", "-o", "v.npy")
    with start(*arguments, program=BUSY, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        since = time.monotonic()
        assert process.stderr.read().decode().strip() == "onnxembed: interrupted"
    assert process.returncode == 130
    assert time.monotonic() - since < 10
    assert names(tmp_path) == ["texts.txt"]


SLOW = """
import sys, time
from onnxembed.cli import main
from onnxembed.progress import ProgressLine

def wait(self, stage, done, total):
    print(stage, flush=True)
    if stage == "hashing":
        time.sleep(60)

ProgressLine.__call__ = wait
main(sys.argv[1:])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing(checkpoint: Path, tmp_path: Path, number: signal.Signals) -> None:
    arguments = ("export", checkpoint, "-o", "out", "--no-verify")
    with start(*arguments, program=SLOW, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while process.stdout.readline().strip() != b"hashing":
            pass
        assert part_files(tmp_path)
        process.send_signal(number)
        said = process.stderr.read().decode().strip()
    assert (process.returncode, said) == ((130, "onnxembed: interrupted") if number == signal.SIGINT else (143, ""))
    assert names(tmp_path) == []


def test_a_reader_that_has_enough_is_no_error(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("".join(f"the cat {i}\n" for i in range(5000)))
    with start("embed", artifact, tmp_path / "texts.txt", stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(rows(process.stdout.readline().decode())) == 1
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_full_disk_is_one_sentence(artifact: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    with full.open("wb") as out:
        line = command("embed", artifact, "the cat")
        done = subprocess.run(line, env=USUAL, stdout=out, stderr=subprocess.PIPE, check=False, timeout=60)
    assert (done.returncode, done.stderr.decode()) == (2, "onnxembed: input or output: No space left on device\n")


@pytest.mark.parametrize(
    "encoding",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
)
def test_a_terminal_without_unicode_is_no_error(
    checkpoint: Path, artifact: Path, tmp_path: Path, encoding: dict[str, str]
) -> None:
    shutil.copytree(artifact, tmp_path / "out")
    manifest = (artifact / FILE_NAME).read_text().replace('"to be: "', '"Übung 東京: "')
    (tmp_path / "out" / FILE_NAME).write_text(manifest, encoding="utf-8")

    def call(*arguments: str) -> tuple[int, bytes, bytes]:
        done = subprocess.run(
            command(*arguments), cwd=tmp_path, env=USUAL | encoding, capture_output=True, check=False, timeout=60
        )
        return done.returncode, done.stdout, done.stderr

    code, out, err = call("inspect", "out")
    assert (code, err) == (0, b"")
    assert b"prompt           query: " in out
    assert call("inspect", "out", "--json") == (0, manifest.encode(), b"")
    code, out, err = call("embed", "out", "a", "--prompt-name", "東京")
    assert (code, out) == (2, b"")
    assert err.startswith(b"onnxembed: ")
    assert err.count(b"\n") == 1


def on_a_terminal(
    *arguments: object, stdin: Callable[[io.BufferedWriter], None], cwd: Path, printing: bool = False
) -> str:
    """What a command shows on a terminal: its standard error, and when `printing` its standard output."""
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 80))
    out = child if printing else subprocess.DEVNULL
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": out, "stderr": child}
    with subprocess.Popen(command(*arguments), env=USUAL, cwd=cwd, **pipes) as process:
        os.close(child)
        assert isinstance(process.stdin, io.BufferedWriter)
        stdin(process.stdin)
        process.stdin.close()
        shown = b""
        try:
            while chunk := os.read(parent, 4096):
                shown += chunk
        except OSError:  # how Linux ends the reading of a terminal
            pass
        os.close(parent)
    assert process.returncode == 0, shown
    return shown.decode()


def test_export_shows_its_stages_on_a_terminal(checkpoint: Path, tmp_path: Path) -> None:
    shown = on_a_terminal("export", checkpoint, "-o", "out", "--no-verify", stdin=lambda file: None, cwd=tmp_path)
    assert "writing fp32 weights" in shown
    assert "hashing" in shown
    assert "\n" not in shown  # one line for all
    assert shown.endswith("\r")  # which is taken away


@pytest.mark.parametrize("printing", [False, True])
def test_embed_counts_on_a_terminal_that_shows_no_vectors(artifact: Path, tmp_path: Path, printing: bool) -> None:
    def slowly(file: io.BufferedWriter) -> None:
        file.write(b"the cat\n" * 2500)
        file.flush()
        if not printing:
            wait_for(lambda: part_files(tmp_path))
        time.sleep(0.7)
        file.write(b"the cat\n")

    arguments = [] if printing else ["-o", "v.npy"]
    shown = on_a_terminal("embed", artifact, "-", *arguments, stdin=slowly, cwd=tmp_path, printing=printing)
    assert bool(re.search(r"embedding: \d+text", shown)) is not printing
