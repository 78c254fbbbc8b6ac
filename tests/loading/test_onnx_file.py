"""Reading an ONNX file without the onnx package gives what the onnx package reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxembed.loading.onnx_file import QUANTIZED, Value, read_onnx


def operators(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from operators(inner)


@pytest.mark.parametrize(("precision", "weights"), [("model", "float32"), ("model_fp16", "float16")])
def test_a_graph_of_ours(artifact: Path, precision: str, weights: str) -> None:
    path = artifact / f"onnx/{precision}.onnx"
    graph_file, model = read_onnx(path), onnx.load(path)
    assert graph_file.producer == "onnxembed"
    assert [value.name for value in graph_file.inputs] == [value.name for value in model.graph.input]
    assert graph_file.inputs[0] == Value("input_ids", (None, None), "int64")
    assert graph_file.outputs == [
        Value("token_embeddings", (None, None, 32)),
        Value("sentence_embedding", (None, 32)),
    ]
    assert graph_file.operators == Counter(operators(model.graph))
    assert graph_file.weights == weights
    assert graph_file.data == set()
    matrices = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer if len(tensor.dims) > 1]
    assert graph_file.matrices.total() == sum(tensor.size for tensor in matrices)


def write(path: Path, *weights: onnx.TensorProto, listed: bool = False) -> Path:
    """A graph of one node; with `listed` its weights stand among the inputs, as in files of before 2020."""
    floats = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    inputs = [floats[0], *(helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in weights if listed)]
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "one", inputs, [floats[1]], initializer=weights)
    model = helper.make_model(graph, producer_name="somebody", producer_version="1.2")
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_are_not_inputs_and_shapes_may_be_absent(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((300, 2), np.float32), "w")
    graph_file = read_onnx(write(tmp_path / "old.onnx", weight, listed=True))
    assert graph_file.inputs == [Value("x", None)]
    assert graph_file.producer == "somebody 1.2"
    assert graph_file.matrices == {"float32": 600}


def test_one_quantized_weight_makes_a_graph_quantized(tmp_path: Path) -> None:
    large = numpy_helper.from_array(np.ones((9, 9), np.float32), "large")
    small = numpy_helper.from_array(np.ones((2, 2), np.int8), "small")
    indices = numpy_helper.from_array(np.ones((9, 99), np.int64), "indices")
    assert read_onnx(write(tmp_path / "a.onnx", large, small, indices)).weights == QUANTIZED
    assert read_onnx(write(tmp_path / "b.onnx", large, indices)).weights == "float32"
    assert read_onnx(write(tmp_path / "c.onnx", indices)).weights is None


def test_files_that_hold_weights_are_named(tmp_path: Path) -> None:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT16, dims=(3, 5), data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="offset", value="0")
    weight.external_data.add(key="location", value="folder/w.bin")
    graph_file = read_onnx(write(tmp_path / "a.onnx", weight))
    assert graph_file.data == {"folder/w.bin"}
    assert graph_file.weights == "float16"


def test_constants_are_read_wherever_they_stand(tmp_path: Path) -> None:
    """Weights, Constant nodes, and Identity nodes over them; in raw bytes and in fields of their own."""
    values = {
        "raw": numpy_helper.from_array(np.array([1.5, -2], np.float32), "raw"),
        "floats": helper.make_tensor("floats", TensorProto.FLOAT, (2,), [0.25, 3]),
        "doubles": helper.make_tensor("doubles", TensorProto.DOUBLE, (1,), [0.1]),
        "small": helper.make_tensor("small", TensorProto.INT8, (3,), [-1, 0, 127]),
        "large": helper.make_tensor("large", TensorProto.INT64, (), [-(2**40)]),
        "half": numpy_helper.from_array(np.array(0.5, np.float16), "half"),
    }
    nodes = [helper.make_node("Constant", [], [f"{name}_node"], value=tensor) for name, tensor in values.items()]
    nodes += [helper.make_node("Identity", [f"{name}_node"], [f"{name}_same"]) for name in values]
    nodes.append(helper.make_node("Identity", ["x"], ["y"]))
    floats = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "constants", floats[:1], floats[1:], initializer=list(values.values()))
    path = tmp_path / "constants.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    graph_file = read_onnx(path)
    for name, tensor in values.items():
        expected = numpy_helper.to_array(tensor)
        for place in (name, f"{name}_node", f"{name}_same"):
            found = graph_file.constant(place)
            assert found is not None
            assert found.dtype == expected.dtype
            assert np.array_equal(found, expected)
    assert graph_file.constant("x") is None
    assert graph_file.constant("y") is None
