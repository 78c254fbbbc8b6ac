"""Graphs from another exporter that cannot be used, and facts that their files leave out: what the error names."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from foreign import at_root, change, command, foreign, rename, vectors, without_sentence_files
from onnxembed import OnnxEmbedder
from onnxembed.decisions.flags import Flags
from onnxembed.errors import (
    ModelFilesError,
    UnsupportedError,
    UsageError,
)
from onnxembed.export.adopt import AdoptOptions, adopt
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import PoolingMode, read_manifest
from tiny import write_sentence_bert
from tiny_embedders import assert_vectors_equal


def test_without_a_graph_the_error_names_the_export_command(checkpoint: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"make one with: onnxembed export .* -o DIR$"):
        OnnxEmbedder(checkpoint)


def test_several_graphs_are_never_guessed(checkpoint: Path, tmp_path: Path, expected: Any) -> None:
    folder = at_root(foreign(checkpoint, tmp_path / "foreign"), "model_optimized.onnx")
    assert_vectors_equal(vectors(folder), expected)  # the only one
    shutil.copy(folder / "model_optimized.onnx", folder / "encoder.onnx")
    with pytest.raises(ModelFilesError, match=r"several ONNX files.*: encoder.onnx, model_optimized.onnx$"):
        OnnxEmbedder(folder)
    assert_vectors_equal(vectors(folder, onnx_file="encoder.onnx"), expected)
    with pytest.raises(UsageError, match=r"has no other.onnx; its ONNX files: encoder.onnx, model_optimized.onnx$"):
        OnnxEmbedder(folder, onnx_file="other.onnx")


def test_a_folder_without_sentence_transformers_files_names_the_missing_fact(
    checkpoint: Path, tmp_path: Path, expected: Any
) -> None:
    """The layout of FastEmbed's own repositories."""
    folder = without_sentence_files(at_root(foreign(checkpoint, tmp_path / "foreign", "", "last_hidden_state")))
    with pytest.raises(
        ModelFilesError,
        match=r"pass --pooling \(cls, mean, \.\.\.\), to: onnxembed adopt .* -o DIR, or load it with pooling=\.\.\.$",
    ):
        OnnxEmbedder(folder)
    with pytest.raises(ModelFilesError, match=r"pass --normalize or --no-normalize, to: .* with normalize=\.\.\.$"):
        OnnxEmbedder(folder, pooling="mean")
    assert_vectors_equal(vectors(folder, pooling="mean", normalize=True, max_length=20), expected)
    out = tmp_path / "out"
    with pytest.raises(ModelFilesError, match=r"pass --normalize or --no-normalize$"):
        adopt(folder, out, AdoptOptions(flags=Flags(pooling=("mean",))))
    assert not out.exists()
    command("adopt", folder, "-o", out, "--pooling", "mean", "--normalize", "--max-length", "20", "--no-verify")
    assert_vectors_equal(vectors(out), expected)
    assert read_manifest(out).require_embedding().pooling.origin == "flag"


def test_another_pooling_is_done_on_the_tokens(tmp_path: Path) -> None:
    checkpoint = write_sentence_bert(tmp_path / "checkpoint")
    modes: tuple[PoolingMode, ...] = ("cls", "max")
    flags = Flags(pooling=modes, normalize=False)
    export(checkpoint, tmp_path / "artifact", Options(flags=flags))
    adopt(foreign(checkpoint, tmp_path / "both"), tmp_path / "adopted", AdoptOptions(flags=flags))
    assert_vectors_equal(vectors(tmp_path / "adopted"), vectors(tmp_path / "artifact"))
    only_pooled = foreign(checkpoint, tmp_path / "pooled", "sentence_embedding", "")
    for flags in (Flags(pooling=("cls",)), Flags(normalize=False)):
        with pytest.raises(UsageError, match="neither --pooling nor --no-normalize can change that"):
            adopt(only_pooled, tmp_path / "out", AdoptOptions(flags=flags))


def test_pooling_that_only_a_flag_states_is_not_taken_from_the_graph(checkpoint: Path, tmp_path: Path) -> None:
    """The graph pools in a way that no file states; it also gives token embeddings."""
    folder = without_sentence_files(foreign(checkpoint, tmp_path / "foreign"))
    adopt(folder, tmp_path / "out", AdoptOptions(flags=Flags(pooling=("cls",), normalize=True, max_length=20)))
    export(checkpoint, tmp_path / "artifact", Options(flags=Flags(pooling=("cls",))))
    assert_vectors_equal(vectors(tmp_path / "out"), vectors(tmp_path / "artifact"))


def extra_input(graph: onnx.GraphProto) -> None:
    graph.input.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["B", "T"]))


def no_mask(graph: onnx.GraphProto) -> None:
    graph.input.remove(next(value for value in graph.input if value.name == "attention_mask"))


def fixed(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.shape.dim[1].dim_value = 128


def flat(graph: onnx.GraphProto) -> None:
    rename(graph, {"sentence_embedding": "", "token_embeddings": "last_hidden_state"})
    del graph.output[0].type.tensor_type.shape.dim[0]


def wide(graph: onnx.GraphProto) -> None:
    graph.output[0].type.tensor_type.shape.dim[2].dim_value = 33


def unnamed(graph: onnx.GraphProto) -> None:
    rename(graph, {"sentence_embedding": "output_0", "token_embeddings": "output_1"})


@pytest.mark.parametrize(
    ("flaw", "message"),
    [
        (extra_input, r"takes position_ids, which onnxembed does not feed; it feeds input_ids, attention_mask"),
        (no_mask, r"takes no attention_mask, so texts cannot be run together"),
        (fixed, r"input_ids has shape \[free, 128\], not a free number .* both axes dynamic"),
        (flat, r"last_hidden_state has shape \[free, 32\], not texts by tokens by numbers"),
        (wide, r"token_embeddings has 33 numbers, but the model's files say 32"),
        (unnamed, r"no output sentence_embedding, token_embeddings or last_hidden_state; it has output_1, output_0"),
    ],
)
def test_a_graph_that_cannot_be_fed_or_read_is_refused(
    checkpoint: Path, tmp_path: Path, flaw: Callable[[onnx.GraphProto], None], message: str
) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")
    change(folder, flaw)
    with pytest.raises((UnsupportedError, ModelFilesError), match=message):
        OnnxEmbedder(folder)


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\n", bytes(range(256)), b"\x08\x01"]
)
def test_a_file_that_is_not_a_graph_is_refused(checkpoint: Path, tmp_path: Path, content: bytes) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")
    (folder / "onnx/model.onnx").write_bytes(content)
    with pytest.raises(ModelFilesError, match=r"model\.onnx is not an ONNX file"):
        OnnxEmbedder(folder)


def test_a_graph_that_is_cut_short_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")
    graph = folder / "onnx/model.onnx"
    whole = graph.read_bytes()
    for size in range(1, len(whole), len(whole) // 23):
        graph.write_bytes(whole[:size])
        with pytest.raises(ModelFilesError, match="is not an ONNX file"):
            OnnxEmbedder(folder)


def test_a_cross_encoder_is_not_adopted_as_an_embedder(checkpoint: Path, tmp_path: Path) -> None:
    folder = without_sentence_files(foreign(checkpoint, tmp_path / "foreign"))
    (folder / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
    with pytest.raises(ModelFilesError, match=r"names BertModel, not a \.\.\.ForSequenceClassification"):
        OnnxEmbedder(folder)
