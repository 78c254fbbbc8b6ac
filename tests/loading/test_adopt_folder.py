"""Models with an ONNX graph from another exporter, turned into artifacts on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto

from foreign import at_root, change, command, foreign, vectors
from onnxembed import OnnxEmbedder
from onnxembed.cli import cli
from onnxembed.errors import (
    IntegrityError,
    ModelFilesError,
    UnsupportedError,
    UsageError,
    VerificationError,
)
from onnxembed.export.adopt import AdoptOptions, adopt
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.loading.locate import locate
from onnxembed.loading.onnx_file import read_onnx
from onnxembed.manifest import FILE_NAME, read_manifest
from tiny import change_json, write_sentence_bert
from tiny_embedders import assert_vectors_equal

GELU = "torch.nn.modules.activation.GELU"


@pytest.mark.torch  # without it, that is what the note says
@pytest.mark.parametrize("names", [("", "last_hidden_state"), ("sentence_embedding", "token_embeddings")])
def test_an_adopted_folder_is_an_artifact(
    checkpoint: Path, tmp_path: Path, expected: Any, names: tuple[str, str]
) -> None:
    folder = at_root(foreign(checkpoint, tmp_path / "foreign", *names))
    out = tmp_path / "out"
    printed = command("adopt", folder, "-o", out)
    assert "vectors are finite, and the same for a text alone and among others" in printed
    assert "not verified (its weights are not beside the graph)" in printed
    assert_vectors_equal(vectors(out), expected)
    manifest = read_manifest(out)
    assert manifest.model.engine == "adopted"
    assert manifest.files.keys() >= {"onnx/model.onnx", "tokenizer.json", "modules.json"}
    assert (out / "onnx/model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
    with pytest.raises(UsageError, match="pass --force"):
        adopt(folder, out)
    adopt(folder, out, AdoptOptions(force=True))
    (out / "tokenizer.json").write_text("{}")
    with pytest.raises(IntegrityError):
        OnnxEmbedder(out)


def test_dense_layers_that_the_graph_leaves_out(tmp_path: Path) -> None:
    checkpoint = write_sentence_bert(tmp_path / "checkpoint", dense=((32, 8, GELU),))
    folder = foreign(checkpoint, tmp_path / "foreign", "", "token_embeddings")
    with pytest.raises(UnsupportedError, match=r"leaves out the Dense layers of .*: onnxembed adopt .* -o DIR"):
        OnnxEmbedder(folder)
    adopt(folder, tmp_path / "out")
    export(checkpoint, tmp_path / "artifact", Options())
    assert_vectors_equal(vectors(tmp_path / "out"), vectors(tmp_path / "artifact"))
    assert_vectors_equal(vectors(foreign(checkpoint, tmp_path / "pooled")), vectors(tmp_path / "artifact"))


def test_weights_in_a_file_of_their_own(checkpoint: Path, tmp_path: Path, expected: Any) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")
    path = folder / "onnx/model.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="model.onnx.data", size_threshold=1024)
    assert read_onnx(path).data == {"model.onnx.data"}
    weights = path.parent / "model.onnx.data"
    assert locate(folder).graph.size == path.stat().st_size + weights.stat().st_size  # large ones are held once
    assert_vectors_equal(vectors(folder), expected)
    adopt(folder, tmp_path / "out")
    assert_vectors_equal(vectors(tmp_path / "out"), expected)
    assert read_manifest(tmp_path / "out").variants["fp32"].data == "onnx/model.onnx.data"
    (folder / "onnx/model.onnx.data").unlink()
    with pytest.raises(ModelFilesError, match=r"has no onnx/model\.onnx\.data"):
        OnnxEmbedder(folder)


def test_weights_outside_of_the_folder_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")

    def lead_out(graph: onnx.GraphProto) -> None:
        weight = graph.initializer[0]
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="../../secret")

    model = onnx.load(folder / "onnx/model.onnx")
    lead_out(model.graph)
    (folder / "onnx/model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFilesError, match=r"keeps weights in '\.\./\.\./secret', which is outside its folder"):
        OnnxEmbedder(folder)


def test_vectors_that_are_not_numbers_leave_no_folder(checkpoint: Path, tmp_path: Path) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")

    def spoil(graph: onnx.GraphProto) -> None:
        weight = next(tensor for tensor in graph.initializer if len(tensor.dims) > 1)
        values = onnx.numpy_helper.to_array(weight).copy()
        values[8:] = np.nan  # which no run of a graph that is opened reaches
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))

    change(folder, spoil)
    done = CliRunner().invoke(cli, ["adopt", str(folder), "-o", str(tmp_path / "out")])
    assert isinstance(done.exception, VerificationError)
    assert "fp32 vectors are not finite" in str(done.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dimension", 8, r"sentence_embedding has 32 numbers, which does not go with embedding\.dimension"),
        ("output", "other", r"it has no output other, which the manifest reads"),
    ],
)
def test_a_manifest_that_contradicts_its_adopted_graph_is_found_when_it_is_opened(
    checkpoint: Path, tmp_path: Path, key: str, value: Any, message: str
) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign", "sentence_embedding", "")
    adopt(folder, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / FILE_NAME).read_text(encoding="utf-8"))
    change_json(tmp_path / "out" / FILE_NAME, embedding={**manifest["embedding"], key: value})
    with pytest.raises(ModelFilesError, match=message):
        OnnxEmbedder(tmp_path / "out")
