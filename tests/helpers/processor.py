"""What this machine's processor computes correctly."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


@cache
def adds_bytes_exactly() -> bool:
    """Whether ONNX Runtime adds up products of bytes exactly here.

    On x86 processors without VNNI two neighboring products are added in 16 bits, where large ones saturate.
    """
    values, weights = np.full((1, 64), 255, np.uint8), np.full((64, 16), 127, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "weights"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, values.shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT32, (1, 16))],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (sums,) = session.run(["y"], {"x": values})
    return bool(np.array_equal(sums, values.astype(np.int32) @ weights.astype(np.int32)))
