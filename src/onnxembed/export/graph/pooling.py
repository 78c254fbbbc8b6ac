"""From token embeddings to sentence embeddings, in the graph: pooling, Dense layers, normalization.

The definitions are those of sentence-transformers 6.2 (sentence_transformer/modules/pooling.py,
base/modules/dense.py and normalize.py). Everything here is float32, whatever the graph's type.
`onnxembed.runtime.outputs.pooling` computes the same in numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto

from onnxembed.arrays import Array
from onnxembed.errors import ModelFilesError
from onnxembed.export.checkpoint.tensors import Checkpoint, check_finite
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.facts.modules import DenseFacts, Layer, LayerNormFacts, WeightedLayerPoolingFacts
from onnxembed.manifest import MAX_OF_NOTHING, PoolingMode

LAYER_NORM_EPS = 1e-5
"""torch's default, which sentence-transformers' LayerNorm module uses."""


def pool(g: Graph, tokens: Value, attention_mask: Value, modes: Sequence[PoolingMode]) -> Value:
    """Pool tokens float32 [B, T, D] under the mask int64 [B, T] -> [B, len(modes) * D]."""
    pooled = [_POOLINGS[mode](g, tokens, attention_mask) for mode in modes]
    return pooled[0] if len(pooled) == 1 else g.op("Concat", *pooled, axis=-1)


def layer_output(g: Graph, x: Value, layer: Layer, name: str) -> Value:
    """What one module makes of vectors [..., in] -> [..., out]; `name` is unique in the graph."""
    if isinstance(layer, DenseFacts):
        return dense(g, x, layer, name)
    if isinstance(layer, LayerNormFacts):
        arrays = layer_norm_weights(layer)
        weights = [g.constant(f"{name}.{key}", array) for key, array in arrays.items()]
        return g.op("LayerNormalization", x, *weights, name=name, epsilon=LAYER_NORM_EPS)
    return normalize(g, x)


def dense(g: Graph, x: Value, layer: DenseFacts, name: str) -> Value:
    """One Dense module, activation(Linear(x)): [..., in_features] -> [..., out_features], plus x if it is residual."""
    out = linear(g, x, f"{name}.linear", *dense_weights(layer))
    out = out if layer.activation == "identity" else g.activation(out, layer.activation, "fp32")
    if not layer.residual:
        return out
    if layer.in_features != layer.out_features:
        x = linear(g, x, f"{name}.residual", residual_weight(layer), None)
    return g.op("Add", out, x)


def linear(g: Graph, x: Value, name: str, weight: Array, bias: Array | None) -> Value:
    """x @ weight.T + bias in float32: [..., in] -> [..., out]."""
    x = g.op("MatMul", x, g.constant(f"{name}.weight.T", np.ascontiguousarray(weight.T)))
    return x if bias is None else g.op("Add", x, g.constant(f"{name}.bias", bias))


def dense_weights(layer: DenseFacts) -> tuple[Array, Array | None]:
    """A Dense module's float32 weight (out_features, in_features) and bias (out_features,) or None."""
    expected: dict[str, tuple[int, ...]] = {"linear.weight": (layer.out_features, layer.in_features)}
    if layer.bias:
        expected["linear.bias"] = (layer.out_features,)
    if layer.residual and layer.in_features != layer.out_features:
        expected["residual.weight"] = (layer.out_features, layer.in_features)
    arrays = _read_exactly(layer.folder, "Dense", expected)
    return arrays["linear.weight"], arrays.get("linear.bias")


def residual_weight(layer: DenseFacts) -> Array:
    """The float32 weight (out_features, in_features) that a residual Dense module's input goes through."""
    weights = Checkpoint(layer.folder)
    return np.ascontiguousarray(weights.read("residual.weight"), dtype=np.float32)


def layer_norm_weights(layer: LayerNormFacts) -> dict[str, Array]:
    """A LayerNorm module's float32 weight and bias, in this order."""
    return _read_exactly(layer.folder, "LayerNorm", {"norm.weight": (layer.width,), "norm.bias": (layer.width,)})


def weighted_sum(g: Graph, outputs: Sequence[Value], layer: WeightedLayerPoolingFacts) -> Value:
    """The sum of the layers' outputs float32 [B, T, D], each times its share of the module's weights.

    Raises ModelFilesError for weights whose sum is 0.
    """
    weights = _read_exactly(layer.folder, "WeightedLayerPooling", {"layer_weights": (layer.count,)})["layer_weights"]
    if not (total := weights.sum()):
        raise ModelFilesError(f"{layer.folder}: the sum of layer_weights is 0, by which the average is divided")
    terms = [g.op("Mul", x, g.float32(float(share))) for x, share in zip(outputs, weights / total, strict=True)]
    return terms[0] if len(terms) == 1 else g.op("Sum", *terms)


def _read_exactly(folder: Path, module: str, expected: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """The float32 tensors of a module; ModelFilesError for other shapes, and for tensors that it does not use."""
    weights = Checkpoint(folder)
    for name, shape in expected.items():
        if weights.shape(name) != shape:
            raise ModelFilesError(f"{folder}: {name} is {weights.shape(name)}, but config.json says {shape}")
    if strange := weights.unused():
        raise ModelFilesError(f"{folder} has tensors a {module} module does not use: {', '.join(strange)}")
    arrays = {name: np.ascontiguousarray(weights.read(name), dtype=np.float32) for name in expected}
    for name, array in arrays.items():
        check_finite(f"{name} of {folder}", array)
    return arrays


def normalize(g: Graph, x: Value) -> Value:
    """x / max(|x|, 1e-12) per row, as torch.nn.functional.normalize."""
    norm = g.op("ReduceL2", x, g.integers(-1), keepdims=1)
    return g.op("Div", x, g.op("Max", norm, g.float32(1e-12)))


def _mask_row(g: Graph, mask: Value) -> Value:
    """int64 [B, T] -> float32 [B, 1, T]."""
    return g.op("Unsqueeze", g.op("Cast", mask, to=TensorProto.FLOAT), g.integers(1))


def _pick(g: Graph, tokens: Value, positions: Value) -> Value:
    """The token at one position [B, 1] of each text: [B, T, D] -> [B, D]."""
    return g.op("GatherND", tokens, positions, batch_dims=1)


def _cls(g: Graph, tokens: Value, mask: Value) -> Value:
    return _pick(g, tokens, g.op("ArgMax", mask, axis=1))


def _lasttoken(g: Graph, tokens: Value, mask: Value) -> Value:
    """The last token of each text; zeros for a text without tokens."""
    last = _pick(g, tokens, g.op("ArgMax", mask, axis=1, select_last_index=1))
    has_tokens = g.op("Cast", g.op("ReduceMax", mask, g.integers(1)), to=TensorProto.FLOAT)  # [B, 1]
    return g.op("Mul", last, has_tokens)


def _max(g: Graph, tokens: Value, mask: Value) -> Value:
    real = g.op("Unsqueeze", g.op("Cast", mask, to=TensorProto.BOOL), g.integers(-1))
    return g.op("ReduceMax", g.op("Where", real, tokens, g.float32(MAX_OF_NOTHING)), g.integers(1), keepdims=0)


def _weighted_sums(g: Graph, tokens: Value, weights: Value) -> tuple[Value, Value]:
    """Sum of weights [B, 1, T] * tokens -> [B, D], and of the weights -> [B, 1].

    A matrix product is faster than a sum over the tokens and has smaller rounding errors.
    """
    total = g.op("Squeeze", g.op("MatMul", weights, tokens), g.integers(1))
    count = g.op("Max", g.op("ReduceSum", weights, g.integers(2), keepdims=0), g.float32(1e-9))
    return total, count


def _mean(g: Graph, tokens: Value, mask: Value) -> Value:
    return g.op("Div", *_weighted_sums(g, tokens, _mask_row(g, mask)))


def _mean_sqrt_len(g: Graph, tokens: Value, mask: Value) -> Value:
    total, count = _weighted_sums(g, tokens, _mask_row(g, mask))
    return g.op("Div", total, g.op("Sqrt", count))


def _weightedmean(g: Graph, tokens: Value, mask: Value) -> Value:
    """Weights 1, 2, 3, ... from the first real token."""
    weights = _mask_row(g, mask)
    places = g.op("CumSum", weights, g.constant("axis_2", np.array(2, np.int64)))
    return g.op("Div", *_weighted_sums(g, tokens, g.op("Mul", places, weights)))


_POOLINGS: dict[PoolingMode, Callable[[Graph, Value, Value], Value]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len": _mean_sqrt_len,
    "weightedmean": _weightedmean,
    "lasttoken": _lasttoken,
}
