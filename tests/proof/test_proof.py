"""The proof of an artifact: what it holds, who reads it, and that the same export writes the same bytes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tokenizers

import onnxembed
from onnxembed import OnnxEmbedder, OnnxReranker
from onnxembed.commands import verify_proof
from onnxembed.errors import ModelFilesError, ProofError, UsageError, VerificationError
from onnxembed.execution.providers import CPU, CUDA, OPENVINO, Placement
from onnxembed.execution.session import Session
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import FILE_NAME, PROOF_FILE, Task, read_manifest
from onnxembed.proof import checking, remembered
from onnxembed.proof.compare import compare as run_proof
from onnxembed.proof.opening import VARIABLE
from onnxembed.proof.probes import RECORDED
from onnxembed.proof.record import Part, brief, read_proof, write_proof
from onnxembed.proof.recording import proof_of_graph
from onnxembed.tokenizer.texts import Tokens
from tampering import change_graph, change_tensor
from tiny import write_sentence_bert
from tiny_rerankers import write_reranker


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of passed proofs for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path / "cache/onnxembed/proofs"


@pytest.fixture
def copy(artifact: Path, tmp_path: Path) -> Path:
    """A copy of the tiny artifact, in fp32 and fp16."""
    return shutil.copytree(artifact, tmp_path / "copy")


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The precisions of the models that are compared with their proofs, as they are."""
    compared: list[str] = []

    def counting(opened: Any, *arguments: Any, **options: Any) -> Any:
        compared.append(opened.precision)
        return run_proof(opened, *arguments, **options)

    monkeypatch.setattr(checking, "compare", counting)
    return compared


def test_numpy_alone_reads_it(artifact: Path) -> None:
    with np.load(artifact / PROOF_FILE, allow_pickle=False) as arrays:
        about = json.loads(bytes(arrays["about"]))
        lengths, vectors = arrays["embedding.lengths"], arrays["embedding.values"]
    (part,) = about["parts"]
    assert part["task"] == "embedding"
    assert {"a", "", "Hello World", "東京は日本の首都です。"} <= {*part["items"]}
    assert len(part["items"]) == len(lengths) == len(vectors)
    assert lengths.min() == 2
    assert lengths.max() == 20
    with OnnxEmbedder(artifact) as model, pytest.warns(UserWarning, match="cut"):
        ours = np.stack([model.encode(text) for text in part["items"]])
    np.testing.assert_allclose(vectors, ours, rtol=0, atol=1e-6)


def test_it_is_small_and_recorded(artifact: Path) -> None:
    record = read_manifest(artifact).files[PROOF_FILE]
    assert record.bytes == (artifact / PROOF_FILE).stat().st_size < 300_000


def test_the_same_export_writes_the_same_bytes(tmp_path: Path) -> None:
    write_sentence_bert(tmp_path / "checkpoint")
    for name in ("a", "b"):
        export(tmp_path / "checkpoint", tmp_path / name)
    assert (tmp_path / "a" / PROOF_FILE).read_bytes() == (tmp_path / "b" / PROOF_FILE).read_bytes()


def test_it_reads_back_as_it_was_written(artifact: Path, tmp_path: Path) -> None:
    proof = proof_of_graph(artifact)
    write_proof(tmp_path, proof)
    again = read_proof(tmp_path)
    assert again is not None
    assert again.reference == proof.reference
    for ours, theirs in zip(again.parts, proof.parts, strict=True):
        assert (ours.name, list(ours.items), list(ours.rows)) == (theirs.name, list(theirs.items), list(theirs.rows))
        for one, other in zip(ours.outputs, theirs.outputs, strict=True):
            np.testing.assert_array_equal(one, other)
        for mine, yours in zip(ours.tokens, theirs.tokens, strict=True):
            np.testing.assert_array_equal(mine.ids, yours.ids)


def part(task: Task, outputs: list[Any]) -> Part:
    """A part with these outputs."""
    items = [f"text {number}" for number in range(len(outputs))]
    tokens = [Tokens(np.zeros(1, np.int64), np.zeros(1, np.int64), truncated=False)] * len(items)
    return Part(task, None, items, tokens, outputs)


@pytest.mark.parametrize(
    ("task", "output", "number"),
    [
        ("embedding", np.ones((1, 4096), np.float32), 12),
        ("multi_vector", np.ones((30, 2048), np.float32), 2),
        ("sparse", np.eye(1, 30_000, dtype=np.float32), 15),
        ("embedding", np.ones((1, 2**20), np.float32), 1),
    ],
)
def test_there_are_as_many_probes_as_there_is_room_for(task: Task, output: Any, number: int) -> None:
    """Of a text's many vectors, some from the first to the last; at least one probe is recorded."""
    whole = part(task, [output] * 15)
    kept = brief(whole, [*reversed(whole.items), "another"])
    assert kept.items == [*reversed(whole.items)][:number]
    assert kept.rows == [len(output)] * number
    assert len(kept.tokens) == len(kept.outputs) == number
    for places, rows in zip(kept.places, kept.outputs, strict=True):
        assert (places[0], places[-1], len(places)) == (0, len(output) - 1, min(12, len(output)))
        np.testing.assert_array_equal(rows, output[places])


def test_a_graph_without_finite_numbers_makes_no_proof(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Session.run
    monkeypatch.setattr(Session, "run", lambda *given, **options: [each * np.nan for each in run(*given, **options)])
    with pytest.raises(VerificationError, match="the fp32 graph gives numbers that are not finite"):
        proof_of_graph(artifact)


@pytest.mark.parametrize("damage", [b"", b"nothing", None])
def test_another_file_is_refused(copy: Path, damage: bytes | None) -> None:
    if damage is None:
        np.savez(copy / PROOF_FILE, about=np.zeros(3, np.uint8))
    else:
        (copy / PROOF_FILE).write_bytes(damage)
    with pytest.raises(ModelFilesError, match=r"proof.npz is not a proof"):
        read_proof(copy)


def test_the_plain_graph_is_believed_and_others_are_checked_once(
    artifact: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = counted(monkeypatch)
    OnnxEmbedder(artifact).close()
    assert compared == []
    assert not cache.exists()
    for _ in range(3):
        OnnxEmbedder(artifact, precision="fp16").close()
    assert compared == ["fp16"]
    (file,) = cache.iterdir()
    assert json.loads(file.read_text())["min_cosine"] > 0.9999
    OnnxEmbedder(artifact, precision="fp16", prove=True).close()
    OnnxEmbedder(artifact, prove=True).close()
    assert compared == ["fp16", "fp16", "fp32"]


@pytest.mark.parametrize(
    ("variable", "prove", "times"),
    [("never", None, 0), ("always", None, 2), ("once", None, 1), ("never", True, 2), ("always", False, 0)],
)
def test_the_variable_decides_what_the_argument_leaves_open(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, variable: str, prove: bool | None, times: int
) -> None:
    compared = counted(monkeypatch)
    monkeypatch.setenv(VARIABLE, variable)
    for _ in range(2):
        OnnxEmbedder(artifact, precision="fp16", prove=prove).close()
    assert len(compared) == times


def test_other_values_are_refused(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="prove is 'yes', not True, False or None"):
        OnnxEmbedder(artifact, prove="yes")  # type: ignore[arg-type]
    monkeypatch.setenv(VARIABLE, "maybe")
    with pytest.raises(UsageError, match="ONNXEMBED_PROVE is 'maybe', not once, always or never"):
        OnnxEmbedder(artifact)


def test_a_cache_that_cannot_be_written_only_costs_time(artifact: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    compared = counted(monkeypatch)
    for _ in range(2):
        OnnxEmbedder(artifact, precision="fp16").close()
    assert compared == ["fp16", "fp16"]


def test_another_machine_checks_again(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = counted(monkeypatch)
    OnnxEmbedder(artifact, precision="fp16").close()
    other = tmp_path / "cpuinfo"
    other.write_text("model name\t: Another\nflags\t\t: fpu avx\n\nmodel name: more")
    monkeypatch.setattr(remembered, "CPUINFO", other)
    OnnxEmbedder(artifact, precision="fp16").close()
    other.write_text("model name\t: Another\nflags\t\t: fpu avx avx512_vnni\n")
    OnnxEmbedder(artifact, precision="fp16").close()
    assert compared == ["fp16"] * 3


def test_what_passed_with_a_shorter_limit_is_checked_again_with_a_longer_one(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shorter limit leaves out all longer probes."""
    compared = counted(monkeypatch)
    for limit in (3, 3, None, None):
        OnnxEmbedder(artifact, precision="fp16", max_length=limit).close()
    assert compared == ["fp16", "fp16"]


def test_each_of_what_decides_the_numbers_is_in_what_is_remembered(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(artifact)

    def key(
        placement: Placement = Placement("cpu"),  # noqa: B008
        ways: Sequence[str] = ("as scheduled",),
        *,
        tokens: bool = True,
        **changed: Any,
    ) -> str:
        opened: Any = {"provider": CPU, "precision": "fp16", "variant": "fp16", "max_length": 20, "manifest": manifest}
        opened |= {"threads": 2, **changed}
        return remembered.key(SimpleNamespace(**opened), placement, ways, tokens=tokens)  # type: ignore[arg-type]

    keys = [
        key(),
        key(Placement([(CUDA, {"use_tf32": 1})])),
        key(Placement("cpu", device_id=1)),
        key(Placement("cpu", device_ids=(0, 1))),
        key(tokens=False),
        key(provider=CUDA),
        key(precision="fp32"),
        key(variant="fp32"),
        key(max_length=19),
        key(threads=3),
        key(ways=("alone",)),
        key(manifest=replace(manifest, files={})),
    ]
    for variable in remembered.CUDA_NUMBERS:
        with monkeypatch.context() as patch:
            patch.setenv(variable, "1")
            keys.append(key())
    for module in (onnxembed, onnxruntime, tokenizers):
        with monkeypatch.context() as patch:
            patch.setattr(module, "__version__", "another")
            keys.append(key())
    for number in ("1", "2"):
        monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(__version__=number))
        keys.append(key(provider=OPENVINO))
    monkeypatch.setattr(remembered, "NVIDIA", tmp_path)
    for file, line in (("version", "driver 1"), ("version", "driver 2"), ("gpus/0/information", "Model: another")):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(line)
        keys.append(key())
    assert keys[-1] == key()
    assert len({*keys}) == len(keys)


def test_what_fails_later_is_not_believed_any_more(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    OnnxEmbedder(artifact, precision="fp16").close()
    run = Session.run
    monkeypatch.setattr(Session, "run", lambda *given, **options: [-each for each in run(*given, **options)])
    OnnxEmbedder(artifact, precision="fp16").close()  # it passed on this machine
    for prove in (True, None):
        with pytest.raises(ProofError, match="does not give the model's own vectors"):
            OnnxEmbedder(artifact, precision="fp16", prove=prove)


def test_a_shorter_limit_is_no_fault(artifact: Path) -> None:
    for limit in (3, 7, 20):
        OnnxEmbedder(artifact, precision="fp16", prove=True, max_length=limit).close()


def test_an_older_artifact_is_compared_with_its_plain_graph(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make_old(copy)
    compared = counted(monkeypatch)
    OnnxEmbedder(copy, precision="fp16").close()
    assert compared == ["fp16"]


@pytest.mark.parametrize("fetched", [True, False])
def test_without_both_it_says_how_to_get_one(copy: Path, fetched: bool) -> None:
    """The fp32 graph may not have come from the hub, where only what is run is fetched."""
    manifest = _make_old(copy)
    if fetched:
        del manifest["variants"]["fp32"]
        (copy / FILE_NAME).write_text(json.dumps(manifest))
    else:
        (copy / manifest["variants"]["fp32"]["file"]).unlink()
    with pytest.warns(UserWarning, match=r"has no proof, so its fp16 graph is not checked on CPUExecutionProvider. To"):
        OnnxEmbedder(copy, precision="fp16").close()
    OnnxEmbedder(copy, precision="fp16", prove=False).close()


def test_an_artifact_without_a_plain_graph_has_a_proof_of_one(tmp_path: Path) -> None:
    """And leaves nothing of that graph behind."""
    write_sentence_bert(tmp_path / "checkpoint")
    export(tmp_path / "checkpoint", tmp_path / "half", Options(precisions=("fp16",)))
    export(tmp_path / "checkpoint", tmp_path / "both", Options(precisions=("fp32", "fp16")))
    assert (tmp_path / "half" / PROOF_FILE).read_bytes() == (tmp_path / "both" / PROOF_FILE).read_bytes()
    assert [path.name for path in (tmp_path / "half/onnx").iterdir()] == ["model_fp16.onnx"]
    assert [*read_manifest(tmp_path / "half").variants] == ["fp16"]


def test_wrong_vectors_are_refused_with_the_figures_and_the_cure(copy: Path, cache: Path) -> None:
    _spoil(copy, "fp16")
    with pytest.raises(ProofError) as caught:
        OnnxEmbedder(copy, precision="fp16")
    message = str(caught.value)
    for words in (
        "the fp16 graph does not give the model's own vectors",
        "min cosine",
        "(at least 0.9999)",
        "CPUExecutionProvider",
        "precision fp32",
        "prove=False",
    ):
        assert words in message
    assert not cache.exists()
    OnnxEmbedder(copy, precision="fp16", prove=False).close()


def test_a_reranker_is_checked_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_reranker(tmp_path / "checkpoint")
    folder = tmp_path / "artifact"
    export(tmp_path / "checkpoint", folder, Options(precisions=("fp32", "fp16")))
    proof = read_proof(folder)
    assert proof is not None
    (part,) = proof.parts
    assert part.task == "reranking"
    assert part.items[0] == ("What is the capital of France?", RECORDED[0])
    OnnxReranker(folder, precision="fp16", prove=True, truncation="only_second").close()
    compared = counted(monkeypatch)
    for _ in range(2):  # the tokens of the model's own way are not compared yet
        OnnxReranker(folder, precision="fp16").close()
    assert compared == ["fp16"]
    _spoil(folder, "fp16")
    with pytest.raises(ProofError, match="does not give the model's own scores"):
        OnnxReranker(folder, precision="fp16")


def test_a_limit_that_leaves_nothing_to_compare_is_said(tmp_path: Path, cache: Path) -> None:
    """Every pair of the proof holds the same query."""
    write_reranker(tmp_path / "checkpoint")
    folder = tmp_path / "artifact"
    export(tmp_path / "checkpoint", folder, Options(precisions=("fp32", "fp16")))
    for _ in range(2):
        with pytest.warns(
            UserWarning, match=r"nothing of at most 6 tokens for reranking, so .* not checked in fp16 on"
        ):
            OnnxReranker(folder, precision="fp16", max_length=6).close()
    assert not cache.exists()
    with pytest.raises(UsageError, match=r"max_length=6: nothing in the proof has so few tokens \(reranking\)"):
        verify_proof(folder, max_length=6)


def _make_old(folder: Path) -> Any:
    """The manifest of an artifact that an earlier version wrote."""
    (folder / PROOF_FILE).unlink()
    manifest = json.loads((folder / FILE_NAME).read_text())
    del manifest["files"][PROOF_FILE]
    (folder / FILE_NAME).write_text(json.dumps(manifest))
    return manifest


def _spoil(folder: Path, precision: str) -> None:
    file = read_manifest(folder).variants[precision].file
    change_graph(folder, lambda graph: change_tensor(graph, "word_embeddings.weight", lambda weight: -weight), file)
