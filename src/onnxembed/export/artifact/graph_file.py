"""A graph and its weights on disk: small weights inside the .onnx file, large ones beside it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxembed.export.artifact.hashing import HashedFile
from onnxembed.export.graph.graph import IR_VERSION, Graph, Initializer
from onnxembed.manifest import FileRecord, PackedGraph, Precision, Variant, graph_file
from onnxembed.progress import Progress

# Up to this size weights lie inside the .onnx file, which is then one file to copy; above it, in a file
# beside it, which may pass 2 GiB. ONNX Runtime maps that file, and shares its pages among processes, where it
# would hold weights that lie inside in memory (all-MiniLM-L6-v2: 32 MB instead of 120, opened in a third of the time).
INLINE_LIMIT = 16 * 2**20


PAGE = 4096


def write_packed(graph: Graph, folder: Path, variant: Variant) -> Variant:
    """Write a variant's packed form, whose large weights are those of its data file; returns the variant with it."""
    stored = onnx.load(folder / variant.file, load_external_data=False).graph.initializer
    outside = {tensor.name: tensor for tensor in stored if tensor.data_location == TensorProto.EXTERNAL}
    model = _model(graph)
    weights = graph.initializers.values()
    model.graph.initializer.extend(outside.get(weight.name) or _inline(weight) for weight in weights)
    file = f"{variant.file.removesuffix('.onnx')}_packed.onnx"
    (folder / file).write_bytes(model.SerializeToString(deterministic=True))
    operators = graph.operators()
    return replace(variant, packed=PackedGraph(file, sum(operators.values()), operators))


def _model(graph: Graph) -> onnx.ModelProto:
    """The model around a graph, without its weights."""
    return helper.make_model(
        graph.proto("onnxembed"),
        ir_version=IR_VERSION,
        producer_name="onnxembed",
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in graph.opsets.items()],
    )


def write_graph(
    graph: Graph,
    folder: Path,
    precision: Precision,
    progress: Progress,
    records: dict[str, FileRecord] | None = None,
) -> Variant:
    """Write one graph and its weights, reading one tensor at a time; returns its manifest entry.

    `records` receives the record of the weights file, which is hashed while it is written.
    """
    file = graph_file(precision)
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    weights, total = list(graph.initializers.values()), weights_size(graph)
    data = f"{file}_data" if total > INLINE_LIMIT else None
    model = _model(graph)
    written = 0
    with HashedFile(folder / data) if data else nullcontext() as out:
        for weight in weights:
            model.graph.initializer.append(_external(weight, out) if out else _inline(weight))
            written += _size(weight)
            progress(f"writing {precision} weights", written, total)
        if data and out and records is not None:
            records[data] = out.record()
    path.write_bytes(model.SerializeToString(deterministic=True))
    operators = graph.operators()
    return Variant(file=file, data=data, nodes=sum(operators.values()), operators=operators)


def weights_size(graph: Graph) -> int:
    """The bytes of all weights of a graph."""
    return sum(_size(weight) for weight in graph.initializers.values())


def _size(weight: Initializer) -> int:
    return prod(weight.shape) * int(helper.tensor_dtype_to_np_dtype(weight.onnx_type).itemsize)


def _inline(weight: Initializer) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=weight.name, data_type=weight.onnx_type, dims=weight.shape)
    tensor.raw_data = weight.read().tobytes()
    return tensor


def _external(weight: Initializer, out: HashedFile) -> onnx.TensorProto:
    """Append a weight to the data file, large ones on a page of their own so that they can be mapped."""
    size = _size(weight)
    if size < PAGE:
        return _inline(weight)
    out.write(b"\0" * (-out.size % PAGE))
    tensor = onnx.TensorProto(name=weight.name, data_type=weight.onnx_type, dims=weight.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", out.name), ("offset", out.size), ("length", size)):
        tensor.external_data.add(key=key, value=str(value))
    out.write(np.ascontiguousarray(weight.read()).reshape(-1).view(np.uint8).data)
    return tensor
