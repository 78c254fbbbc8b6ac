"""Pooling, Dense and normalization in the graph against the same in numpy."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from safetensors.numpy import save_file

from models.torch_files import write_torch
from onnxembed.errors import ModelFilesError
from onnxembed.export.artifact.graph_file import write_graph
from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.export.graph import pooling as heads
from onnxembed.export.graph.graph import ACTIVATIONS, BOUNDED_ACTIVATIONS, Graph, Value
from onnxembed.facts.modules import DENSE_ACTIVATIONS, DenseFacts
from onnxembed.manifest import POOLING_MODES, PoolingMode
from onnxembed.progress import silent
from onnxembed.runtime.outputs import pooling

FloatArray = NDArray[np.float32]
D = 6


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    """A graph over no checkpoint."""
    save_file({}, tmp_path / "model.safetensors")
    return Graph(Checkpoint(tmp_path), "fp32")


def run(graph: Graph, folder: Path, output: Value, feeds: dict[str, NDArray[Any]]) -> FloatArray:
    """Compute one value of a graph whose inputs are `feeds`."""
    graph.output("result", output, ("batch", "width"))
    variant = write_graph(graph, folder, "fp32", silent)
    session = onnxruntime.InferenceSession(folder / variant.file, providers=["CPUExecutionProvider"])
    result: FloatArray = session.run(["result"], feeds)[0]
    return result


def masks() -> NDArray[np.int64]:
    """All paddings of a row of five slots: none, one token left, left, right, and (unusual) both."""
    rows = [[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0]]
    return np.array(rows, np.int64)


def hidden(shape: tuple[int, ...], seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def pooled(graph: Graph, folder: Path, tokens: FloatArray, mask: NDArray[np.int64], *modes: PoolingMode) -> FloatArray:
    """The result of the graph's pooling for token embeddings [B, T, D]."""
    x = graph.input("tokens", TensorProto.FLOAT, ("batch", "sequence", tokens.shape[2]))
    m = graph.input("mask", TensorProto.INT64, ("batch", "sequence"))
    return run(graph, folder, heads.pool(graph, x, m, modes), {"tokens": tokens, "mask": mask})


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_pooling_equals_numpy_for_every_padding(graph: Graph, tmp_path: Path, mode: PoolingMode) -> None:
    mask = masks()
    tokens = hidden((*mask.shape, D))
    actual = pooled(graph, tmp_path, tokens, mask, mode)
    np.testing.assert_allclose(actual, pooling.pool(tokens, mask, [mode]), atol=1e-6)


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_values_in_padding_do_not_matter(graph: Graph, tmp_path: Path, mode: PoolingMode) -> None:
    mask = masks()
    tokens = hidden((*mask.shape, D))
    other = np.where(mask[..., None] == 1, tokens, np.float32(1e6))
    expected = pooling.pool(tokens, mask, [mode])
    np.testing.assert_allclose(pooled(graph, tmp_path, other, mask, mode), expected, atol=1e-6)


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_one_token_is_its_own_pooling(graph: Graph, tmp_path: Path, mode: PoolingMode) -> None:
    tokens = hidden((2, 1, D))
    actual = pooled(graph, tmp_path, tokens, np.ones((2, 1), np.int64), mode)
    np.testing.assert_allclose(actual, tokens[:, 0], atol=1e-6)


@pytest.mark.parametrize("modes", [*itertools.permutations(("cls", "max", "mean"), 2), POOLING_MODES, ("mean", "mean")])
def test_several_poolings_stand_side_by_side_in_the_order_asked(
    graph: Graph, tmp_path: Path, modes: tuple[PoolingMode, ...]
) -> None:
    mask = masks()
    tokens = hidden((*mask.shape, D))
    actual = pooled(graph, tmp_path, tokens, mask, *modes)
    assert actual.shape == (len(mask), len(modes) * D)
    np.testing.assert_allclose(actual, pooling.pool(tokens, mask, modes), atol=1e-6)


def test_pooling_by_hand(graph: Graph, tmp_path: Path) -> None:
    """Numbers small enough to check without a program."""
    tokens = np.array([[[9], [1], [2], [6]]], np.float32)
    mask = np.array([[0, 1, 1, 1]], np.int64)
    actual = pooled(graph, tmp_path, tokens, mask, *POOLING_MODES)
    expected = [1, 6, 3, 9 / np.sqrt(3), (1 * 1 + 2 * 2 + 3 * 6) / 6, 6]  # cls max mean sqrt weighted last
    np.testing.assert_allclose(actual[0], expected, rtol=1e-6)


# ---- Dense


def test_max_of_a_text_without_tokens_is_what_model_cards_say(graph: Graph, tmp_path: Path) -> None:
    """`max_pooling` on the cards of sentence-transformers: padding is -1e9, and so finite when it is normalized."""
    mask = np.array([[0, 0, 0], [0, 1, 1]], np.int64)
    tokens = hidden((*mask.shape, D))
    expected = np.where(mask[..., None] == 0, np.float32(-1e9), tokens).max(axis=1)
    np.testing.assert_array_equal(pooled(graph, tmp_path, tokens, mask, "max"), expected)
    np.testing.assert_array_equal(pooling.pool(tokens, mask, ["max"]), expected)


def dense_facts(folder: Path, activation: str, *, bias: bool = True, dtype: Any = np.float32) -> DenseFacts:
    """A Dense module of D -> 4 with random weights on disk."""
    folder.mkdir(parents=True)
    weights = {"linear.weight": hidden((4, D), 1).astype(dtype)}
    if bias:
        weights["linear.bias"] = hidden((4,), 2).astype(dtype)
    save_file(weights, folder / "model.safetensors")
    return DenseFacts(D, 4, bias, activation, folder)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS.values())
def test_dense_equals_numpy(graph: Graph, tmp_path: Path, activation: str, bias: bool) -> None:
    layer = dense_facts(tmp_path / "2_Dense", activation, bias=bias)
    x = hidden((3, D))
    name = graph.input("x", TensorProto.FLOAT, ("batch", D))
    actual = run(graph, tmp_path, heads.dense(graph, name, layer, "2_Dense"), {"x": x})
    expected = pooling.dense(x, *heads.dense_weights(layer), activation)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize(("name", "activation"), DENSE_ACTIVATIONS.items())
def test_dense_equals_torch(graph: Graph, tmp_path: Path, name: str, activation: str) -> None:
    torch = pytest.importorskip("torch")
    layer = dense_facts(tmp_path / "2_Dense", activation)
    weight, bias = heads.dense_weights(layer)
    x = hidden((3, D))
    options = {"dim": 1} if activation == "softmax" else {}  # what torch takes for a matrix, with a warning
    function: Callable[[Any], Any] = getattr(torch.nn, name.rpartition(".")[2])(**options)
    with torch.no_grad():
        expected = function(torch.nn.functional.linear(*map(torch.tensor, (x, weight, bias)))).numpy()
    value = graph.input("x", TensorProto.FLOAT, ("batch", D))
    actual = run(graph, tmp_path, heads.dense(graph, value, layer, "2_Dense"), {"x": x})
    np.testing.assert_allclose(actual, expected, atol=2e-6)


def test_two_dense_layers_of_one_folder_name_keep_their_own_weights(graph: Graph, tmp_path: Path) -> None:
    first, second = tmp_path / "a/Dense", tmp_path / "b/Dense"
    layers = [dense_facts(first, "identity", bias=False), dense_facts(second, "identity", bias=False)]
    save_file({"linear.weight": np.eye(4, dtype=np.float32)}, second / "model.safetensors")
    layers[1] = DenseFacts(4, 4, False, "identity", second)
    x = hidden((3, D))
    value = graph.input("x", TensorProto.FLOAT, ("batch", D))
    for index, layer in enumerate(layers):
        value = heads.dense(graph, value, layer, f"{index}_Dense")
    actual = run(graph, tmp_path, value, {"x": x})
    np.testing.assert_allclose(actual, x @ hidden((4, D), 1).T, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_dense_weights_are_single_precision_whatever_is_stored(tmp_path: Path, dtype: Any) -> None:
    layer = dense_facts(tmp_path / "2_Dense", "tanh", dtype=dtype)
    weight, bias = heads.dense_weights(layer)
    assert bias is not None
    assert weight.dtype == bias.dtype == np.float32
    np.testing.assert_array_equal(weight, hidden((4, D), 1).astype(dtype).astype(np.float32))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"linear.weight": (D, 4), "linear.bias": (4,)}, r"linear\.weight is \(6, 4\), but config\.json says \(4, 6\)"),
        ({"linear.weight": (4, D), "linear.bias": (5,)}, r"linear\.bias is \(5,\), but config\.json says \(4,\)"),
        ({"linear.weight": (4, D)}, r"no tensor linear\.bias"),
        ({"linear.bias": (4,)}, r"no tensor linear\.weight"),
        ({"linear.weight": (4, D), "linear.bias": (4,), "residual.weight": (4, D)}, r"not use: residual\.weight"),
    ],
)
def test_a_dense_whose_config_and_weights_disagree_is_named(
    tmp_path: Path, tensors: dict[str, tuple[int, ...]], message: str
) -> None:
    layer = dense_facts(tmp_path / "2_Dense", "tanh")
    save_file({name: hidden(shape) for name, shape in tensors.items()}, layer.folder / "model.safetensors")
    with pytest.raises(ModelFilesError, match=message) as caught:
        heads.dense_weights(layer)
    assert str(layer.folder) in str(caught.value)


def test_a_bias_that_the_config_denies_is_an_error(tmp_path: Path) -> None:
    layer = dense_facts(tmp_path / "2_Dense", "tanh")
    with pytest.raises(ModelFilesError, match=r"does not use: linear\.bias"):
        heads.dense_weights(DenseFacts(D, 4, False, "tanh", layer.folder))


def test_a_dense_that_is_a_pickle_is_read_like_any_other(tmp_path: Path) -> None:
    layer = dense_facts(tmp_path / "2_Dense", "tanh")
    weight, bias = heads.dense_weights(layer)
    assert bias is not None
    (layer.folder / "model.safetensors").unlink()
    write_torch(layer.folder / "pytorch_model.bin", {"linear.weight": weight, "linear.bias": bias})
    for actual, expected in zip(heads.dense_weights(layer), (weight, bias), strict=True):
        np.testing.assert_array_equal(actual, expected)


# ---- normalization


def test_normalized_vectors_have_length_one_and_a_zero_vector_stays_zero(graph: Graph, tmp_path: Path) -> None:
    x = hidden((4, D))
    x[1] = 0
    x[2] *= np.float32(1e-8)
    value = graph.input("x", TensorProto.FLOAT, ("batch", D))
    actual = run(graph, tmp_path, heads.normalize(graph, value), {"x": x})
    np.testing.assert_allclose(actual, pooling.normalize(x), atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(actual, axis=1), [1, 0, 1, 1], rtol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("name", sorted({*ACTIVATIONS, *BOUNDED_ACTIVATIONS}))
def test_activations_are_transformers_or_torchs(graph: Graph, tmp_path: Path, name: str) -> None:
    torch = pytest.importorskip("torch")
    named: Any = pytest.importorskip("transformers").activations.ACT2FN
    function = named[name] if name in named else getattr(torch.nn.functional, name)
    options = {"dim": -1} if name == "softmax" else {}
    x = np.linspace(-15, 15, 60, dtype=np.float32).reshape(3, 20)
    value = graph.input("x", TensorProto.FLOAT, (3, 20))
    actual = run(graph, tmp_path, graph.activation(value, name), {"x": x})
    np.testing.assert_allclose(actual, function(torch.from_numpy(x), **options).numpy(), rtol=1e-5, atol=2e-6)
