"""What the modules of all tasks ask of a graph's outputs: their names, axes and widths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.loading.onnx_file import OnnxFile, Value

# The axes of an output in words, by their number.
AXES = {2: "texts by numbers", 3: "texts by tokens by numbers"}


def find_output(graph: OnnxFile, names: Iterable[str]) -> Value | None:
    """The first of these outputs that the graph has."""
    outputs = {value.name: value for value in graph.outputs}
    return next((outputs[name] for name in names if name in outputs), None)


def require_output(graph: OnnxFile, names: Sequence[str], hint: str = "") -> Value:
    """The first of these outputs that the graph has; UnsupportedError, with a hint, if it has none."""
    if (output := find_output(graph, names)) is None:
        have = ", ".join(value.name for value in graph.outputs)
        wanted = " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
        raise UnsupportedError(f"{graph.path} has no output {wanted}; it has {have}{hint}")
    return output


def check_axes(graph: OnnxFile, value: Value, rank: int) -> None:
    """Raise UnsupportedError for a value of another number of axes."""
    if value.shape is None or len(value.shape) != rank:
        raise UnsupportedError(f"{graph.path}: {value.name} has shape {shown(value)}, not {AXES[rank]}")


def check_width(graph: OnnxFile, output: Value, width: int) -> None:
    """Raise ModelFilesError for an output with another number of numbers than the files say."""
    last = output.shape[-1] if output.shape else None
    if last not in (None, width):
        raise ModelFilesError(
            f"{graph.path}: {output.name} has {last} numbers, but the model's files say {width}: the graph "
            "belongs to another model"
        )


def shown(value: Value) -> str:
    """A value's shape in words."""
    if value.shape is None:
        return "unknown"
    return "[" + ", ".join("free" if size is None else str(size) for size in value.shape) + "]"
