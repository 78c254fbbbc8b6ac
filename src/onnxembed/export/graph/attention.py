"""Attention in the graph: which keys a query may attend to, and ONNX Runtime's fused operators.

Shape letters: B batch, T tokens, H heads, d head size, D = H * d.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import TensorProto

from onnxembed.errors import ModelFilesError
from onnxembed.export.graph.blocks import Blocks, prepare_blocks
from onnxembed.export.graph.graph import MICROSOFT, Graph, Heads, Value

# GroupQueryAttention is faster from this many tokens on when it streams.
STREAMED = 1024

UNBOUNDED = 2**19
"""A query that sees this far sees all of every text."""


@dataclass(frozen=True)
class Mask:
    """Which keys a query may attend to, in the forms that the operators take; "" for a form that is missing."""

    keys: Value
    """int32 [B, T], 1 for real tokens; for packed texts their offsets, whose shape is that of the padded texts."""
    free: Value
    """bool, true in runs that need neither `keys` nor `bias`.

    These are runs in which every query may attend to every key or, in causal attention, no padding stands before a
    token. "" if no run is free: if the bias says more than who may attend, or every kernel needs it.
    """
    causal: bool = False
    """Whether a query attends only to keys up to its own position."""
    bias: Value = ""
    """[1, 1 or H, T, T], added to the scores."""
    window: int = -1
    """How many keys a causal query sees, including its own; -1 for all before it."""
    last: Value = ""
    """int32 [B], T - 1 for each text: an input of GroupQueryAttention."""
    length: Value = ""
    """int32, T: an input of GroupQueryAttention."""
    long: Value = ""
    """bool, whether GroupQueryAttention is faster when it streams."""
    blocks: Blocks | None = None
    """The blocks of a run whose bidirectional queries see only their neighbors."""
    packed: Packed | None = None
    """Where texts begin and end that stand in a row without padding."""


@dataclass(frozen=True)
class Packed:
    """Texts in a row without padding, [1, N, D], which CUDA's PackedMultiHeadAttention keeps apart.

    The bias of their mask is [1, 1 or H, S, S], by positions within a text.
    """

    offsets: Value
    """int32 [B, S]: the operator's token_offset."""
    ends: Value
    """int32 [B + 1]: the operator's cumulative_sequence_length."""


def prepare_mask(g: Graph, attention_mask: Value, *, causal: bool) -> Mask:
    """Prepare the attention mask int64 [B, T] once for all layers."""
    keys = g.op("Cast", attention_mask, to=TensorProto.INT32)
    if not g.fused:
        return Mask(keys, "", causal=causal)
    if not causal:
        return Mask(keys, _all_true(g, keys))
    shape = g.op("Cast", g.op("Shape", keys), to=TensorProto.INT32)
    length = g.op("Gather", shape, g.integer(1))
    last = g.op("Sub", length, g.constant("int32_1_scalar", np.array(1, np.int32)))
    # A causal query never sees what comes after it, so only padding before a token needs a mask.
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
    """The mask for heads of this size. GroupQueryAttention, the kernel of free causal runs, needs a multiple of 8."""
    return replace(mask, free="") if mask.causal and head_dim % 8 else mask


def local_mask(g: Graph, mask: Mask, reach: int) -> Mask:
    """The mask of a layer whose queries see only keys at most `reach` positions away."""
    if reach < 0:
        where = g.weights.folder / "config.json"
        raise ModelFilesError(f"{where}: sliding_window is {reach + 1}, in which a token does not even see itself")
    if reach >= UNBOUNDED:
        return mask
    if mask.packed:
        length = g.op("Squeeze", g.op("Shape", mask.keys, start=1, end=2))
        short = g.op("LessOrEqual", length, g.integer(reach + 1))
        return replace(mask, free=short, bias=_bias_unless(g, short, mask.keys, reach))
    if mask.causal:
        bias = _bias_unless(g, mask.free, mask.keys, reach) if mask.free else _local_bias(g, mask.keys, reach)
        return replace(mask, bias=bias, window=reach + 1)
    if not g.fused or g.precision == "bf16":  # CUDA has no Pad for bf16, which cutting blocks needs
        return replace(mask, free="", bias=_local_bias(g, mask.keys, reach))
    blocks = prepare_blocks(g, mask.keys, reach)
    short = g.op("LessOrEqual", g.op("Squeeze", blocks.end), g.integer(reach + 1))
    free = g.op("And", mask.free, short)
    bias = _bias_unless(g, g.op("Or", free, blocks.long), mask.keys, reach)
    return replace(mask, free=free, bias=bias, blocks=blocks)


def _bias_unless(g: Graph, unused: Value, keys: Value, reach: int) -> Value:
    """The local bias, or a placeholder in runs that do not read it."""
    nothing = g.constant("no_bias", np.zeros((1, 1, 1, 1), g.numpy_float))
    return g.if_else(unused, lambda: g.op("Identity", nothing), lambda: _local_bias(g, keys, reach))


def _local_bias(g: Graph, keys: Value, reach: int) -> Value:
    """What is added to the scores [1, 1, T, T] to leave out keys more than `reach` positions away."""
    length = g.op("Squeeze", g.op("Shape", keys, start=1, end=2))
    positions = g.op("Range", g.integer(0), length, g.integer(1))
    rows, columns = g.op("Unsqueeze", positions, g.integers(1)), g.op("Unsqueeze", positions, g.integers(0))
    near = g.op("LessOrEqual", g.op("Abs", g.op("Sub", rows, columns)), g.integer(reach))  # [T, T]
    return g.op("Unsqueeze", g.near_or_far(near), g.integers(0, 1))


def attention(
    g: Graph,
    query: Value,
    key: Value,
    value: Value,
    *,
    heads: int,
    head_dim: int,
    mask: Mask,
    key_heads: int | None = None,
    biases: tuple[str, ...] = (),
    scale: float | None = None,
) -> Value:
    """Multi-head attention: query [B, T, H * d], key and value [B, T, key_heads * d] -> [B, T, H * d].

    ONNX Runtime's CPU kernels stream over the keys (flash attention) only when they get no mask, so a run that
    needs none takes a branch without one: it is faster, and no T x T scores are held in memory. For causal attention
    the kernel that streams is GroupQueryAttention, which also supports windows and takes keys and values as they are.

    Args:
        g: the graph.
        query: the queries.
        key: the keys.
        value: the values.
        heads: how many heads the queries have.
        head_dim: the size d of each head.
        mask: which keys a query may attend to.
        key_heads: how many heads the keys and values have; as many as the queries when None.
        biases: the Linears of query, key and value whose biases are still to be added; not in free causal runs.
        scale: the factor of the scores; 1 / sqrt(d) when None.
    """
    if biases and mask.causal and mask.free:
        raise ValueError("the kernel of causal attention adds no biases: add them in the Linears")
    if biases and not g.fused:
        projected = zip((query, key, value), biases, strict=True)
        query, key, value = (g.op("Add", x, g.weight(f"{linear}.bias")) for x, linear in projected)
        biases = ()
    bias = _joined_biases(g, biases, heads) if biases else ""
    layer = Heads(query, key, value, heads, key_heads or heads, bias, head_dim, scale)
    if not (mask.causal and mask.free):
        layer = _repeated(g, layer)
    if packed := mask.packed:
        if mask.bias and mask.free:
            return g.if_else(
                mask.free, lambda: _packed(g, layer, packed, ""), lambda: _packed(g, layer, packed, mask.bias)
            )
        return _packed(g, layer, packed, mask.bias)
    if not mask.free:
        return _masked(g, layer, mask)
    return g.if_else(mask.free, lambda: _unmasked(g, layer, mask), lambda: _restricted(g, layer, mask))


def _unmasked(g: Graph, layer: Heads, mask: Mask) -> Value:
    """Attention in a run that is free."""
    if not mask.causal:
        return g.attend(layer, causal=mask.causal)
    # The CPU kernel streams only when it is also asked for the keys and values that a decoder caches; CUDA's kernel,
    # which has no fp32, runs only then.
    if g.precision != "fp32":
        return _grouped(g, layer, mask, unread=2)
    return g.if_else(mask.long, lambda: _grouped(g, layer, mask, unread=2), lambda: _grouped(g, layer, mask, unread=0))


def _restricted(g: Graph, layer: Heads, mask: Mask) -> Value:
    """Attention in a run that is not free: in blocks where the layer has them and the run is long enough."""
    if not (blocks := mask.blocks):
        return _masked(g, layer, mask)
    return g.if_else(blocks.long, lambda: _in_blocks(g, layer, mask, blocks), lambda: _masked(g, layer, mask))


def _masked(g: Graph, layer: Heads, mask: Mask) -> Value:
    return g.attend(_repeated(g, layer), causal=mask.causal, keys=mask.keys, scores=mask.bias)


def _in_blocks(g: Graph, layer: Heads, mask: Mask, blocks: Blocks) -> Value:
    split = replace(
        layer,
        query=blocks.split_queries(layer.query),
        key=blocks.split_keys(layer.key),
        value=blocks.split_keys(layer.value),
    )
    return blocks.join(g.attend(split, causal=mask.causal, keys=blocks.keys, scores=blocks.bias))


def _packed(g: Graph, layer: Heads, packed: Packed, bias_by_distance: Value) -> Value:
    layer = _repeated(g, layer)
    rows = [g.op("Squeeze", x, g.integers(0)) for x in (layer.query, layer.key, layer.value)]  # [N, D]
    inputs = [*rows, layer.bias, packed.offsets, packed.ends]
    if bias_by_distance:
        inputs.append(bias_by_distance)
    out = g.op("PackedMultiHeadAttention", *inputs, domain=MICROSOFT, num_heads=layer.heads, **layer.scaling)
    return g.op("Unsqueeze", out, g.integers(0))


def _grouped(g: Graph, layer: Heads, mask: Mask, *, unread: int) -> Value:
    """GroupQueryAttention, asked for `unread` outputs that nothing reads."""
    inputs = [layer.query, layer.key, layer.value, "", "", mask.last, mask.length]
    sizes: dict[str, Any] = {"kv_num_heads": layer.key_heads, "local_window_size": mask.window, **layer.scaling}
    return g.op("GroupQueryAttention", *inputs, domain=MICROSOFT, unread=unread, num_heads=layer.heads, **sizes)


def _joined_biases(g: Graph, linears: tuple[str, ...], heads: int) -> Value:
    width = g.weights.shape(f"{linears[0]}.bias")[0]
    if width % heads:
        raise ModelFilesError(f"{linears[0]} has width {width}, which {heads} attention heads do not divide")
    return g.concatenated(*(f"{linear}.bias" for linear in linears))


def _repeated(g: Graph, layer: Heads) -> Heads:
    """The layer with as many heads of keys and values as of queries."""
    if layer.key_heads == layer.heads:
        return layer
    return replace(
        layer,
        key=_repeat_heads(g, layer.key, layer.key_heads, layer.heads),
        value=_repeat_heads(g, layer.value, layer.key_heads, layer.heads),
        key_heads=layer.heads,
    )


def _repeat_heads(g: Graph, x: Value, key_heads: int, heads: int) -> Value:
    """Each head of x [B, T, key_heads * d] repeated for its group of query heads: [B, T, heads * d]."""
    groups = heads // key_heads
    apart = g.op("Reshape", x, g.integers(0, 0, key_heads, 1, -1))
    repeated = g.op("Expand", apart, g.integers(1, 1, 1, groups, 1))
    return g.op("Reshape", repeated, g.integers(0, 0, -1))
