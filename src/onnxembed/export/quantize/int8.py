"""`--precision int8`: every product of a Linear multiplies 8-bit integers, and tables of embeddings are 8-bit.

Values become unsigned integers. Each token has its own scale, set by its largest value, so that no token and
no other text changes its vector. Weights are signed integers, with a scale for each output. Outliers among the values
are smoothed into the weights (SmoothQuant, https://arxiv.org/abs/2211.10438). Everything between the products stays
float32.

CPUs are fast at multiplying unsigned by signed bytes: AMX, AVX-512 VNNI and AVX-VNNI on x86, dot products on ARM.
An x86 CPU without any of these (before 2019) adds pairs of products in 16 bits, which overflow: use fp32 there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from onnxembed.arrays import Array
from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.export.graph.graph import MICROSOFT, Graph, Initializer, Value
from onnxembed.export.quantize.rounding import (
    RESIDUAL,
    ActivationQuant,
    QuantPlan,
    product_key,
    rounded_residual,
    rounded_rows,
    row_scales,
)

UINT8_MAX = 255


class Int8Graph(Graph):
    """A graph whose products and embeddings are 8-bit, except those that a plan keeps in high precision."""

    def __init__(self, weights: Checkpoint, plan: QuantPlan) -> None:
        super().__init__(weights, "fp32")
        self._plan = plan
        self._quantized: dict[tuple[Value, int], tuple[Value, Value]] = {}

    def is_high_precision(self, key: str) -> bool:
        """Whether a product's weight, or a table, takes 16 bits instead of 8."""
        return key in self._plan.high_precision

    def gated(self, key: str, residual: Value) -> Value:
        """What the second byte of a weight adds to the product `key`."""
        return residual

    def embedding(self, name: str, ids: Value) -> Value:
        """Rows of an integer table, each with its own scale: ids [B, T] -> [B, T, D]."""
        return self.table(name, ids, np.int16 if self.is_high_precision(name) else np.int8)

    def table(self, name: str, ids: Value, dtype: type[np.integer[Any]]) -> Value:
        """`embedding` in the given integer type."""
        return integer_table(self, name, ids, np.dtype(dtype))

    def product(self, x: Value, name: str, rows: slice | None = None) -> Value:
        """x @ W.T in integers: x [..., K] -> [..., N]."""
        key = product_key(name, rows)
        quant = self._plan.activations[key]
        outputs, inputs = self._shape(name, rows)
        integers, value_scales = self._quantize(x, quant, inputs)

        def read() -> Array:
            weight = self._matrix(name, rows)
            return weight if quant.smoothing is None else weight * quant.smoothing

        def multiply(integer_name: str, rounded: Callable[[Array], Array], scales: Value) -> Value:
            weight = self._deferred(
                integer_name,
                TensorProto.INT8,
                (inputs, outputs),
                lambda: np.ascontiguousarray(rounded(read()).astype(np.int8).T),
            )
            return self._multiply(integers, weight, scales, quant)

        scales = self._deferred(f"{key}.steps", TensorProto.FLOAT, (outputs,), lambda: row_scales(read()))
        product = multiply(f"{key}.int8", rounded_rows, scales)
        if self.is_high_precision(key):
            fine = self._deferred(f"{key}.fine", TensorProto.FLOAT, (outputs,), lambda: row_scales(read()) / RESIDUAL)
            residual = multiply(f"{key}.rest", rounded_residual, fine)
            product = self.op("Add", product, self.gated(key, residual))
        return self._scaled(product, value_scales, x, outputs, name)

    def _shape(self, name: str, rows: slice | None) -> tuple[int, int]:
        """Outputs and inputs of a Linear, or of some of its rows."""
        outputs, inputs = self.weights.shape(f"{name}.weight")
        return len(range(outputs)[rows or slice(None)]), inputs

    def _matrix(self, name: str, rows: slice | None) -> Array:
        """The weight of a Linear, or some of its rows, float32 [N, K]."""
        return np.asarray(self.weights.read(f"{name}.weight"), np.float32)[rows or slice(None)]

    def _scaled(self, product: Value, scales: Value, x: Value, outputs: int, name: str) -> Value:
        """A product [rows, N] times the scales of its rows [rows, 1], in the shape that x [..., K] has: [..., N]."""
        product = self.op("Mul", product, scales, name=name)
        shape = self.op("Concat", self.op("Shape", x, end=-1), self.integers(outputs), axis=0)
        return self.op("Reshape", product, shape)

    def _quantize(self, x: Value, quant: ActivationQuant, width: int) -> tuple[Value, Value]:
        """x [..., K] as uint8 [rows, K], and the scale of each row [rows, 1]; computed once for all its readers."""
        if (quantized := self._quantized.get((x, id(quant)))) is not None:
            return quantized
        smooth = x
        if quant.smoothing is not None:
            inverse = self.constant(f"smoothing_{len(self._quantized)}", (1 / quant.smoothing).astype(np.float32))
            smooth = self.op("Mul", x, inverse)
        flat = self.op("Reshape", smooth, self.integers(-1, width))
        last = self.integers(-1)
        above = self.op("Mul", self.op("ReduceMax", flat, last), self.float32(1 / (UINT8_MAX - quant.zero_point)))
        below = self.op("Mul", self.op("ReduceMin", flat, last), self.float32(-1 / quant.zero_point))
        scales = self.op("Max", above, below, self.float32(1e-20))
        flat_scales = self.op("Reshape", scales, last)
        zeros = self.op("Expand", self._zero_point(quant), self.op("Shape", flat_scales))
        integers = self.op("QuantizeLinear", flat, flat_scales, zeros, axis=0)
        self._quantized[x, id(quant)] = integers, scales
        return integers, scales

    def _multiply(self, integers: Value, weight: Value, scales: Value, quant: ActivationQuant) -> Value:
        """Integers [rows, K] times a weight [K, N] with a scale for each output [N]: [rows, N]."""
        inputs = [integers, weight, self.float32(1.0), scales, self._zero_point(quant)]
        return self.op("MatMulIntegerToFloat", *inputs, domain=MICROSOFT)

    def _zero_point(self, quant: ActivationQuant) -> Value:
        return self.constant(f"uint8_{quant.zero_point}", np.array(quant.zero_point, np.uint8))

    def _deferred(self, name: str, onnx_type: int, shape: tuple[int, ...], read: Callable[[], Array]) -> Value:
        """An initializer that is computed when the graph is written."""
        self.initializers[name] = Initializer(name, onnx_type, shape, read)
        return name


def integer_table(g: Graph, name: str, ids: Value, dtype: np.dtype[Any]) -> Value:
    """Rows of a table of the checkpoint, stored as integers with a scale for each row: [B, T] -> [B, T, D]."""
    stored = f"{name}.weight"
    largest = int(np.iinfo(dtype).max)

    def read() -> Array:
        return np.asarray(g.weights.read(stored), np.float32)

    rows, width = g.weights.shape(stored)
    integers, scales = f"{stored}.{dtype}", f"{stored}.{dtype}.steps"
    onnx_type = helper.np_dtype_to_tensor_dtype(dtype)
    g.initializers[integers] = Initializer(
        integers, onnx_type, (rows, width), lambda: rounded_rows(read(), largest).astype(dtype)
    )
    g.initializers[scales] = Initializer(
        scales, TensorProto.FLOAT, (rows, 1), lambda: row_scales(read(), largest)[:, None]
    )
    values = g.op("Cast", g.op("Gather", integers, ids), to=TensorProto.FLOAT)
    return g.op("Mul", values, g.op("Gather", scales, ids), name=name)
