"""`--precision int8w`: weights are stored in 8 bits and multiplied in blocks, each with its own scale.

It uses ONNX Runtime's MatMulNBits (https://github.com/microsoft/onnxruntime, docs/ContribOperators.md) at accuracy
level 4, which rounds values to 8 bits in the same blocks, row by row, so that no text changes another's vector.
It is closer to fp32 than `int8`, and slower. Tables of embeddings take 16 bits.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from onnxembed.arrays import Array
from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.export.graph.graph import MICROSOFT, Graph, Initializer, Value
from onnxembed.export.quantize.int8 import integer_table
from onnxembed.export.quantize.rounding import product_key, rounded_rows, row_scales

BLOCK = 32
"""Input channels that share a scale."""

ZERO_POINT = 128
"""The integer that stands for 0: the operator's default."""


class Int8WGraph(Graph):
    """A graph whose Linears' weights are stored in blocks of 8-bit integers."""

    def __init__(self, weights: Checkpoint) -> None:
        super().__init__(weights, "fp32")

    def embedding(self, name: str, ids: Value) -> Value:
        """Rows of a 16-bit table: ids [B, T] -> [B, T, D]."""
        return integer_table(self, name, ids, np.dtype(np.int16))

    def product(self, x: Value, name: str, rows: slice | None = None) -> Value:
        """x @ W.T with W in blocks of input channels: x [..., K] -> [..., N]."""
        outputs, inputs = self.weights.shape(f"{name}.weight")
        outputs = len(range(outputs)[rows]) if rows else outputs
        count = -(-inputs // BLOCK)

        def blocks() -> Array:
            weight = np.asarray(self.weights.read(f"{name}.weight"), np.float32)
            weight = weight if rows is None else weight[rows]
            return np.pad(weight, ((0, 0), (0, count * BLOCK - inputs))).reshape(-1, BLOCK)

        def integers() -> Array:
            return (rounded_rows(blocks()) + ZERO_POINT).astype(np.uint8).reshape(outputs, count, BLOCK)

        key = product_key(name, rows)
        weight, scales = f"{key}.uint8", f"{key}.steps"
        self.initializers[weight] = Initializer(weight, TensorProto.UINT8, (outputs, count, BLOCK), integers)
        self.initializers[scales] = Initializer(
            scales, TensorProto.FLOAT, (outputs, count), lambda: row_scales(blocks()).reshape(outputs, count)
        )
        sizes = {"K": inputs, "N": outputs, "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
        return self.op("MatMulNBits", x, weight, scales, domain=MICROSOFT, name=name, **sizes)
