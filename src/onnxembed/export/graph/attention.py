"""Attention in the graph: who may attend to whom, and ONNX Runtime's fused operator.

Shape letters: B batch, T tokens, H heads, d head size, D = H * d.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto

from onnxembed.errors import ModelFilesError
from onnxembed.export.graph.blocks import Blocks, prepare_blocks
from onnxembed.export.graph.graph import MICROSOFT, Graph, Value

STREAMED = 1024  # tokens, from which on GroupQueryAttention is faster when it streams


@dataclass(frozen=True)
class Mask:
    """Which keys a query may attend to, in the forms that the operators want.

    `keys` int32 [B, T] marks real tokens. `bias` [1, 1 or H, T, T] is added to the scores ("" for none). `free`
    is true in runs that need neither: where every query may attend to every key or, in causal attention, where
    no padding stands before a token. It is "" when there is no such run, because the bias says more than who
    may attend, or no kernel does without. `window` is how many keys a causal query sees, itself included, -1
    for all before it; `last` int32 [B] and `length` int32 are T - 1 and T, as GroupQueryAttention asks for them,
    and `long` whether it is faster when it streams. `blocks` are there where a bidirectional query sees only
    its neighbors.
    """

    keys: Value
    free: Value
    causal: bool = False
    bias: Value = ""
    window: int = -1
    last: Value = ""
    length: Value = ""
    long: Value = ""
    blocks: Blocks | None = None
    packed: Packed | None = None


@dataclass(frozen=True)
class Packed:
    """Texts in a row without padding, [1, N, D], which CUDA's PackedMultiHeadAttention keeps apart.

    `offsets` int32 [B, S] and `ends` int32 [B + 1] are what it calls token_offset and cumulative_sequence_length.
    A mask that has this has `offsets` as its `keys`, whose shape is that of the padded texts, and a `bias`
    [1, 1 or H, S, S] by positions within them.
    """

    offsets: Value
    ends: Value


def prepare_mask(g: Graph, attention_mask: Value, *, causal: bool) -> Mask:
    """Prepare the attention mask int64 [B, T] once for all layers."""
    keys = g.op("Cast", attention_mask, to=TensorProto.INT32)
    if not causal:
        return Mask(keys, _all_true(g, keys))
    shape = g.op("Cast", g.op("Shape", keys), to=TensorProto.INT32)
    length = g.op("Gather", shape, g.integer(1))
    last = g.op("Sub", length, g.constant("int32_1_scalar", np.array(1, np.int32)))
    # A causal query never sees what stands after it, so padding there needs no mask: only before a token it does.
    end = g.op("ArgMax", attention_mask, axis=1, keepdims=0, select_last_index=1)
    tokens = g.op("ReduceSum", attention_mask, g.integers(1), keepdims=0)
    at_front = g.op("Cast", g.op("Equal", end, g.op("Sub", tokens, g.integer(1))), to=TensorProto.INT32)
    last = g.op("Expand", last, g.op("Shape", keys, start=0, end=1))
    long = g.op("GreaterOrEqual", length, g.constant("streamed", np.array(STREAMED, np.int32)))
    return Mask(keys, _all_true(g, at_front), causal=True, last=last, length=length, long=long)


def _all_true(g: Graph, x: Value) -> Value:
    """Whether every entry of an int32 tensor is 1."""
    return g.op("Cast", g.op("ReduceMin", x, keepdims=0), to=TensorProto.BOOL)


def mask_for_heads(mask: Mask, head_dim: int) -> Mask:
    """The mask for heads of this size: GroupQueryAttention, which needs no causal mask, takes multiples of 8 only."""
    return replace(mask, free="") if mask.causal and head_dim % 8 else mask


def local_mask(g: Graph, mask: Mask, reach: int) -> Mask:
    """The mask of a layer whose queries see only keys at most `reach` positions away."""
    if mask.packed:
        length = g.op("Squeeze", g.op("Shape", mask.keys, start=1, end=2))
        short = g.op("LessOrEqual", length, g.integer(reach + 1))
        return replace(mask, free=short, bias=_bias_unless(g, short, mask.keys, reach))
    if mask.causal:
        bias = _bias_unless(g, mask.free, mask.keys, reach) if mask.free else _local_bias(g, mask.keys, reach)
        return replace(mask, bias=bias, window=reach + 1)
    if g.precision == "bf16":  # CUDA has no Pad for it, which blocks are cut with
        return replace(mask, free="", bias=_local_bias(g, mask.keys, reach))
    blocks = prepare_blocks(g, mask.keys, reach)
    short = g.op("LessOrEqual", g.op("Squeeze", blocks.end), g.integer(reach + 1))
    free = g.op("And", mask.free, short)
    bias = _bias_unless(g, g.op("Or", free, blocks.long), mask.keys, reach)
    return replace(mask, free=free, bias=bias, blocks=blocks)


def _bias_unless(g: Graph, unused: Value, keys: Value, reach: int) -> Value:
    """The local bias, or something small in runs that do not look at it."""
    nothing = g.constant("no_bias", np.zeros((1, 1, 1, 1), g.numpy_float))
    return g.if_else(unused, lambda: g.op("Identity", nothing), lambda: _local_bias(g, keys, reach))


def _local_bias(g: Graph, keys: Value, reach: int) -> Value:
    """What is added to scores [1, 1, T, T] so that nothing is left of those of keys further than `reach` away."""
    length = g.op("Squeeze", g.op("Shape", keys, start=1, end=2))
    positions = g.op("Range", g.integer(0), length, g.integer(1))
    rows, columns = g.op("Unsqueeze", positions, g.integers(1)), g.op("Unsqueeze", positions, g.integers(0))
    near = g.op("LessOrEqual", g.op("Abs", g.op("Sub", rows, columns)), g.integer(reach))  # [T, T]
    # Finite, because a query in padding may see no key at all, and a row of -inf becomes NaN.
    far = g.constant("far", np.array(_lowest(g) / 2, g.numpy_float))
    near_bias = g.constant("near", np.array(0, g.numpy_float))
    return g.op("Unsqueeze", g.op("Where", near, near_bias, far), g.integers(0, 1))


def _lowest(g: Graph) -> float:
    """The lowest number of the graph's type."""
    return float(ml_dtypes.finfo(g.numpy_float).min)  # type: ignore[no-untyped-call]


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

    `biases` names the Linears of query, key and value whose biases are still to be added, in bidirectional
    attention only; `scale` is 1 / sqrt(d) when None.

    ONNX Runtime's CPU kernels stream over the keys (flash attention) only when they get no mask, so a run that
    needs none takes a branch without one: faster, and no T x T scores in memory. For causal attention the
    kernel that does so is GroupQueryAttention, which knows windows too and takes keys and values as they are.
    """
    if biases and mask.causal:
        raise ValueError("the kernel of causal attention adds no biases: add them in the Linears")
    bias = _joined_biases(g, biases, heads) if biases else ""
    if key_heads not in (None, heads) and not (mask.causal and mask.free):
        key, value = (_repeat_heads(g, x, key_heads, heads) for x in (key, value))
        key_heads = heads
    scaled: dict[str, Any] = {} if scale is None else {"scale": scale}

    def attend(query: Value, key: Value, value: Value, *masks: Value) -> Value:
        inputs = [query, key, value, bias, *masks]
        while not inputs[-1]:
            inputs.pop()
        causal = int(mask.causal)
        return g.op("MultiHeadAttention", *inputs, domain=MICROSOFT, num_heads=heads, unidirectional=causal, **scaled)

    def repeated() -> list[Value]:
        if key_heads in (None, heads):
            return [key, value]
        return [_repeat_heads(g, x, key_heads, heads) for x in (key, value)]

    def grouped(*, unread: int) -> Value:
        inputs = [query, key, value, "", "", mask.last, mask.length]
        sizes: dict[str, Any] = {"kv_num_heads": key_heads or heads, "local_window_size": mask.window, **scaled}
        return g.op("GroupQueryAttention", *inputs, domain=MICROSOFT, unread=unread, num_heads=heads, **sizes)

    def unmasked() -> Value:
        if not mask.causal:
            return attend(query, *repeated())
        # The CPU's kernel streams only when it is asked for the keys and values that a decoder keeps; CUDA's, which
        # has no fp32, runs only then.
        if g.precision != "fp32":
            return grouped(unread=2)
        return g.if_else(mask.long, lambda: grouped(unread=2), lambda: grouped(unread=0))

    def packed(rows: Packed, bias_by_distance: Value) -> Value:
        flat = [g.op("Squeeze", x, g.integers(0)) for x in (query, *repeated())]  # [N, D]
        inputs = [*flat, bias, rows.offsets, rows.ends, *([bias_by_distance] if bias_by_distance else [])]
        out = g.op("PackedMultiHeadAttention", *inputs, domain=MICROSOFT, num_heads=heads, **scaled)
        return g.op("Unsqueeze", out, g.integers(0))

    def masked() -> Value:
        return attend(query, *repeated(), mask.keys, mask.bias)

    def in_blocks(blocks: Blocks) -> Value:
        parts = [blocks.split_queries(query), *(blocks.split_keys(x) for x in repeated())]
        return blocks.join(attend(*parts, blocks.keys, blocks.bias))

    def local() -> Value:
        blocks = mask.blocks
        return g.if_else(blocks.long, lambda: in_blocks(blocks), masked) if blocks else masked()

    if rows := mask.packed:
        if mask.bias and mask.free:
            return g.if_else(mask.free, lambda: packed(rows, ""), lambda: packed(rows, mask.bias))
        return packed(rows, mask.bias)
    if not mask.free:
        return masked()
    return g.if_else(mask.free, unmasked, local)


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
