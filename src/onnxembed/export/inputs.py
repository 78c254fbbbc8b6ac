"""The inputs a graph may take, named as transformers names them; each is declared when it is first used."""

from __future__ import annotations

from functools import cached_property

from onnx import TensorProto

from onnxembed.export.attention import Mask, prepare_mask
from onnxembed.export.graph import Graph, Value

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
    def mask(self) -> Mask:
        """The mask as attention wants it."""
        return prepare_mask(self._graph, self.attention_mask, causal=self._causal)
