"""The inputs of a graph: what builders ask of them, and their usual form, texts padded to one length.

They are named as transformers names them, and each is declared when it is first used. `graph.packed` has the
other form, all texts in one row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

import numpy as np
from onnx import TensorProto

from onnxembed.export.graph import pooling
from onnxembed.export.graph.attention import Mask, prepare_mask
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.manifest import PoolingMode

B, T = "batch", "sequence"

Pool = Callable[[Value, Sequence[PoolingMode]], Value]
"""Makes one vector for each text, [B, len(modes) * D], of token embeddings float32 [B, T, D]."""


class Inputs(Protocol):
    """What a builder may ask of a graph's inputs, int64 [B, T], and what is derived from them once for all layers."""

    @property
    def input_ids(self) -> Value:
        """Token ids."""
        ...

    @property
    def token_type_ids(self) -> Value:
        """Segment ids; a graph whose architecture has one segment does not take them."""
        ...

    @property
    def positions(self) -> Value:
        """The positions of the tokens, int64 [T]."""
        ...

    @property
    def mask(self) -> Mask:
        """Which tokens see which, as attention takes it."""
        ...

    def position_rows(self, table: str) -> Value:
        """The rows of a table of the checkpoint for the positions of the tokens: [T, D]."""
        ...

    def running_count(self, marks: Value) -> Value:
        """How many tokens of its text are marked up to each token, itself included: int64 [B, T], as `marks`."""
        ...

    def pool(self, tokens: Value, modes: Sequence[PoolingMode]) -> Value:
        """One vector for each text, of its tokens float32 [B, T, D]; a `Pool`."""
        ...


class PaddedInputs:
    """Token ids and masks of texts padded to one length."""

    def __init__(self, graph: Graph, *, causal: bool = False, one_segment: bool = False) -> None:
        self._causal, self._one_segment = causal, one_segment
        self._graph = graph
        self.input_ids = graph.input("input_ids", TensorProto.INT64, (B, T))
        self.attention_mask = graph.input("attention_mask", TensorProto.INT64, (B, T))

    @cached_property
    def token_type_ids(self) -> Value:
        """Segment ids; 0 for every token where all texts are of one segment, so that the graph does not take them."""
        if self._one_segment:
            return self._graph.op("Sub", self.input_ids, self.input_ids)
        return self._graph.input("token_type_ids", TensorProto.INT64, (B, T))

    @cached_property
    def positions(self) -> Value:
        """The positions of the tokens, int64 [T], counted from the first slot, padding included."""
        g = self._graph
        length = g.op("Squeeze", g.op("Shape", self.input_ids, start=1, end=2))
        return g.op("Range", g.integer(0), length, g.integer(1))

    @cached_property
    def mask(self) -> Mask:
        """Padding is masked; where attention is causal, so are later tokens."""
        return prepare_mask(self._graph, self.attention_mask, causal=self._causal)

    def position_rows(self, table: str) -> Value:
        """The rows of a table of the checkpoint for the positions of the tokens: [T, D]."""
        g = self._graph
        rows = g.rows(table, self.input_ids, axis=1)
        return g.hint_shape(rows, g.onnx_float, (T, g.weights.shape(table)[1]))

    def running_count(self, marks: Value) -> Value:
        """How many tokens of its text are marked up to each token, itself included: int64 [B, T], as `marks`."""
        return running_sum(self._graph, marks)

    def pool(self, tokens: Value, modes: Sequence[PoolingMode]) -> Value:
        """One vector for each text, of its tokens float32 [B, T, D]; a `Pool`."""
        return pooling.pool(self._graph, tokens, self.attention_mask, modes)

    def pool_without(self, token_id: int) -> Pool:
        """A `Pool` that leaves out every occurrence of one token."""
        g = self._graph
        others = g.op("Not", g.op("Equal", self.input_ids, g.integer(token_id)))
        mask = g.op("Mul", self.attention_mask, g.op("Cast", others, to=TensorProto.INT64))
        return partial(_pool_masked, g, mask)


@dataclass(frozen=True)
class Encoded:
    """A graph whose encoder has been written, for heads to go on with."""

    graph: Graph
    inputs: PaddedInputs
    tokens: Value
    """Token embeddings float32 [B, T, D]."""
    pool: Pool


def running_sum(g: Graph, x: Value) -> Value:
    """Sums of x [B, T] up to each token, itself included."""
    return g.op("CumSum", x, g.constant("axis_1", np.array(1, np.int64)))


def _pool_masked(g: Graph, mask: Value, tokens: Value, modes: Sequence[PoolingMode]) -> Value:
    return pooling.pool(g, tokens, mask, modes)
