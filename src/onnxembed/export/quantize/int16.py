"""`--precision int16`: every product of a Linear multiplies integers of two bytes, made of products of single bytes.

A value is whole steps of its token, in one byte, and in the other what they leave over, in steps REST times finer; a
weight is the same in steps of its output. Of the four products of those bytes the one of both rests is too fine to
matter; the two that are REST times finer than the first have the same steps, so they are one product of bytes laid
side by side. CPUs that multiply bytes many times as fast as floats (see `int8`) are faster for it than in fp32.
Tables of embeddings take two bytes, too. Nothing is calibrated: there is nothing to choose.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.export.graph.graph import Array, Value
from onnxembed.export.quantize.int8 import Int8Graph
from onnxembed.export.quantize.plan import BYTE, REST, Plan, Site, product_key, rounded_rest, rounded_rows, row_scales

SITE = Site(zero_point=BYTE + 1)  # in the middle, for what is left over has either sign


class Int16Graph(Int8Graph):
    """A graph whose products and embeddings are 16-bit."""

    def __init__(self, weights: Checkpoint) -> None:
        super().__init__(weights, Plan({}))
        self._split_values: dict[Value, tuple[Value, Value, Value]] = {}

    def is_wide(self, key: str) -> bool:
        """Everything takes 16 bits."""
        return True

    def product(self, x: Value, name: str, rows: slice | None = None) -> Value:
        """x @ W.T in integers: x [..., K] -> [..., N]."""
        key = product_key(name, rows)
        outputs, inputs = self._shape(name, rows)

        def read() -> Array:
            return self._matrix(name, rows)

        def both() -> Array:
            return np.concatenate([rounded_rows(read()), rounded_rest(read())], axis=1).astype(np.int8).T

        weights = self._deferred(
            f"{key}.int8x2", TensorProto.INT8, (2 * inputs, outputs), lambda: np.ascontiguousarray(both())
        )
        coarse = self._deferred(f"{key}.steps", TensorProto.FLOAT, (outputs,), lambda: row_scales(read()))
        fine = self._deferred(f"{key}.fine", TensorProto.FLOAT, (outputs,), lambda: row_scales(read()) / REST)
        first, rest_and_first, steps = self._split(x, inputs)
        upper = self.op("Slice", weights, self.integers(0), self.integers(inputs), self.integers(0))
        product = self.op(
            "Add",
            self._multiply(first, upper, coarse, SITE),
            self._multiply(rest_and_first, weights, fine, SITE),
        )
        return self._scaled(product, steps, x, outputs, name)

    def _split(self, x: Value, width: int) -> tuple[Value, Value, Value]:
        """Bytes of x [..., K], once for all its readers: its first [rows, K]; its rest and its first, side by side
        [rows, 2K]; and the step of each row's first ones [rows, 1].
        """
        if x not in self._split_values:
            flat = self.op("Reshape", x, self.integers(-1, width))
            reach = self.op("ReduceMax", self.op("Abs", flat), self.integers(-1))
            steps = self.op("Max", self.op("Mul", reach, self.float32(1 / BYTE)), self.float32(1e-20))
            row_steps = self.op("Reshape", steps, self.integers(-1))
            zeros = self.op("Expand", self._zero_point(SITE), self.op("Shape", row_steps))
            first = self.op("QuantizeLinear", flat, row_steps, zeros, axis=0)
            left_over = self.op("Sub", flat, self.op("DequantizeLinear", first, row_steps, zeros, axis=0))
            finer = self.op("Mul", row_steps, self.float32(1 / REST))
            rest = self.op("QuantizeLinear", left_over, finer, zeros, axis=0)
            self._split_values[x] = first, self.op("Concat", rest, first, axis=1), steps
        return self._split_values[x]
