"""`onnxembed verify`: what it prints and records, and how it fails."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hub_server import HubServer
from onnxembed.execution import processor
from onnxembed.manifest import FILE_NAME, PROOF_FILE, read_manifest
from onnxembed.proof.probes import PROBES
from onnxembed.verify import requirements
from running import Run, needs_torch, refused
from tampering import change_graph, change_tensor


@needs_torch
@pytest.mark.torch
def test_verify_prints_and_records_what_it_measured(run: Run, artifact: Path) -> None:
    shutil.copytree(artifact, "copy")
    Path("more.txt").write_text("more\ntexts\n")
    code, out, err = run("verify", "copy", "--texts", "more.txt")
    assert (code, err) == (0, "")
    assert out.startswith(f"verified fp32 on {len(PROBES) + 4} texts against sentence-transformers ")
    assert out in run("inspect", "copy").out
    code, out, _ = run("verify", "copy", "--texts", "more.txt", "--json")
    assert code == 0
    assert (
        json.loads(out)["manifest"]["verification"] == json.loads(Path("copy", FILE_NAME).read_text())["verification"]
    )


@needs_torch
@pytest.mark.torch
def test_verify_reads_texts_from_standard_input(run: Run, artifact: Path) -> None:
    shutil.copytree(artifact, "copy")
    Path("more.csv").write_text("more\n")
    assert refused(run("verify", "copy", "--texts", "more.csv"), "read it as standard input: - < more.csv")
    code, out, _ = run("verify", "copy", "--texts", "-", stdin=b"more\ntexts\n")
    assert (code, out.startswith(f"verified fp32 on {len(PROBES) + 4} texts")) == (0, True)


def test_verify_refuses_an_absent_folder_and_missing_extras(
    run: Run, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refused(run("verify", "./absent"), "no folder at absent")
    Path("empty").mkdir()
    assert refused(run("verify", "empty"), "empty has no onnxembed.json", "onnxembed export empty -o DIR")
    monkeypatch.setattr(requirements, "find_spec", lambda name: None if name == "torch" else object())
    refusal = run("verify", artifact, "--against", "org/model")
    assert refused(refusal, "torch not installed", "pip install 'onnxembed[torch]'")


def test_where_only_the_runtime_is_installed_verify_names_the_extra(artifact: Path) -> None:
    absent = ["torch", "transformers", "sentence_transformers", "onnx", "ml_dtypes"]
    program = f"import sys; sys.modules.update(dict.fromkeys({absent})); from onnxembed.cli import main; main()"
    command = [sys.executable, "-c", program, "verify", str(artifact), "--against", "org/model"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "onnxembed: verification compares with torch (torch, transformers, sentence_transformers, onnx, ml_dtypes "
        "not installed: pip install 'onnxembed[torch]')\n"
    )


def test_verify_compares_with_the_proof(run: Run, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "find_spec", lambda name: None if name == "torch" else object())
    code, out, err = run("verify", artifact, "--threads", "2", "--provider", "cpu")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"{artifact} against its proof, made by ")
    assert [line for line in lines if line.endswith("threads")] == [
        "fp32 on CPUExecutionProvider, 2 threads",
        "fp16 on CPUExecutionProvider, 2 threads",
    ]
    rows = [line.split() for line in lines if line.startswith("embedding")]
    assert [row[1] for row in rows] == ["alone", "as", "in", "padded"] * 2
    assert all(len(line) <= 80 for line in lines[1:])
    assert {row[-1] for row in rows} == {"0.999999", "0.9999"}


def test_verify_compares_a_repository_of_the_hub_with_its_proof(run: Run, hub: HubServer, artifact: Path) -> None:
    first = hub.push("org/tiny-onnx", artifact, "v1")
    cache = ("--cache-dir", "cache")
    code, out, err = run("verify", "org/tiny-onnx", "--revision", "v1", *cache)
    assert (code, err) == (0, "")
    assert out.startswith("org/tiny-onnx against its proof, made by ")
    assert "fp16 on CPU" in out
    assert first in hub.requests[-1]
    hub.requests.clear()
    assert run("verify", "org/tiny-onnx", "--revision", first, "--precision", "fp32", "--json", *cache).code == 0
    assert hub.requests == []
    unproved = shutil.copytree(artifact, Path("unproved"))
    manifest = read_manifest(unproved)
    (unproved / PROOF_FILE).unlink()
    files = {name: record for name, record in manifest.files.items() if name != PROOF_FILE}
    (unproved / FILE_NAME).write_text(replace(manifest, files=files).to_json())
    hub.push("org/tiny-onnx", unproved)
    assert refused(run("verify", "org/tiny-onnx", *cache), "has no proof")
    assert refused(run("verify", "org/tiny-onnx", "--against", "org/x", *cache), "hf download org/tiny-onnx")
    assert refused(run("verify", "org/tiny-onnx", "--golden", *cache), "hf download org/tiny-onnx")


def test_verify_in_bf16_on_a_cpu_fetches_the_fp32_graph(
    run: Run, hub: HubServer, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "read_processor", lambda: processor.Processor("an ARM", ("BF16",)))
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    hub.push("org/tiny-onnx", artifact, "v1")
    options = ("--precision", "bf16", "--provider", "cpu", "--json", "--cache-dir", "cache")
    code, out, err = run("verify", "org/tiny-onnx", "--revision", "v1", *options)
    assert (code, err) == (0, "")
    (graph,) = json.loads(out)["graphs"]
    assert graph["precision"] == "bf16"
    assert {figure["required"]["min_cosine"] for figure in graph["figures"]} == {0.999}


def test_verify_of_another_repository_names_the_way_to_an_artifact(run: Run, hub: HubServer, checkpoint: Path) -> None:
    hub.push("org/tiny", checkpoint)
    refusal = run("verify", "org/tiny", "--cache-dir", "cache")
    assert refused(refusal, "org/tiny has no onnxembed.json", "onnxembed adopt org/tiny -o DIR")


def test_verify_of_one_graph_as_json(run: Run, artifact: Path) -> None:
    code, out, _ = run("verify", artifact, "--precision", "fp16", "--json")
    found = json.loads(out)
    assert (code, found["passed"]) == (0, True)
    (graph,) = found["graphs"]
    assert (graph["precision"], graph["provider"]) == ("fp16", "CPUExecutionProvider")
    assert all(figure["min_cosine"] > 0.9999 for figure in graph["figures"])


def test_verify_leaves_out_what_is_longer_than_told(run: Run, artifact: Path) -> None:
    def items(*options: str) -> set[int]:
        _, out, _ = run("verify", artifact, "--precision", "fp32", "--json", *options)
        return {figure["items"] for graph in json.loads(out)["graphs"] for figure in graph["figures"]}

    (every,), (short,) = items(), items("--max-length", "8")
    assert 0 < short < every
    assert refused(run("verify", artifact, "--max-length", "0"), "max_length is 0")


def test_verify_ends_with_1_where_a_limit_is_broken(run: Run, artifact: Path) -> None:
    """A flipped weight, with a hash to match: the plain graph is believed when it is loaded, and found here."""
    shutil.copytree(artifact, "copy")
    change_graph(Path("copy"), lambda graph: change_tensor(graph, "word_embeddings.weight", lambda weight: -weight))
    code, out, err = run("verify", "copy", "--precision", "fp32")
    assert (code, out.count("BROKEN")) == (1, 4)
    assert "this graph does not give the model's own results here" in err
    code, out, _ = run("verify", "copy", "--precision", "fp32", "--json")
    assert (code, json.loads(out)["passed"]) == (1, False)


def test_verify_says_how_to_get_a_proof(run: Run, artifact: Path) -> None:
    shutil.copytree(artifact, "copy")
    Path("copy/proof.npz").unlink()
    assert refused(run("verify", "copy"), "copy has no proof", "--against", "adds one")
    assert refused(run("verify", "copy", "--against", "x", "--threads", "2"), "are for the proof: leave out --against")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--golden", "--precision", "fp16"), "--golden compares the graph on the CPU"),
        (("--golden", "--provider", "cuda"), "--golden compares the graph on the CPU"),
        (("--golden", "--against", "x"), "--golden compares the graph on the CPU"),
        (("--against", "tei:http://127.0.0.1:9", "--revision", "main"), "--revision names a version of the original"),
    ],
)
def test_options_that_would_change_nothing_are_refused(
    run: Run, artifact: Path, options: tuple[str, ...], words: str
) -> None:
    assert refused(run("verify", artifact, *options), words)
