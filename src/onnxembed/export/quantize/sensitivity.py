"""An int8 graph in which every product can be made wide or narrow at run time, to measure what each one costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.quantize.int8 import Int8Graph
from onnxembed.export.quantize.plan import Plan, Site


class GatedGraph(Int8Graph):
    """An int8 graph with everything wide, and a gate for each key: 1 keeps it wide, 0 makes it narrow."""

    def __init__(self, weights: Checkpoint, sites: Mapping[str, Site]) -> None:
        super().__init__(weights, Plan(sites))
        self.keys: list[str] = []

    @classmethod
    def made(cls, build: Callable[[Callable[[Checkpoint], Graph]], Graph], sites: Mapping[str, Site]) -> Self:
        """The whole graph of a model."""
        graph = build(lambda weights: cls(weights, sites))
        assert isinstance(graph, cls)
        return graph

    def is_wide(self, key: str) -> bool:
        """Every key is; its gate narrows it."""
        return True

    def embedding(self, name: str, ids: Value) -> Value:
        """Rows of the table in 8 bits, and what 16 bits add, times the gate."""
        narrow = self.table(name, ids, np.int8)
        rest = self.op("Sub", self.table(name, ids, np.int16), narrow)
        return self.op("Add", narrow, self.gated(name, rest), name=name)

    def gated(self, key: str, rest: Value) -> Value:
        """The rest times the gate of `key`."""
        if key not in self.keys:
            self.keys.append(key)
            self.input(f"gate:{key}", TensorProto.FLOAT, ())
        return self.op("Mul", rest, f"gate:{key}")

    def gates(self, wide: frozenset[str]) -> dict[str, NDArray[np.float32]]:
        """What to feed so that the graph is as a plan with these wide."""
        return {f"gate:{key}": np.array(key in wide, np.float32) for key in self.keys}
