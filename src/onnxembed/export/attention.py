"""Attention in the graph: who may attend to whom, and ONNX Runtime's fused operator.

Shape letters: B batch, T tokens, H heads, d head size, D = H * d.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import TensorProto

from onnxembed.errors import ModelFilesError
from onnxembed.export.graph import MICROSOFT, Graph, Value


@dataclass(frozen=True)
class Mask:
    """Which keys a query may attend to, in the forms that the operator wants.

    `keys` int32 [B, T] marks real tokens. `bias` [1, 1 or H, T, T] is added to the scores ("" for none). `free`
    is true in runs where every query may attend to every key, so that no mask is needed at all; "" when
    there is no such run, because the bias says more than who may attend.
    """

    keys: Value
    free: Value
    causal: bool = False
    bias: Value = ""


def prepare_mask(g: Graph, attention_mask: Value, *, causal: bool) -> Mask:
    """Prepare the attention mask int64 [B, T] once for all layers."""
    keys = g.op("Cast", attention_mask, to=TensorProto.INT32)
    smallest = g.op("ReduceMin", keys, keepdims=0)
    return Mask(keys, g.op("Cast", smallest, to=TensorProto.BOOL), causal)


def local_mask(g: Graph, mask: Mask, reach: int) -> Mask:
    """The mask of a layer whose queries see only keys at most `reach` positions away."""
    length = g.op("Squeeze", g.op("Shape", mask.keys, start=1, end=2))
    positions = g.op("Range", g.integer(0), length, g.integer(1))
    rows, columns = g.op("Unsqueeze", positions, g.integers(1)), g.op("Unsqueeze", positions, g.integers(0))
    near = g.op("LessOrEqual", g.op("Abs", g.op("Sub", rows, columns)), g.integer(reach))  # [T, T]
    # Finite, because a query in padding may see no key at all, and a row of -inf becomes NaN.
    far = g.constant("far", np.array(np.finfo(g.numpy_float).min / 2, g.numpy_float))
    near_bias = g.constant("near", np.array(0, g.numpy_float))
    bias = g.op("Unsqueeze", g.op("Where", near, near_bias, far), g.integers(0, 1))
    short = g.op("LessOrEqual", length, g.integer(reach + 1))
    return replace(mask, free=g.op("And", mask.free, short), bias=bias)


def attention(
    g: Graph,
    query: Value,
    key: Value,
    value: Value,
    *,
    heads: int,
    mask: Mask,
    key_heads: int | None = None,
    biases: tuple[str, ...] = (),
    scale: float | None = None,
) -> Value:
    """Multi-head attention: query [B, T, H * d], key and value [B, T, key_heads * d] -> [B, T, H * d].

    `biases` names the Linears of query, key and value whose biases are still to be added; `scale` is
    1 / sqrt(d) when None.

    ONNX Runtime's CPU kernel streams over the keys (flash attention) only when it gets no mask, so a run
    that needs none takes a branch without one: faster, and no T x T scores in memory.
    """
    if key_heads is not None and key_heads != heads:
        key, value = (_repeat_heads(g, x, key_heads, heads) for x in (key, value))
    bias = _joined_biases(g, biases, heads) if biases else ""
    attributes: dict[str, Any] = {"num_heads": heads, "unidirectional": int(mask.causal)}
    if scale is not None:
        attributes["scale"] = scale

    def attend(*masks: Value) -> Value:
        inputs = [query, key, value, bias, *masks]
        while not inputs[-1]:
            inputs.pop()
        return g.op("MultiHeadAttention", *inputs, domain=MICROSOFT, **attributes)

    if mask.causal or not mask.free:
        return attend(mask.keys, mask.bias)
    return g.choose(mask.free, attend, lambda: attend(mask.keys, mask.bias))


def _joined_biases(g: Graph, linears: tuple[str, ...], heads: int) -> Value:
    width = g.weights.shape(f"{linears[0]}.bias")[0]
    if width % heads:
        raise ModelFilesError(f"{linears[0]} has width {width}, which {heads} attention heads do not divide")
    return g.concatenated(*(f"{linear}.bias" for linear in linears))


def _repeat_heads(g: Graph, x: Value, key_heads: int, heads: int) -> Value:
    """Each head of x [B, T, key_heads * d] for its group of query heads: [B, T, heads * d]."""
    groups = heads // key_heads
    apart = g.op("Reshape", x, g.integers(0, 0, key_heads, 1, -1))
    repeated = g.op("Expand", apart, g.integers(1, 1, 1, groups, 1))
    return g.op("Reshape", repeated, g.integers(0, 0, -1))
