"""`--precision int8`: every product of a Linear multiplies 8-bit integers, and tables of embeddings are 8-bit.

A token's values become unsigned integers in steps of its own (its largest value decides), so that no token, and
no other text, changes another's vector. Weights are signed, in steps of their own for each output, and outliers
of the values are smoothed into them (SmoothQuant, https://arxiv.org/abs/2211.10438). Everything between the
products stays float32.

Unsigned times signed is what CPUs are fast at: AMX, AVX-512 VNNI and AVX-VNNI on x86, dot products on ARM. An
x86 CPU without any of these (before 2019) adds pairs of products in 16 bits, which overflow: there, use fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.export.graph.graph import MICROSOFT, Array, Graph, Initializer, Value
from onnxembed.export.quantize.plan import (
    REST,
    Plan,
    Site,
    product_key,
    rounded_rest,
    rounded_rows,
    row_scales,
)

STEPS = 255


class Int8Graph(Graph):
    """A graph whose products and embeddings are 8-bit, as a plan says."""

    def __init__(self, weights: Checkpoint, plan: Plan) -> None:
        super().__init__(weights, "fp32")
        self._plan = plan
        self._quantized: dict[tuple[Value, int], tuple[Value, Value]] = {}

    def is_wide(self, key: str) -> bool:
        """Whether a product's weight, or a table, takes 16 bits instead of 8."""
        return key in self._plan.wide

    def gated(self, key: str, rest: Value) -> Value:
        """What the second byte of the weight adds to a product."""
        return rest

    def embedding(self, name: str, ids: Value) -> Value:
        """Rows of an integer table, each with its own step: ids [B, T] -> [B, T, D]."""
        return self.table(name, ids, np.int16 if self.is_wide(name) else np.int8)

    def table(self, name: str, ids: Value, dtype: type[np.integer[Any]]) -> Value:
        """`embedding` in one integer type."""
        return integer_table(self, name, ids, np.dtype(dtype))

    def product(self, x: Value, name: str, rows: slice | None = None) -> Value:
        """x @ W.T in integers: x [..., K] -> [..., N]."""
        key = product_key(name, rows)
        site = self._plan.sites[key]
        outputs, inputs = self._shape(name, rows)
        integers, steps = self._quantize(x, site, inputs)

        def read() -> Array:
            weight = self._matrix(name, rows)
            return weight if site.smoothing is None else weight * site.smoothing

        scales = self._deferred(f"{key}.steps", TensorProto.FLOAT, (outputs,), lambda: row_scales(read()))
        weight = self._deferred(
            f"{key}.int8",
            TensorProto.INT8,
            (inputs, outputs),
            lambda: np.ascontiguousarray(rounded_rows(read()).astype(np.int8).T),
        )
        product = self._multiply(integers, weight, scales, site)
        if self.is_wide(key):
            fine = self._deferred(f"{key}.fine", TensorProto.FLOAT, (outputs,), lambda: row_scales(read()) / REST)
            rest = self._deferred(
                f"{key}.rest",
                TensorProto.INT8,
                (inputs, outputs),
                lambda: np.ascontiguousarray(rounded_rest(read()).astype(np.int8).T),
            )
            product = self.op("Add", product, self.gated(key, self._multiply(integers, rest, fine, site)))
        return self._scaled(product, steps, x, outputs, name)

    def _shape(self, name: str, rows: slice | None) -> tuple[int, int]:
        """Outputs and inputs of a Linear, or of some of its rows."""
        outputs, inputs = self.weights.shape(f"{name}.weight")
        return len(range(outputs)[rows or slice(None)]), inputs

    def _matrix(self, name: str, rows: slice | None) -> Array:
        """The weight of a Linear, or some of its rows, float32 (out, in)."""
        return np.asarray(self.weights.read(f"{name}.weight"), np.float32)[rows or slice(None)]

    def _scaled(self, product: Value, steps: Value, x: Value, outputs: int, name: str) -> Value:
        """A product [rows, N] in the steps of its rows [rows, 1] as one of x [..., K]: [..., N]."""
        product = self.op("Mul", product, steps, name=name)
        shape = self.op("Concat", self.op("Shape", x, end=-1), self.integers(outputs), axis=0)
        return self.op("Reshape", product, shape)

    def _quantize(self, x: Value, site: Site, width: int) -> tuple[Value, Value]:
        """x [..., K] as integers uint8 [rows, K], and the step of each row [rows, 1]; once for all its readers."""
        if (known := self._quantized.get((x, id(site)))) is not None:
            return known
        smooth = x
        if site.smoothing is not None:
            inverse = self.constant(f"smoothing_{len(self._quantized)}", (1 / site.smoothing).astype(np.float32))
            smooth = self.op("Mul", x, inverse)
        flat = self.op("Reshape", smooth, self.integers(-1, width))
        last = self.integers(-1)
        above = self.op("Mul", self.op("ReduceMax", flat, last), self.float32(1 / (STEPS - site.zero_point)))
        below = self.op("Mul", self.op("ReduceMin", flat, last), self.float32(-1 / site.zero_point))
        steps = self.op("Max", above, below, self.float32(1e-20))
        row_steps = self.op("Reshape", steps, last)
        zeros = self.op("Expand", self._zero_point(site), self.op("Shape", row_steps))
        integers = self.op("QuantizeLinear", flat, row_steps, zeros, axis=0)
        self._quantized[x, id(site)] = integers, steps
        return integers, steps

    def _multiply(self, integers: Value, weight: Value, scales: Value, site: Site) -> Value:
        inputs = [integers, weight, self.float32(1.0), scales, self._zero_point(site)]
        return self.op("MatMulIntegerToFloat", *inputs, domain=MICROSOFT)

    def _zero_point(self, site: Site) -> Value:
        return self.constant(f"uint8_{site.zero_point}", np.array(site.zero_point, np.uint8))

    def _deferred(self, name: str, onnx_type: int, shape: tuple[int, ...], read: Callable[[], Array]) -> Value:
        self.initializers[name] = Initializer(name, onnx_type, shape, read)
        return name


def integer_table(g: Graph, name: str, ids: Value, dtype: np.dtype[Any]) -> Value:
    """Rows of a table of the checkpoint, stored in an integer type with a step for each row: [B, T] -> [B, T, D]."""
    stored = f"{name}.weight"
    largest = int(np.iinfo(dtype).max)

    def read() -> Array:
        return np.asarray(g.weights.read(stored), np.float32)

    rows, width = g.weights.shape(stored)
    integers, steps = f"{stored}.{dtype}", f"{stored}.{dtype}.steps"
    onnx_type = helper.np_dtype_to_tensor_dtype(dtype)
    g.initializers[integers] = Initializer(
        integers, onnx_type, (rows, width), lambda: rounded_rows(read(), largest).astype(dtype)
    )
    g.initializers[steps] = Initializer(
        steps, TensorProto.FLOAT, (rows, 1), lambda: row_scales(read(), largest)[:, None]
    )
    values = g.op("Cast", g.op("Gather", integers, ids), to=TensorProto.FLOAT)
    return g.op("Mul", values, g.op("Gather", steps, ids), name=name)
