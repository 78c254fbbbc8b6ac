"""`--precision int16`: every product of a Linear multiplies 16-bit integers, computed as products of single bytes.

Each value is stored in two bytes. The first is the value divided by its token's scale and rounded; the second is what
rounding left over, with a scale RESIDUAL times smaller. Each weight is stored the same way, with a scale for each
output. Of the four products of those bytes, that of the two residuals is too small to matter. The two products of a
first byte and a residual share their scales, so they are computed as one product of bytes laid side by side. On CPUs
that multiply bytes many times as fast as floats (see `int8`) this is faster than fp32. Tables of embeddings take two
bytes, too. Nothing is calibrated, because there is nothing to choose.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from onnxembed.arrays import Array
from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.export.graph.graph import Value
from onnxembed.export.quantize.int8 import Int8Graph
from onnxembed.export.quantize.rounding import (
    BYTE,
    RESIDUAL,
    ActivationQuant,
    QuantPlan,
    product_key,
    rounded_residual,
    rounded_rows,
    row_scales,
)

SYMMETRIC = ActivationQuant(zero_point=BYTE + 1)
"""Zero is in the middle, because residuals have either sign."""


class Int16Graph(Int8Graph):
    """A graph whose products and embeddings are 16-bit."""

    def __init__(self, weights: Checkpoint) -> None:
        super().__init__(weights, QuantPlan({}))
        self._split_values: dict[Value, tuple[Value, Value, Value]] = {}

    def is_high_precision(self, key: str) -> bool:
        """Always True: everything takes 16 bits."""
        return True

    def product(self, x: Value, name: str, rows: slice | None = None) -> Value:
        """x @ W.T in integers: x [..., K] -> [..., N]."""
        key = product_key(name, rows)
        outputs, inputs = self._shape(name, rows)

        def read() -> Array:
            return self._matrix(name, rows)

        def both_bytes() -> Array:
            return np.concatenate([rounded_rows(read()), rounded_residual(read())], axis=1).astype(np.int8).T

        weights = self._deferred(
            f"{key}.int8x2", TensorProto.INT8, (2 * inputs, outputs), lambda: np.ascontiguousarray(both_bytes())
        )
        coarse = self._deferred(f"{key}.steps", TensorProto.FLOAT, (outputs,), lambda: row_scales(read()))
        fine = self._deferred(f"{key}.fine", TensorProto.FLOAT, (outputs,), lambda: row_scales(read()) / RESIDUAL)
        first, residual_and_first, value_scales = self._split(x, inputs)
        upper = self.op("Slice", weights, self.integers(0), self.integers(inputs), self.integers(0))
        product = self.op(
            "Add",
            self._multiply(first, upper, coarse, SYMMETRIC),
            self._multiply(residual_and_first, weights, fine, SYMMETRIC),
        )
        return self._scaled(product, value_scales, x, outputs, name)

    def _split(self, x: Value, width: int) -> tuple[Value, Value, Value]:
        """The bytes of x [..., K], computed once for all its readers.

        Returns the first bytes [rows, K]; residuals and first bytes side by side [rows, 2K]; and the scale of each
        row's first bytes [rows, 1].
        """
        if x not in self._split_values:
            flat = self.op("Reshape", x, self.integers(-1, width))
            reach = self.op("ReduceMax", self.op("Abs", flat), self.integers(-1))
            scales = self.op("Max", self.op("Mul", reach, self.float32(1 / BYTE)), self.float32(1e-20))
            flat_scales = self.op("Reshape", scales, self.integers(-1))
            zeros = self.op("Expand", self._zero_point(SYMMETRIC), self.op("Shape", flat_scales))
            first = self.op("QuantizeLinear", flat, flat_scales, zeros, axis=0)
            left_over = self.op("Sub", flat, self.op("DequantizeLinear", first, flat_scales, zeros, axis=0))
            fine_scales = self.op("Mul", flat_scales, self.float32(1 / RESIDUAL))
            residual = self.op("QuantizeLinear", left_over, fine_scales, zeros, axis=0)
            self._split_values[x] = first, self.op("Concat", residual, first, axis=1), scales
        return self._split_values[x]
