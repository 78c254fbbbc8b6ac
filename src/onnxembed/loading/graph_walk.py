"""What the nodes of a graph that another program made show: how integers stand for numbers, what its texts share.

The nodes are followed from an output back to what computes it. What they do not show is never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxembed.errors import UnsupportedError
from onnxembed.loading.onnx_file import ELEMENT_TYPES, INTEGERS, Node, OnnxFile, Value
from onnxembed.manifest import IntegerOutput

READABLE = ("float32", "float16", "float64")
"""The types of outputs that are numbers as they stand. Of bfloat16, numpy has no arrays."""

# Operators that leave every number as it is.
_SAME_NUMBERS = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten")

# Between a scaled number and its Cast to an integer.
_ROUNDING = ("Round", "Clip")

# Operators of dynamic quantization, which use one scale for all that they are given.
_SHARED_SCALE = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")

# Operators that keep the number of values, and those that may reduce them to one.
_ELEMENTWISE = ("Abs", "Add", "Cast", "Clip", "Div", "Identity", "Max", "Min", "Mul", "Neg", "Sub", "Where")
_REDUCTIONS = ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2")

_ACTIVATIONS = ("Sigmoid", "Softmax", "LogSoftmax", "Tanh", "HardSigmoid")


def integer_output(graph: OnnxFile, output: Value) -> IntegerOutput | None:
    """How the integers of an output become numbers; None for an output of floating-point numbers.

    Numbers that were rounded to integers and cast to floats are integers, too. Raises UnsupportedError for a type
    that is not read, and for integers of which the graph does not show a constant scale.
    """
    if output.element_type not in (*READABLE, *INTEGERS):
        raise UnsupportedError(
            f"{graph.path}: {output.name} is {output.element_type}, which onnxembed does not read; end the graph with "
            "a Cast to float"
        )
    are_integers, name, same_axes = output.element_type in INTEGERS, output.name, True
    while (node := graph.producers.get(name)) is not None:
        if node.operator == "QuantizeLinear":
            return _quantized(graph, output, node, same_axes)
        if node.operator == "Cast":
            target = ELEMENT_TYPES.get(node.integers.get("to", (0,))[0], "")
            if target in INTEGERS and (scaled := _scaled(graph, node)) is not None:
                return scaled
            are_integers = are_integers or target in INTEGERS
        elif node.operator not in _SAME_NUMBERS:
            break
        else:
            same_axes = same_axes and node.operator == "Identity"
        name = node.inputs[0]
    if are_integers:
        raise UnsupportedError(
            f"{graph.path}: {output.name} holds {output.element_type} integers, and the graph does not say what they "
            "stand for: no QuantizeLinear of a constant scale makes them; take the graph with float outputs"
        )
    return None


def _quantized(graph: OnnxFile, output: Value, node: Node, same_axes: bool) -> IntegerOutput:
    """The constant scale and zero point of a QuantizeLinear: one number, or one for each of the last axis."""
    scale, zero = (graph.constant(name) for name in (*node.inputs[1:3], "")[:2])
    named_zero = len(node.inputs) > 2 and node.inputs[2] != ""
    axis, rank = node.integers.get("axis", (1,))[0], len(output.shape or ())
    last = scale is not None and scale.ndim == 1 and same_axes and axis in (-1, rank - 1)
    if scale is None or (named_zero and zero is None) or not (scale.size == 1 or last) or "block_size" in node.integers:
        raise UnsupportedError(
            f"{graph.path}: {output.name} is quantized with a scale that is not a constant of the graph, or not one "
            "for each of its numbers; take the graph with float outputs"
        )
    zeros = np.zeros(1, np.int64) if zero is None else zero.reshape(-1)
    return IntegerOutput(
        scale=tuple(float(value) for value in scale.reshape(-1)), zero_point=tuple(float(value) for value in zeros)
    )


def _scaled(graph: OnnxFile, cast: Node) -> IntegerOutput | None:
    """What a Cast's integers stand for, where rounded(number * factor + shift) is cast; None where it is not so."""
    node = graph.producers.get(cast.inputs[0])
    rounded = False
    while node is not None and node.operator in _ROUNDING:
        rounded = rounded or node.operator == "Round"
        node = graph.producers.get(node.inputs[0])
    shift = 0.0
    if node is not None and node.operator in ("Add", "Sub") and (number := _scalar(graph, node)) is not None:
        shift = number if node.operator == "Add" else -number
        node = graph.producers.get(node.inputs[0])
    factor = _scalar(graph, node) if node is not None and node.operator in ("Mul", "Div") else None
    if not rounded or not factor or node is None:
        return None
    scale = 1 / factor if node.operator == "Mul" else factor
    return IntegerOutput(scale=(scale,), zero_point=(shift,))


def _scalar(graph: OnnxFile, node: Node) -> float | None:
    """The one number that a node adds, subtracts, multiplies with or divides by; None if it is none."""
    value: NDArray[Any] | None = graph.constant(node.inputs[1])
    return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


def shared_scale(graph: OnnxFile) -> str | None:
    """The operator by which the texts of a run share the scale of their activations; None if there is none.

    It is one of dynamic quantization, or a QuantizeLinear whose scale is computed from all values at once.
    """
    for operator in _SHARED_SCALE:
        if operator in graph.operators:
            return operator
    scales = [
        node.inputs[1] for node in graph.nodes if node.operator == "QuantizeLinear" and "axis" not in node.integers
    ]
    joined = any(_joins_texts(graph, reduction) for scale in scales for reduction in _reductions(graph, scale))
    return "QuantizeLinear with a scale of all values" if joined else None


def _reductions(graph: OnnxFile, name: str) -> Iterator[Node]:
    """The reductions that a value is computed from, through elementwise operators."""
    names, seen = [name], set[str]()
    while names:
        name = names.pop()
        node = graph.producers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.operator in _REDUCTIONS:
            yield node
        elif node.operator in _ELEMENTWISE:
            names += node.inputs


def _joins_texts(graph: OnnxFile, node: Node) -> bool:
    """Whether a reduction takes values of several texts together: over the first axis, or over all of them."""
    axes = node.integers.get("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1]:
        constant = graph.constant(node.inputs[1])
        axes = () if constant is None else tuple(constant.reshape(-1).tolist())
        return 0 in axes
    return 0 in axes if axes else not node.integers.get("noop_with_empty_axes", (0,))[0]


def final_activation(graph: OnnxFile, output: Value) -> str | None:
    """The activation that an output is the result of; None if another operator computes it."""
    name = output.name
    while (node := graph.producers.get(name)) is not None and node.operator in (*_SAME_NUMBERS, "Cast"):
        name = node.inputs[0]
    return node.operator if node is not None and node.operator in _ACTIVATIONS else None


def pools_first_token(graph: OnnxFile, output: Value) -> bool | None:
    """Whether an output [B, D] is made of one token of each text, or of a sum over tokens; None where neither shows."""
    name = output.name
    while (node := graph.producers.get(name)) is not None:
        if node.operator == "Gather":
            index = graph.constant(node.inputs[1])
            return True if index is not None and index.ndim == 0 else None
        if node.operator in ("ReduceMean", "ReduceSum"):
            return False
        if node.operator not in (*_SAME_NUMBERS, *_ELEMENTWISE, "LpNormalization", "Tanh"):
            return None
        name = node.inputs[0]
    return None
