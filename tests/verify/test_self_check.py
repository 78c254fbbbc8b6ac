"""The checks of an export without a reference: without torch, and even without ONNX Runtime."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxembed import OnnxEmbedder
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, VerificationError
from onnxembed.execution.cpu import CpuBackend
from onnxembed.export.artifact import record_manifest
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import FILE_NAME, PRECISIONS, read_manifest
from onnxembed.proof.probes import BRIEF
from onnxembed.verify import embedding as verify_embedding
from onnxembed.verify.comparison import open_on_cpu
from onnxembed.verify.verify import self_check
from tampering import change_graph, change_weights, ignore_mask
from tiny import write_bert

FINE = f"run on {len(BRIEF)} texts: vectors are finite, and the same for a text alone and among others"


@pytest.fixture
def copy(artifact: Path, tmp_path: Path) -> Path:
    """A copy of the tiny artifact, in fp32 and fp16."""
    return shutil.copytree(artifact, tmp_path / "copy")


def test_a_good_artifact_passes(artifact: Path) -> None:
    assert self_check(artifact) == FINE


@pytest.mark.exact_bytes
@pytest.mark.parametrize("pooling_out", [False, True])
def test_every_way_of_pooling_passes(tmp_path: Path, pooling_out: bool) -> None:
    flags = Flags(pooling=("cls", "mean", "lasttoken"), normalize=False)
    options = Options(precisions=PRECISIONS, flags=flags, pooling_out=pooling_out)
    export(write_bert(tmp_path / "source"), tmp_path / "out", options)
    assert self_check(tmp_path / "out") == FINE


def test_a_graph_that_does_not_open_is_refused(copy: Path) -> None:
    change_graph(copy, lambda graph: graph.node[-1].ClearField("input"))
    with pytest.raises(ModelFilesError, match="cannot open"):
        self_check(copy)


def test_vectors_that_are_not_numbers_are_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "source")
    change_weights(source, lambda name, tensor: tensor * np.float32(1e30 if "LayerNorm.weight" in name else 1))
    with pytest.raises(VerificationError, match="the fp32 graph gives numbers that are not finite"):
        export(source, tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(record_manifest, "_with_proof", lambda draft, manifest, write: manifest)
    export(source, tmp_path / "out", Options())
    with pytest.raises(VerificationError, match="fp32 vectors are not finite"):
        self_check(tmp_path / "out")


def test_a_mask_that_is_ignored_is_seen(copy: Path) -> None:
    change_graph(copy, ignore_mask)
    with pytest.raises(VerificationError, match=r"fp32 vectors are not the same .*: together .*, padded right"):
        self_check(copy)


def test_a_graph_that_mixes_texts_up_is_seen_without_padding(copy: Path) -> None:
    """The graph adds a row's neighbor to it; alone a text has none, and padded ones are right."""
    change_graph(copy, mix_unpadded)
    with pytest.raises(VerificationError) as caught:
        self_check(copy)
    ways = dict(part.rsplit(" ", 1) for part in str(caught.value).split("running: ")[1].split(";")[0].split(", "))
    assert float(ways["together"]) > 1e-2
    assert float(ways["padded right"]) < 1e-6


def mix_unpadded(graph: onnx.GraphProto) -> None:
    """sentence_embedding[0] is added to every row, less row 0's own share, in runs whose mask is all ones."""
    (last,) = (node for node in graph.node if "sentence_embedding" in node.output)
    last.output[:] = ["right" if name == "sentence_embedding" else name for name in last.output]
    constants = {"zero": [0], "one": [1], "both": [0, 1]}
    graph.initializer.extend(
        onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [len(value)], value) for name, value in constants.items()
    )
    node = onnx.helper.make_node
    graph.node.extend(
        [
            node("ReduceMin", ["attention_mask", "both"], ["least"], keepdims=0),
            node("Cast", ["least"], ["whole"], to=onnx.TensorProto.FLOAT),
            node("Slice", ["right", "zero", "one", "zero"], ["first"]),
            node("Sub", ["right", "first"], ["apart"]),
            node("Mul", ["apart", "whole"], ["wrong"]),
            node("Add", ["right", "wrong"], ["sentence_embedding"]),
        ]
    )


def test_nothing_is_run_more_often_than_it_must_be(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts with the same ids run once: alone, in batches and, if of the most common length, without padding."""
    runs: list[tuple[int, int]] = []

    def run(backend: CpuBackend, outputs: Sequence[str], feeds: Mapping[str, Any]) -> Any:
        runs.append(feeds["input_ids"].shape)
        return honest(backend, outputs, feeds)

    honest = CpuBackend.run
    monkeypatch.setattr(CpuBackend, "run", run)
    with open_on_cpu(OnnxEmbedder, artifact, "fp32") as model:
        tokens = {tuple(text.ids.tolist()) for text in model.tokenize(BRIEF)}
        verify_embedding.self_check(model, "fp32")
    alone = [slots for texts, slots in runs if texts == 1]
    assert sorted(alone) == sorted(map(len, tokens))
    common, *batches = runs[len(alone) :]
    assert common[0] == max(alone.count(slots) for slots in alone)
    assert sum(texts for texts, _ in batches) == len(tokens)
    assert sum(texts * slots for texts, slots in batches) < 1.5 * sum(alone)


def test_a_manifest_that_promises_other_dimensions_is_refused(copy: Path) -> None:
    manifest = read_manifest(copy)
    embedding = replace(manifest.require_embedding(), dimension=16)
    (copy / FILE_NAME).write_text(replace(manifest, embedding=embedding).to_json())
    with pytest.raises(ModelFilesError, match="sentence_embedding has 32 numbers"):
        self_check(copy)


def test_without_onnxruntime_it_says_that_nothing_was_run(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = self_check(artifact)
    assert result.startswith("not even run: ")
    assert "pip install 'onnxembed[cpu]'" in result
