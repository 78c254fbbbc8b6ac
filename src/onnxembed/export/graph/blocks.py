"""Local attention in blocks: scores of T x 3 blocks instead of T x T.

Where no query sees further than one block, the keys of a block's queries lie in the block itself and in its two
neighbors. So each block is a short text of its own, of `size` queries and 3 * `size` keys. The neighbors that the
first and the last block lack, and the slots that fill the last one, are padding, masked as any other.

Shape letters: B batch, T tokens, N blocks of a text, S slots of a block, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxembed.export.graph.graph import Graph, Value

SMALLEST = 32  # slots: products with fewer rows are slow, however short the window
FEWEST = 4  # blocks: in shorter runs the T x T scores are as fast


@dataclass(frozen=True)
class Blocks:
    """The blocks of a run, prepared once for all layers with the same window.

    `long`: whether the run is long enough to gain by them. `bias` [1, 1, S, 3S] says who is near whom, `keys` int32
    [B * N, 3S] which keys are tokens. The other values are pads and shapes.
    """

    graph: Graph
    long: Value
    bias: Value
    keys: Value
    neighbors: Value
    query_pads: Value
    key_pads: Value
    apart: Value
    queries: Value
    joined: Value
    together: Value
    end: Value

    def split_queries(self, x: Value) -> Value:
        """Queries [B, T, D] in blocks: [B * N, S, D]."""
        g = self.graph
        return g.op("Reshape", g.op("Pad", x, self.query_pads), self.queries)

    def split_keys(self, x: Value) -> Value:
        """Keys or values [B, T, D], each block with its neighbors: [B * N, 3S, D]."""
        g = self.graph
        apart = g.op("Reshape", g.op("Pad", x, self.key_pads), self.apart)  # [B, N + 2, S, D]
        return g.op("Reshape", g.op("Gather", apart, self.neighbors, axis=1), self.joined)

    def join(self, x: Value) -> Value:
        """The blocks' tokens [B * N, S, D] in a row: [B, T, D]."""
        g = self.graph
        return g.op("Slice", g.op("Reshape", x, self.together), g.integers(0), self.end, g.integers(1))


def prepare_blocks(g: Graph, keys: Value, reach: int) -> Blocks:
    """Blocks for queries that see `reach` positions to either side; `keys` int32 [B, T] marks real tokens."""
    size = max(reach, SMALLEST)
    whole, slots = g.integer(size), g.integers(size)
    rows, end = g.op("Shape", keys, start=0, end=1), g.op("Shape", keys, start=1, end=2)  # [1] each
    length = g.op("Squeeze", end)
    count = g.op("Div", g.op("Add", length, g.integer(size - 1)), whole)
    counts = g.op("Unsqueeze", count, g.integers(0))  # [1], as are all sizes below
    filled = g.op("Mul", counts, slots)
    fill = g.op("Sub", filled, end)
    after = g.op("Add", fill, slots)
    chunks, total = g.op("Add", counts, g.integers(2)), g.op("Mul", rows, counts)
    first = g.op("Unsqueeze", g.op("Range", g.integer(0), count, g.integer(1)), g.integers(1))
    # The name is part of exported graphs, whose bytes stay the same.
    neighbors = g.op("Add", first, g.constant("neighbours", np.arange(3, dtype=np.int64)[None]))  # [N, 3]

    def sizes(*parts: Value) -> Value:
        return g.op("Concat", *parts, axis=0)

    padded = g.op("Pad", keys, sizes(g.integers(0), slots, g.integers(0), after))
    apart = g.op("Reshape", padded, sizes(rows, chunks, slots))  # [B, N + 2, S]
    wide, rest = g.integers(3 * size), g.integers(-1)
    return Blocks(
        graph=g,
        long=g.op("Greater", length, g.integer(FEWEST * size)),
        bias=_nearness(g, size, reach),
        keys=g.op("Reshape", g.op("Gather", apart, neighbors, axis=1), sizes(total, wide)),
        neighbors=neighbors,
        query_pads=sizes(g.integers(0, 0, 0, 0), fill, g.integers(0)),
        key_pads=sizes(g.integers(0), slots, g.integers(0, 0), after, g.integers(0)),
        apart=sizes(rows, chunks, slots, rest),
        queries=sizes(total, slots, rest),
        joined=sizes(total, wide, rest),
        together=sizes(rows, filled, rest),
        end=end,
    )


def _nearness(g: Graph, size: int, reach: int) -> Value:
    """What is added to the scores of a block: nothing near a query, else so much that nothing is left of them."""
    distance = np.arange(3 * size)[None] - (np.arange(size)[:, None] + size)
    bias = np.where(np.abs(distance) <= reach, 0, np.finfo(g.numpy_float).min / 2).astype(g.numpy_float)
    return g.constant(f"block_bias_{reach}", bias[None, None])
