"""The graphs that measure how fast the machine multiplies matrices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 1024


def write(folder: Path) -> dict[str, str]:
    """The files of a float32 product and of an integer one (unsigned activations, signed weights), by kind."""
    chance = np.random.default_rng(0)
    fp32 = [numpy_helper.from_array(chance.standard_normal((SIZE, SIZE), np.float32), "weight")]
    int8 = [
        numpy_helper.from_array(chance.integers(-127, 128, (SIZE, SIZE), np.int8), "weight"),
        numpy_helper.from_array(np.array(128, np.uint8), "zero_point"),
    ]
    product = helper.make_node("MatMul", ["left", "weight"], ["out"])
    integers = helper.make_node("MatMulInteger", ["left", "weight", "zero_point"], ["out"])
    return {
        "fp32": _write(folder / "fp32.onnx", product, fp32, TensorProto.FLOAT, TensorProto.FLOAT),
        "int8": _write(folder / "int8.onnx", integers, int8, TensorProto.UINT8, TensorProto.INT32),
    }


def _write(path: Path, node: onnx.NodeProto, weights: list[onnx.TensorProto], into: int, out: int) -> str:
    shape = [SIZE, SIZE]
    inputs = [helper.make_tensor_value_info("left", into, shape)]
    outputs = [helper.make_tensor_value_info("out", out, shape)]
    graph = helper.make_graph([node], "roof", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return str(path)
