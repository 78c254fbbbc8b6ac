"""Adds an encoder's graph that another exporter made as the first part of a graph of onnxembed's.

Its computation is unchanged. Its names get a prefix, and the exporter's notes about its own run (source files,
stack traces) are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import onnx_ir as ir
from onnx_ir.passes import common as passes

from onnxembed.arrays import Array
from onnxembed.errors import UnsupportedError
from onnxembed.export.graph.graph import MICROSOFT, OPSET, Graph, Initializer
from onnxembed.export.graph.inputs import Encoded, PaddedInputs
from onnxembed.manifest import INPUTS, LAST_HIDDEN_STATE

PREFIX = "encoder/"


def splice(graph: Graph, model: ir.Model, by: str) -> Encoded:
    """Add the part of `model` that computes last_hidden_state [B, T, D] to `graph`.

    Raises UnsupportedError, which names the exporter `by`, for a graph that has no such output, takes inputs
    that the runtime cannot feed, or is written in operators that the heads cannot stand beside.
    """
    inputs = PaddedInputs(graph)
    _keep_hidden_states(model, by)
    unknown = [value.name for value in model.graph.inputs if value.name not in INPUTS]
    if unknown:
        raise UnsupportedError(f"the graph of {by} takes {', '.join(map(str, unknown))}, which onnxembed cannot feed")
    domains = dict(model.graph.opset_imports)
    opset = domains.pop("", 0)
    if opset < OPSET or domains.keys() - {MICROSOFT} or model.functions:
        raise UnsupportedError(f"the graph of {by} has operators of {dict(model.graph.opset_imports)}, not of opset 18")
    if "token_type_ids" in [value.name for value in model.graph.inputs]:
        inputs.token_type_ids  # noqa: B018  (declares the input)
    hidden = model.graph.outputs[0]
    _rename(model)
    weights = [_initializer(value) for value in model.graph.initializers.values()]
    graph.append_nodes([ir.serde.serialize_node(node) for node in model.graph], weights, opset)
    return Encoded(graph, inputs, graph.to_float32(str(hidden.name)), inputs.pool)


def _keep_hidden_states(model: ir.Model, by: str) -> None:
    outputs = [value for value in model.graph.outputs if value.name == LAST_HIDDEN_STATE]
    if not outputs:
        names = ", ".join(str(value.name) for value in model.graph.outputs)
        raise UnsupportedError(f"the graph of {by} has no output {LAST_HIDDEN_STATE}; it has {names}")
    model.graph.outputs[:] = outputs
    for clean in (passes.InlinePass(), passes.RemoveUnusedNodesPass(), passes.RemoveUnusedOpsetsPass()):
        clean(model)
    passes.ClearMetadataAndDocStringPass()(model)


def _rename(model: ir.Model) -> None:
    """Put the prefix before every name except the inputs'; a nameless value or node is named by its number."""
    given = set(model.graph.inputs)
    for number, value in enumerate(list(_values(model.graph))):
        if value not in given:
            value.name = f"{PREFIX}{value.name or number}"
    for number, node in enumerate(model.graph.all_nodes()):
        node.name = f"{PREFIX}{node.name or number}"


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Every value of a graph and its subgraphs, once."""
    for scope in (graph, *graph.subgraphs()):
        yield from scope.initializers.values()
        yield from scope.inputs
    for node in graph.all_nodes():
        yield from node.outputs


def _initializer(value: ir.Value) -> Initializer:
    tensor = value.const_value
    if tensor is None:
        raise UnsupportedError(f"the initializer {value.name} has no value")

    def read(tensor: ir.TensorProtocol) -> Array:
        array: Array = tensor.numpy()
        return array

    return Initializer(str(value.name), int(tensor.dtype), tuple(tensor.shape.numpy()), partial(read, tensor))
