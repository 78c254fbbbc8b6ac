"""Local attention in blocks: scores of T x 3 blocks instead of T x T.

Where no query sees further than one block, the keys of a block's queries lie in the block itself and in its two
neighbors. Each block can therefore be computed as a short text of its own, with `size` queries and 3 * `size` keys.
The neighbors that the first and the last block lack, and the slots that fill up the last one, are padding and masked
like any other padding.

Shape letters: B batch, T tokens, N blocks of a text, S slots of a block, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxembed.export.graph.graph import Graph, Value

SMALLEST = 32
"""Slots of the smallest block: products with fewer rows are slow, however short the window."""

FEWEST = 4
"""Runs of at most this many blocks compute T x T scores, which are as fast there."""


@dataclass(frozen=True)
class Blocks:
    """The blocks of a run, prepared once for all layers with the same window."""

    graph: Graph
    """The graph that the values are of."""
    long: Value
    """bool, whether the run is long enough for blocks to be faster."""
    bias: Value
    """[1, 1, S, 3S], added to the scores: 0 for keys within reach of a query, very low for others."""
    keys: Value
    """int32 [B * N, 3S], 1 for keys that are real tokens."""
    neighbors: Value
    """int64 [N, 3], the places of each block and its neighbors among the padded blocks."""
    query_pads: Value
    """int64 [6], the pads that fill up the last block of queries [B, T, D]."""
    key_pads: Value
    """int64 [6], the pads that also add a block before and after keys [B, T, D]."""
    padded_blocks: Value
    """The shape [B, N + 2, S, D] of padded keys, block by block."""
    query_blocks: Value
    """The shape [B * N, S, D] of queries."""
    key_blocks: Value
    """The shape [B * N, 3S, D] of keys, each block with its neighbors."""
    filled_texts: Value
    """The shape [B, N * S, D] of texts whose last block is filled up."""
    end: Value
    """int64 [1], T."""

    def split_queries(self, x: Value) -> Value:
        """Queries [B, T, D] as blocks: [B * N, S, D]."""
        g = self.graph
        return g.op("Reshape", g.op("Pad", x, self.query_pads), self.query_blocks)

    def split_keys(self, x: Value) -> Value:
        """Keys or values [B, T, D] as blocks with their neighbors: [B * N, 3S, D]."""
        g = self.graph
        padded = g.op("Reshape", g.op("Pad", x, self.key_pads), self.padded_blocks)  # [B, N + 2, S, D]
        return g.op("Reshape", g.op("Gather", padded, self.neighbors, axis=1), self.key_blocks)

    def join(self, x: Value) -> Value:
        """The tokens of blocks [B * N, S, D] as texts again: [B, T, D]."""
        g = self.graph
        return g.op("Slice", g.op("Reshape", x, self.filled_texts), g.integers(0), self.end, g.integers(1))


def prepare_blocks(g: Graph, keys: Value, reach: int) -> Blocks:
    """Blocks for queries that see `reach` positions to either side; `keys` int32 [B, T] is 1 for real tokens."""
    size = max(reach, SMALLEST)
    slots_scalar, slots = g.integer(size), g.integers(size)
    rows, end = g.op("Shape", keys, start=0, end=1), g.op("Shape", keys, start=1, end=2)  # [1] each
    length = g.op("Squeeze", end)
    count = g.op("Div", g.op("Add", length, g.integer(size - 1)), slots_scalar)
    counts = g.op("Unsqueeze", count, g.integers(0))  # [1], as are all sizes below
    filled = g.op("Mul", counts, slots)
    fill = g.op("Sub", filled, end)
    after = g.op("Add", fill, slots)
    padded_count, total = g.op("Add", counts, g.integers(2)), g.op("Mul", rows, counts)
    first = g.op("Unsqueeze", g.op("Range", g.integer(0), count, g.integer(1)), g.integers(1))
    # The name is part of exported graphs, whose bytes stay the same.
    neighbors = g.op("Add", first, g.constant("neighbours", np.arange(3, dtype=np.int64)[None]))  # [N, 3]

    def sizes(*parts: Value) -> Value:
        return g.op("Concat", *parts, axis=0)

    padded = g.op("Pad", keys, sizes(g.integers(0), slots, g.integers(0), after))
    padded = g.op("Reshape", padded, sizes(rows, padded_count, slots))  # [B, N + 2, S]
    three_slots, rest = g.integers(3 * size), g.integers(-1)
    return Blocks(
        graph=g,
        long=g.op("Greater", length, g.integer(FEWEST * size)),
        bias=_nearness(g, size, reach),
        keys=g.op("Reshape", g.op("Gather", padded, neighbors, axis=1), sizes(total, three_slots)),
        neighbors=neighbors,
        query_pads=sizes(g.integers(0, 0, 0, 0), fill, g.integers(0)),
        key_pads=sizes(g.integers(0), slots, g.integers(0, 0), after, g.integers(0)),
        padded_blocks=sizes(rows, padded_count, slots, rest),
        query_blocks=sizes(total, slots, rest),
        key_blocks=sizes(total, three_slots, rest),
        filled_texts=sizes(rows, filled, rest),
        end=end,
    )


def _nearness(g: Graph, size: int, reach: int) -> Value:
    """What is added to the scores of a block: 0 for keys within reach of a query, very low for others."""
    distance = np.arange(3 * size)[None] - (np.arange(size)[:, None] + size)
    bias = np.where(np.abs(distance) <= reach, 0, np.finfo(g.numpy_float).min / 2).astype(g.numpy_float)
    return g.constant(f"block_bias_{reach}", bias[None, None])
