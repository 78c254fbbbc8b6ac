"""The inputs a graph may take, named as transformers names them; each is declared when it is first used."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from onnx import TensorProto

from onnxembed.export.graph import pooling as heads
from onnxembed.export.graph.attention import Mask, prepare_mask
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.manifest import PoolingMode

B, T = "batch", "sequence"


class Inputs:
    """Token ids and masks, int64 [B, T], and what is derived from them once for all layers."""

    def __init__(self, graph: Graph, *, causal: bool = False) -> None:
        self._causal = causal
        self._graph = graph
        self.input_ids = graph.input("input_ids", TensorProto.INT64, (B, T))
        self.attention_mask = graph.input("attention_mask", TensorProto.INT64, (B, T))
        self.pooled = self.attention_mask  # an architecture may leave more tokens out of the pooling

    @cached_property
    def token_type_ids(self) -> Value:
        """Segment ids; a graph whose architecture has one segment does not take them."""
        return self._graph.input("token_type_ids", TensorProto.INT64, (B, T))

    @cached_property
    def positions(self) -> Value:
        """The positions of the tokens, int64 [T]: they count from the first slot, padding included."""
        g = self._graph
        length = g.op("Squeeze", g.op("Shape", self.input_ids, start=1, end=2))
        return g.op("Range", g.integer(0), length, g.integer(1))

    def position_rows(self, table: str) -> Value:
        """The rows of a table of the checkpoint for the positions of the tokens: [T, D]."""
        g = self._graph
        return g.hint_shape(g.rows(table, self.input_ids, axis=1), g.onnx_float, (T, g.weights.shape(table)[1]))

    def counted(self, marks: Value) -> Value:
        """How many tokens of its text are marked up to each token, itself included: int64 [B, T], as `marks`."""
        return self._graph.op("CumSum", marks, self._graph.constant("axis_1", np.array(1, np.int64)))

    def mask_without(self, token_id: int) -> Value:
        """The attention mask int64 [B, T] with every occurrence of one token masked too."""
        g = self._graph
        others = g.op("Not", g.op("Equal", self.input_ids, g.integer(token_id)))
        return g.op("Mul", self.attention_mask, g.op("Cast", others, to=TensorProto.INT64))

    def pool(self, tokens: Value, modes: Sequence[PoolingMode]) -> Value:
        """One vector for each text, of its tokens float32 [B, T, D]."""
        return heads.pool(self._graph, tokens, self.pooled, modes)

    @cached_property
    def mask(self) -> Mask:
        """The mask as attention wants it."""
        return prepare_mask(self._graph, self.attention_mask, causal=self._causal)
