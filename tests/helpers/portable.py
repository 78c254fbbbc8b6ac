"""What is true of every portable graph, and ONNX's own evaluator, which defines what its operators compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

OPSET = 18


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node of a graph and of its subgraphs."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes_of(inner)


def check_portable(file: Path) -> None:
    """The file is a valid model of one opset, of standard operators, without branches and functions."""
    onnx.checker.check_model(str(file), full_check=True)
    model = onnx.load(file, load_external_data=False)
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {("", OPSET)}
    assert not model.functions
    assert {node.domain for node in nodes_of(model.graph)} == {""}
    assert not {"If", "Loop", "Scan"} & {node.op_type for node in nodes_of(model.graph)}


def evaluate(file: Path, feeds: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
    """The outputs by name, as ONNX's reference evaluator computes them."""
    evaluator = ReferenceEvaluator(str(file))
    with np.errstate(divide="ignore", invalid="ignore"):  # the logarithm of a distance of 0 is not used
        values = evaluator.run(None, {name: feeds[name] for name in evaluator.input_names})
    return dict(zip(evaluator.output_names, map(np.asarray, values), strict=True))
