"""Graphs from elsewhere whose outputs are integers, or whose texts share a scale: read as their makers meant them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from foreign import change, command, foreign
from onnxembed import OnnxEmbedder, OnnxReranker
from onnxembed.errors import UnsupportedError, UsageError
from onnxembed.export.adopt import AdoptOptions, adopt
from onnxembed.export.pipeline import export
from onnxembed.manifest import FILE_NAME, read_manifest
from onnxembed.runtime import open_model
from tiny import TEXTS as ALL_TEXTS
from tiny import write_sentence_bert
from tiny_embedders import Array, assert_vectors_equal
from tiny_rerankers import DOCUMENTS, QUERY, write_cross_encoder

TEXTS = ALL_TEXTS[:-1]

Nodes = tuple[list[onnx.NodeProto], list[onnx.TensorProto], int]
"""Nodes from "as_float" to the output "y", their constants, and the output's type."""


def tensor(name: str, value: Any, dtype: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


def quantized(zero_point: int | None, dtype: Any, scale: Any = 1 / 127, **attributes: Any) -> Nodes:
    constants = [tensor("scale", scale)]
    if zero_point is not None:
        constants.append(tensor("zero", np.full(np.shape(scale), zero_point), dtype))
    names = [constant.name for constant in constants]
    node = helper.make_node("QuantizeLinear", ["as_float", *names], ["y"], **attributes)
    return [node], constants, helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def scaled() -> Nodes:
    """round(x * 127) as int8, without a QuantizeLinear."""
    nodes = [
        helper.make_node("Mul", ["as_float", "factor"], ["large"]),
        helper.make_node("Round", ["large"], ["whole"]),
        helper.make_node("Clip", ["whole", "low", "high"], ["bounded"]),
        helper.make_node("Cast", ["bounded"], ["y"], to=TensorProto.INT8),
    ]
    return nodes, [tensor("factor", 127), tensor("low", -128), tensor("high", 127)], TensorProto.INT8


def cast_back() -> Nodes:
    """Integers that are handed out as floats."""
    nodes, constants, _ = quantized(128, np.uint8)
    nodes[0].output[0] = "bytes"
    return [*nodes, helper.make_node("Cast", ["bytes"], ["y"], to=TensorProto.FLOAT)], constants, TensorProto.FLOAT


def cast(to: int) -> Nodes:
    return [helper.make_node("Cast", ["as_float"], ["y"], to=to)], [], to


def packed_bits() -> Nodes:
    """A bit for each number, eight of them in a byte."""
    nodes = [
        helper.make_node("Greater", ["as_float", "none"], ["positive"]),
        helper.make_node("Cast", ["positive"], ["bits"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["bits", "eights"], ["grouped"]),
        helper.make_node("MatMul", ["grouped", "powers"], ["bytes"]),
        helper.make_node("Cast", ["bytes"], ["y"], to=TensorProto.UINT8),
    ]
    powers = tensor("powers", 2.0 ** np.arange(7, -1, -1))
    return nodes, [tensor("none", 0), tensor("eights", [0, -1, 8], np.int64), powers], TensorProto.UINT8


def dynamic() -> Nodes:
    node = helper.make_node("DynamicQuantizeLinear", ["as_float"], ["y", "y_scale", "y_zero"])
    return [node], [], TensorProto.UINT8


def end_with(made: Nodes, output: str) -> Callable[[onnx.GraphProto], None]:
    """Change a graph so that `output` is what the nodes make of it, and the only output."""
    nodes, constants, element_type = made

    def end(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            node.output[:] = ["as_float" if name == output else name for name in node.output]
            node.input[:] = ["as_float" if name == output else name for name in node.input]
        for node in nodes:
            node.output[:] = [output if name == "y" else name for name in node.output]
        graph.node.extend(nodes)
        graph.initializer.extend(constants)
        for value in list(graph.output):
            if value.name != output:
                graph.output.remove(value)
        graph.output[0].type.tensor_type.elem_type = element_type

    return end


@pytest.fixture(scope="module")
def raw_vectors(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Array]:
    """A checkpoint whose vectors are not normalized, and the vectors."""
    folder = tmp_path_factory.mktemp("raw")
    checkpoint = write_sentence_bert(folder / "checkpoint", normalize=False)
    export(checkpoint, folder / "artifact")
    with OnnxEmbedder(folder / "artifact") as model:
        return checkpoint, model.encode(TEXTS)


def rounded(vectors: Array, scale: Any, low: int, high: int) -> Array:
    """What is left of vectors after rounding to steps of `scale` from `low` to `high`."""
    steps: Array = np.clip(np.rint(vectors / np.float32(scale)), low, high).astype(np.float32)
    return steps * np.float32(scale)


SCALES = np.linspace(0.005, 0.02, 32, dtype=np.float32)


@pytest.mark.parametrize(
    ("made", "scale", "limits"),
    [
        (quantized(128, np.uint8), 1 / 127, (-128, 127)),
        (quantized(None, np.uint8, 0.02), 0.02, (0, 255)),
        (quantized(0, np.int8), 1 / 127, (-128, 127)),
        (quantized(-7, np.int8, 0.01), 0.01, (-121, 134)),
        (quantized(0, np.int8, SCALES, axis=-1), SCALES, (-128, 127)),
        (quantized(0, np.int8, SCALES), SCALES, (-128, 127)),  # axis 1, the default
        (scaled(), 1 / 127, (-128, 127)),
        (cast_back(), 1 / 127, (-128, 127)),
        (cast(TensorProto.DOUBLE), 1e-7, (-(10**9), 10**9)),
        (cast(TensorProto.FLOAT16), 1e-7, (-(10**9), 10**9)),
    ],
)
def test_integers_become_the_numbers_that_the_graph_says(
    raw_vectors: tuple[Path, Array], tmp_path: Path, made: Nodes, scale: Any, limits: tuple[int, int]
) -> None:
    checkpoint, vectors = raw_vectors
    folder = foreign(checkpoint, tmp_path / "foreign")
    change(folder, end_with(made, "sentence_embedding"))
    expected = rounded(vectors, scale, *limits)
    atol = 1e-3 if made[2] == TensorProto.FLOAT16 else 2e-6
    with OnnxEmbedder(folder) as model:
        assert_vectors_equal(model.encode(TEXTS), expected, atol)
        assert_vectors_equal(
            model.encode(TEXTS, normalize=True), expected / np.linalg.norm(expected, axis=1, keepdims=True), 10 * atol
        )
    adopt(folder, tmp_path / "out")
    with OnnxEmbedder(tmp_path / "out") as model:
        assert_vectors_equal(model.encode(TEXTS), expected, atol)


def test_token_embeddings_of_integers_are_numbers_before_they_are_pooled(
    raw_vectors: tuple[Path, Array], tmp_path: Path
) -> None:
    checkpoint, vectors = raw_vectors
    folder = foreign(checkpoint, tmp_path / "foreign")
    change(folder, end_with(quantized(128, np.uint8, 0.04), "token_embeddings"))
    with OnnxEmbedder(folder) as model:
        near = model.encode(TEXTS)
        assert list(model.manifest.variants) == ["model"]  # not fp32
    assert 1e-3 < np.abs(near - vectors).max() < 0.02
    with pytest.raises(UsageError, match=r"are float32 and its outputs uint8; name another"):
        OnnxEmbedder(folder, precision="fp32")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (cast(TensorProto.INT8), "holds int8 integers, and the graph does not say what they stand for"),
        (packed_bits(), "holds uint8 integers, and the graph does not say what they stand for"),
        (dynamic(), "holds uint8 integers, and the graph does not say what they stand for"),
        (cast(TensorProto.BOOL), "is bool, which onnxembed does not read; end the graph with a Cast to float"),
        (cast(TensorProto.BFLOAT16), "is bfloat16, which onnxembed does not read"),
        (cast(TensorProto.INT64), "is int64, which onnxembed does not read"),
        (quantized(0, np.int8, np.full(8, 0.1, np.float32), axis=0), "not one for each of its numbers"),
    ],
)
def test_integers_without_a_constant_scale_are_refused(
    raw_vectors: tuple[Path, Array], tmp_path: Path, made: Nodes, message: str
) -> None:
    folder = foreign(raw_vectors[0], tmp_path / "foreign")
    change(folder, end_with(made, "sentence_embedding"))
    with pytest.raises(UnsupportedError, match=message):
        OnnxEmbedder(folder)
    with pytest.raises(UnsupportedError, match=message):
        adopt(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_inspect_says_what_the_integers_stand_for(raw_vectors: tuple[Path, Array], tmp_path: Path) -> None:
    folder = foreign(raw_vectors[0], tmp_path / "foreign")
    change(folder, end_with(quantized(128, np.uint8, 0.5), "sentence_embedding"))
    assert "sentence_embedding holds integers: a number is 0.5 * (integer - 128)" in command("inspect", folder)


def test_logits_of_integers_are_numbers(tmp_path: Path) -> None:
    export(write_cross_encoder(tmp_path / "checkpoint"), tmp_path / "artifact")
    with OnnxReranker(tmp_path / "artifact") as model:
        logits = model.score(QUERY, DOCUMENTS[:-1], raw_scores=True)
    (tmp_path / "artifact" / FILE_NAME).unlink()
    change(tmp_path / "artifact", end_with(quantized(128, np.uint8, 0.05), "logits"))
    with OnnxReranker(tmp_path / "artifact") as model:
        assert_vectors_equal(
            model.score(QUERY, DOCUMENTS[:-1], raw_scores=True), rounded(logits, 0.05, -128, 127), 1e-5
        )


# ---- texts that share a scale


def quantize(folder: Path) -> str:
    """Quantize a folder's graph as most published int8 graphs are; returns its path."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    file = "onnx/model_quantized.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization.quantize_dynamic(
            folder / "onnx/model.onnx", folder / file, extra_options={"DefaultTensorType": TensorProto.FLOAT}
        )
    return file


ALONE = r"model_quantized.onnx: each text runs by itself, .* DynamicQuantizeLinear gives all texts of a run one scale"


def test_texts_that_share_a_scale_run_alone(checkpoint: Path, tmp_path: Path) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")
    file = quantize(folder)
    with pytest.warns(UserWarning, match=ALONE):
        model = OnnxEmbedder(folder, onnx_file=file)
    alone = np.concatenate([model.encode([text]) for text in TEXTS])
    assert_vectors_equal(model.encode(TEXTS), alone)
    feeds = [model.tokenize([text])[0] for text in TEXTS]
    width = max(map(len, feeds))
    batch = {
        "input_ids": np.stack([np.pad(tokens.ids, (0, width - len(tokens))) for tokens in feeds]),
        "attention_mask": np.stack([np.arange(width) < len(tokens) for tokens in feeds]).astype(np.int64),
        "token_type_ids": np.zeros((len(feeds), width), np.int64),
    }
    assert_vectors_equal(model.forward(batch), alone)
    adopt(folder, tmp_path / "out", AdoptOptions(onnx_file=file))
    with OnnxEmbedder(tmp_path / "out") as adopted:
        assert_vectors_equal(adopted.encode(TEXTS), alone)
    variant = read_manifest(tmp_path / "out").variants["model_quantized"]
    assert variant.one_text is not None
    assert variant.one_text.value
    printed = command("inspect", tmp_path / "out")
    assert "one text in each run: yes (architecture: DynamicQuantizeLinear gives" in printed


def test_they_run_together_where_that_is_asked_for(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Their outputs change with what stands beside them, as was asked for: that is no sign of an ignored mask.
    monkeypatch.setattr(open_model, "check_padding", None)
    folder = foreign(checkpoint, tmp_path / "foreign")
    file = quantize(folder)
    with pytest.warns(UserWarning, match=r"not the model's own vectors: --share-scales"):
        shared = OnnxEmbedder(folder, onnx_file=file, share_scales=True)
    with shared as model:
        alone = np.concatenate([model.encode([text]) for text in TEXTS])
        together = model.encode(TEXTS)
    assert 0.95 < (together * alone).sum(axis=1).min() < 0.999999
    command("adopt", folder, "-o", tmp_path / "out", "--onnx-file", file, "--share-scales", "--no-verify")
    manifest = read_manifest(tmp_path / "out")
    one_text = manifest.variants["model_quantized"].one_text
    assert one_text is not None
    assert (one_text.value, one_text.origin) == (False, "flag")
    assert manifest.overruled == (one_text.reason,)
    with pytest.raises(UsageError, match=r"--share-scales: the texts of onnx/model.onnx share no scale"):
        OnnxEmbedder(folder, share_scales=True)


def test_pairs_that_share_a_scale_run_alone(tmp_path: Path) -> None:
    export(write_cross_encoder(tmp_path / "checkpoint"), tmp_path / "foreign")
    (tmp_path / "foreign" / FILE_NAME).unlink()
    file = quantize(tmp_path / "foreign")
    with pytest.warns(UserWarning, match=ALONE):
        model = OnnxReranker(tmp_path / "foreign", onnx_file=file)
    documents = DOCUMENTS[:-1]
    alone = np.concatenate([model.score(QUERY, [document]) for document in documents])
    assert np.array_equal(model.score(QUERY, documents), alone)


def test_a_scale_computed_by_hand_is_seen(checkpoint: Path, tmp_path: Path) -> None:
    """QuantizeLinear with a scale of the largest value of all texts, as exporters of torch's own quantization write."""
    folder = foreign(checkpoint, tmp_path / "foreign")

    def round_all(graph: onnx.GraphProto) -> None:
        nodes = [
            helper.make_node("Abs", ["as_float"], ["sizes"]),
            helper.make_node("ReduceMax", ["sizes"], ["largest"], keepdims=0),
            helper.make_node("Div", ["largest", "steps"], ["scale"]),
            helper.make_node("QuantizeLinear", ["as_float", "scale", "zero"], ["integers"]),
            helper.make_node("DequantizeLinear", ["integers", "scale", "zero"], ["y"]),
        ]
        end_with((nodes, [tensor("steps", 7), tensor("zero", 0, np.int8)], TensorProto.FLOAT), "token_embeddings")(
            graph
        )

    change(folder, round_all)
    with pytest.warns(
        UserWarning, match="QuantizeLinear with a scale of all values gives all texts of a run one scale"
    ):
        model = OnnxEmbedder(folder)
    assert_vectors_equal(model.encode(TEXTS), np.concatenate([model.encode([text]) for text in TEXTS]))


def test_a_graph_that_takes_one_text_gets_one(checkpoint: Path, artifact: Path, tmp_path: Path) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")

    def fix(graph: onnx.GraphProto) -> None:
        for value in (*graph.input, *graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1

    change(folder, fix)
    with pytest.warns(UserWarning, match="onnx/model.onnx takes one text at a time"):
        model = OnnxEmbedder(folder)
    with OnnxEmbedder(artifact) as exported:
        assert_vectors_equal(model.encode(TEXTS), exported.encode(TEXTS))
