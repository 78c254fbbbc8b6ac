"""An int8 graph whose weights can be switched to 16 or 8 bits at run time, to measure what each one costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
from onnx import TensorProto

from onnxembed.arrays import FloatArray
from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.export.graph.graph import Value
from onnxembed.export.quantize.int8 import Int8Graph
from onnxembed.export.quantize.rounding import ActivationQuant, BuildModel, QuantPlan


class GatedGraph(Int8Graph):
    """An int8 graph with every weight in high precision, and a gate for each key: 1 leaves it so, 0 makes it 8-bit."""

    def __init__(self, weights: Checkpoint, activations: Mapping[str, ActivationQuant]) -> None:
        super().__init__(weights, QuantPlan(activations))
        self.keys: list[str] = []

    @classmethod
    def of_model(cls, build: BuildModel, activations: Mapping[str, ActivationQuant]) -> Self:
        """The whole graph of a model."""
        graph = build(lambda weights: cls(weights, activations))
        assert isinstance(graph, cls)
        return graph

    def is_high_precision(self, key: str) -> bool:
        """Always True; the gate of `key` decides at run time."""
        return True

    def embedding(self, name: str, ids: Value) -> Value:
        """Rows of the table in 8 bits, plus what 16 bits add times the gate."""
        coarse = self.table(name, ids, np.int8)
        residual = self.op("Sub", self.table(name, ids, np.int16), coarse)
        return self.op("Add", coarse, self.gated(name, residual), name=name)

    def gated(self, key: str, residual: Value) -> Value:
        """The residual times the gate of `key`."""
        if key not in self.keys:
            self.keys.append(key)
            self.input(f"gate:{key}", TensorProto.FLOAT, ())
        return self.op("Mul", residual, f"gate:{key}")

    def gates(self, high_precision: frozenset[str]) -> dict[str, FloatArray]:
        """The gates that make the graph compute as a plan with these keys in high precision would."""
        return {f"gate:{key}": np.array(key in high_precision, np.float32) for key in self.keys}
