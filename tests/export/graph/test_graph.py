"""The graphs themselves: fused by construction, valid, of the right types, and still fused inside ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from safetensors.numpy import load_file, save_file

from onnxembed.errors import UnsupportedError
from onnxembed.execution.providers import CPU
from onnxembed.execution.session import SLOW_FUSIONS
from onnxembed.export.artifact.graph_file import write_graph
from onnxembed.export.build_graph import build
from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.export.graph.graph import Graph
from onnxembed.export.plan import Options, make_plan
from onnxembed.facts.facts import read_facts
from onnxembed.manifest import Precision, Variant
from onnxembed.progress import silent
from tiny import BERT_LIKE, VOCAB, change_json, write_encoder, write_sentence_bert

PRECISIONS: list[Precision] = ["fp32", "fp16"]

# Attention stands in both branches of its If; one of them runs.
PER_LAYER = {"MultiHeadAttention": 2, "If": 1, "Add": 4, "LayerNormalization": 2, "BiasGelu": 1, "MatMul": 6}


def build_graph(folder: Path, precision: Precision = "fp32", **options: Any) -> Graph:
    facts = read_facts(folder)
    return build(make_plan(facts, None, Options(**options)), precision)


def write(graph: Graph, folder: Path, precision: Precision = "fp32") -> Variant:
    return write_graph(graph, folder, precision, silent)


def export_graph(folder: Path, out: Path, precision: Precision = "fp32", **options: Any) -> Path:
    return out / write(build_graph(folder, precision, **options), out, precision).file


def session(path: Path, **settings: Any) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    for name, value in settings.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(path, options, providers=[CPU], disabled_optimizers=SLOW_FUSIONS)


def feeds(length: int = 9, hidden: int = 0) -> dict[str, NDArray[np.int64]]:
    """Two rows of random ids [2, T], the first with `hidden` slots of padding on the right."""
    ids = np.random.default_rng(length).integers(5, len(VOCAB), (2, length))
    mask = np.ones_like(ids)
    if hidden:
        mask[0, -hidden:] = 0
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """All nodes, including those inside branches."""
    result = []
    for node in graph.node:
        result.append(node)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                result += nodes(attribute.g)
    return result


def counted(graph: onnx.GraphProto) -> dict[str, int]:
    return dict(Counter(node.op_type for node in nodes(graph)))


# ---- fused operators


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model_type", BERT_LIKE)
def test_a_layer_is_made_of_fused_operators_only(tmp_path: Path, model_type: str, precision: Precision) -> None:
    two = build_graph(write_encoder(tmp_path / "two", model_type, num_hidden_layers=2), precision).operators()
    three = build_graph(write_encoder(tmp_path / "three", model_type, num_hidden_layers=3), precision).operators()
    assert {name: three[name] - two[name] for name in three if three[name] != two[name]} == PER_LAYER
    for unfused in ("Softmax", "Erf", "Gelu", "SkipLayerNormalization", "Transpose", "Reshape", "Expand"):
        assert unfused not in three
    # Once for the whole graph: the sum of the embeddings is normalized like a layer's.
    assert three["LayerNormalization"] == 3 * 2 + 1
    assert three["MatMul"] == 3 * 6 + 1  # and one that pools


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model_type", BERT_LIKE)
def test_fused_operators_survive_onnx_runtime(tmp_path: Path, model_type: str, precision: Precision) -> None:
    path = export_graph(write_encoder(tmp_path / "model", model_type), tmp_path, precision)
    before = counted(onnx.load(path).graph)
    session(path, optimized_model_filepath=str(tmp_path / "optimized.onnx"))
    after = counted(onnx.load(tmp_path / "optimized.onnx").graph)
    for operator in PER_LAYER:
        assert after[operator] == before[operator]
    # The CPU computes half precision in single, at the cost of casts; single precision gains no node.
    if precision == "fp32":
        assert sum(after.values()) <= sum(before.values())


def test_operators_are_counted_inside_branches(tmp_path: Path) -> None:
    graph = build_graph(write_sentence_bert(tmp_path / "model"))
    variant = write(graph, tmp_path)
    model = onnx.load(tmp_path / variant.file)
    assert variant.operators == graph.operators() == dict(sorted(counted(model.graph).items()))
    assert variant.nodes == len(nodes(model.graph))
    assert variant.operators["MultiHeadAttention"] == 2 * variant.operators["If"]


def test_a_run_without_padding_takes_the_branch_without_a_mask(tmp_path: Path) -> None:
    path = export_graph(write_sentence_bert(tmp_path / "model"), tmp_path)
    for node in onnx.load(path).graph.node:
        if node.op_type == "If":
            branches = {attribute.name: attribute.g.node for attribute in node.attribute}
            assert [len(node.input) for node in branches["then_branch"]] == [4]  # q, k, v and their biases
            assert [len(node.input) for node in branches["else_branch"]] == [5]  # and the mask


def test_both_branches_of_attention_compute_the_same(tmp_path: Path) -> None:
    run = session(export_graph(write_sentence_bert(tmp_path / "model"), tmp_path)).run
    alone = feeds()
    masked = {name: np.concatenate([value, value[:1]]) for name, value in alone.items()}
    masked["attention_mask"][2, 1:] = 0  # one padded row sends the whole run through the other branch
    expected, actual = run(["token_embeddings"], alone)[0], run(["token_embeddings"], masked)[0]
    np.testing.assert_allclose(actual[:2], expected, atol=1e-6)


def test_padding_of_any_content_changes_nothing(tmp_path: Path) -> None:
    run = session(export_graph(write_sentence_bert(tmp_path / "model"), tmp_path)).run
    padded = feeds(12, hidden=3)
    other = {name: value.copy() for name, value in padded.items()}
    other["input_ids"][0, -3:] = 7
    np.testing.assert_allclose(run(["sentence_embedding"], other)[0], run(["sentence_embedding"], padded)[0], atol=1e-6)


# ---- valid graphs


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model_type", BERT_LIKE)
def test_the_checker_accepts_every_graph(tmp_path: Path, model_type: str, precision: Precision) -> None:
    path = export_graph(write_encoder(tmp_path / "model", model_type), tmp_path, precision)
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert model.ir_version == 8
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 18, "com.microsoft": 1}
    assert model.producer_name == "onnxembed"


@pytest.mark.parametrize("model_type", BERT_LIKE)
def test_names_are_unique_and_those_of_the_checkpoint(tmp_path: Path, model_type: str) -> None:
    graph = onnx.load(export_graph(write_encoder(tmp_path / "model", model_type), tmp_path)).graph
    made = [name for node in nodes(graph) for name in node.output]
    names = [*made, *(weight.name for weight in graph.initializer), *(value.name for value in graph.input)]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert len({node.name for node in nodes(graph)}) == len(nodes(graph))
    stored = {weight.name.removesuffix(".T") for weight in graph.initializer}
    assert "embeddings.word_embeddings.weight" in stored
    assert any(name.endswith(("layer.1.output.dense.weight", "layer.1.ffn.lin2.weight")) for name in stored)


@pytest.mark.parametrize(
    ("options", "outputs"),
    [
        ({}, {"sentence_embedding": ["batch", 32], "token_embeddings": ["batch", "sequence", 32]}),
        ({"pooling_out": True}, {"token_embeddings": ["batch", "sequence", 32]}),
    ],
)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_outputs_are_float32_and_sized_by_name(
    tmp_path: Path, precision: Precision, options: dict[str, Any], outputs: dict[str, list[Any]]
) -> None:
    path = export_graph(write_sentence_bert(tmp_path / "model"), tmp_path, precision, **options)
    declared = session(path).get_outputs()
    assert {value.name: value.shape for value in declared} == outputs
    assert {value.type for value in declared} == {"tensor(float)"}
    assert {(value.type, *value.shape) for value in session(path).get_inputs()} == {
        ("tensor(int64)", "batch", "sequence")
    }


def test_each_output_can_be_asked_for_alone(tmp_path: Path) -> None:
    run = session(export_graph(write_sentence_bert(tmp_path / "model"), tmp_path)).run
    both = run(["sentence_embedding", "token_embeddings"], feeds())
    np.testing.assert_array_equal(run(["sentence_embedding"], feeds())[0], both[0])
    np.testing.assert_array_equal(run(["token_embeddings"], feeds())[0], both[1])


@pytest.mark.parametrize(
    ("model_type", "options", "inputs"),
    [
        ("bert", {}, ["input_ids", "attention_mask", "token_type_ids"]),
        ("bert", {"type_vocab_size": 1}, ["input_ids", "attention_mask"]),
        ("roberta", {"type_vocab_size": 1}, ["input_ids", "attention_mask"]),
        ("distilbert", {}, ["input_ids", "attention_mask"]),
    ],
)
def test_a_graph_takes_the_inputs_that_matter(
    tmp_path: Path, model_type: str, options: dict[str, Any], inputs: list[str]
) -> None:
    graph = build_graph(write_encoder(tmp_path / "model", model_type, **options))
    assert [value.name for value in graph.inputs] == inputs


# ---- numbers


def test_half_precision_stores_halves_and_pools_in_single(tmp_path: Path) -> None:
    graph = onnx.load(export_graph(write_sentence_bert(tmp_path / "model"), tmp_path, "fp16")).graph
    types = {weight.name: weight.data_type for weight in graph.initializer}
    assert {kind for name, kind in types.items() if name.startswith(("embeddings", "encoder"))} == {TensorProto.FLOAT16}
    assert {kind for name, kind in types.items() if name.startswith("float32")} == {TensorProto.FLOAT}


def test_half_precision_gives_nearly_the_same_vectors(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "model")
    single = session(export_graph(folder, tmp_path)).run(["sentence_embedding"], feeds(20, hidden=4))[0]
    half = session(export_graph(folder, tmp_path, "fp16")).run(["sentence_embedding"], feeds(20, hidden=4))[0]
    assert half.dtype == np.float32
    assert (single * half).sum(axis=1).min() > 0.9999
    assert np.abs(single - half).max() > 0


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_weights_of_other_types_are_converted(tmp_path: Path, dtype: Any) -> None:
    folder = write_sentence_bert(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    stored = {name: tensor.astype(dtype) for name, tensor in weights.items()}
    save_file(stored, folder / "model.safetensors")
    graph = build_graph(folder)
    name = "encoder.layer.1.output.dense.weight"
    read = graph.initializers[f"{name}.T"].read()
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, stored[name].astype(np.float32).T)


@pytest.mark.parametrize(
    ("dtype", "precision", "value"),
    [(np.float32, "fp16", 7e4), (ml_dtypes.bfloat16, "fp16", 1e20), (np.float64, "fp32", 1e300)],
)
@pytest.mark.parametrize("name", ["embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.key.bias"])
def test_a_weight_too_large_for_the_precision_is_named(
    tmp_path: Path, name: str, dtype: Any, precision: Precision, value: float
) -> None:
    folder = write_sentence_bert(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights[name] = weights[name].astype(dtype)
    weights[name].flat[3] = value
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UnsupportedError, match=f"{name} has values that {precision} cannot hold"):
        export_graph(folder, tmp_path, precision)


def test_an_unknown_activation_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "model")
    change_json(folder / "config.json", hidden_act="laplace")
    with pytest.raises(UnsupportedError, match=r"'laplace'.*gelu, gelu_10"):
        build_graph(folder)


def test_weights_are_read_when_the_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Building asks for shapes only, so a graph of any size is built in no memory."""
    folder = write_sentence_bert(tmp_path / "model")
    read: list[str] = []
    original = Checkpoint.read

    def watched(self: Checkpoint, name: str) -> Any:
        read.append(name)
        return original(self, name)

    monkeypatch.setattr(Checkpoint, "read", watched)
    graph = build_graph(folder)
    assert read == []
    write(graph, tmp_path)
    assert "embeddings.word_embeddings.weight" in read
    assert len(read) == len(set(read))
