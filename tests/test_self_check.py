"""What an export makes sure of where there is no reference: without torch, and without ONNX Runtime too."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxembed.errors import ModelFilesError, VerificationError
from onnxembed.export.pipeline import Options, export
from onnxembed.export.probes import BRIEF
from onnxembed.export.verify import self_check
from onnxembed.manifest import FILE_NAME, PRECISIONS, read_manifest
from onnxembed.resolve import Flags
from tampering import change_graph, change_weights, ignore_mask
from tiny import write_bert

FINE = f"run on {len(BRIEF)} texts: vectors are finite, and the same for a text alone and among others"


@pytest.fixture
def copy(artifact: Path, tmp_path: Path) -> Path:
    """A copy of the tiny artefact, in fp32 and fp16."""
    return shutil.copytree(artifact, tmp_path / "copy")


def test_a_good_artefact_passes(artifact: Path) -> None:
    assert self_check(artifact) == FINE


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


def test_vectors_that_are_not_numbers_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "source")
    change_weights(source, lambda name, tensor: tensor * (np.nan if "word_embeddings" in name else 1))
    export(source, tmp_path / "out", Options())
    with pytest.raises(VerificationError, match="fp32 vectors are not finite"):
        self_check(tmp_path / "out")


def test_a_mask_that_is_ignored_is_seen(copy: Path) -> None:
    change_graph(copy, ignore_mask)
    with pytest.raises(VerificationError, match=r"fp32 vectors are not the same .*: together .*, padded right"):
        self_check(copy)


def test_a_manifest_that_promises_other_dimensions_is_refused(copy: Path) -> None:
    manifest = read_manifest(copy)
    embedding = replace(manifest.require_embedding(), dimension=16)
    (copy / FILE_NAME).write_text(replace(manifest, embedding=embedding).to_json())
    with pytest.raises(VerificationError, match="16 dimensions"):
        self_check(copy)


def test_without_onnxruntime_it_says_that_nothing_was_run(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    said = self_check(artifact)
    assert said.startswith("not even run: ")
    assert "pip install 'onnxembed[cpu]'" in said
