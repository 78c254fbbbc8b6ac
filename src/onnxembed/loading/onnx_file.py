"""What an ONNX file says about itself, read without the onnx package: inputs, outputs, operators, types of weights.

An ONNX file is a protobuf message. Only the fields used here are parsed. The file is mapped, not read, and
weights are skipped. (Reference: onnx/onnx.proto.)
"""

from __future__ import annotations

import mmap
from collections import Counter
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from onnxembed.errors import ModelFilesError
from onnxembed.protobuf import Message

FLOATS = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
NO_WEIGHTS = {6, 7, 8, 9, 12, 13}  # int32, int64, string, bool, uint32, uint64: indices, masks, shapes
QUANTIZED = "quantized"

EXTERNAL = 1  # TensorProto.data_location


@dataclass(frozen=True)
class Value:
    """An input or output; a size is None if it is free, the shape if the file gives none."""

    name: str
    shape: tuple[int | None, ...] | None


@dataclass
class OnnxFile:
    """What an ONNX file holds.

    `operators` counts the nodes of each type, including those of graphs inside nodes. `matrices` counts the
    elements of weights of two axes or more, by type. `data` are the files next to this one that hold weights.
    """

    path: Path
    producer: str = ""
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    operators: Counter[str] = field(default_factory=Counter)
    matrices: Counter[str] = field(default_factory=Counter)
    data: set[str] = field(default_factory=set)

    @property
    def weights(self) -> str | None:
        """The type of its weights: QUANTIZED if any is, else the most common float type; None without weights."""
        if QUANTIZED in self.matrices:
            return QUANTIZED
        return self.matrices.most_common(1)[0][0] if self.matrices else None


def read_onnx(path: Path) -> OnnxFile:
    """Read what an ONNX file says about itself; ModelFilesError if it is not an ONNX file."""
    file = OnnxFile(path)
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            _read_model(Message.of(buffer), file)
    except (OSError, ValueError, LookupError, RecursionError) as error:
        raise ModelFilesError(f"{path} is not an ONNX file, or is cut short: {error}") from None
    if not file.outputs:
        raise ModelFilesError(f"{path} is not an ONNX file: it has no graph with outputs")
    return file


def _read_model(model: Message, file: OnnxFile) -> None:
    producer = {2: "", 3: ""}  # name and version
    for number, _, _, content in model.fields():
        if number in producer:
            producer[number] = content.text()
        elif number == 7:
            _read_graph(content, file, main=True)
    file.producer = " ".join(producer.values()).strip()


def _read_graph(graph: Message, file: OnnxFile, *, main: bool = False) -> None:
    constants = set()
    values: dict[int, list[Value]] = {11: [], 12: []}  # inputs and outputs
    for number, _, _, content in graph.fields():
        if number == 1:
            _read_node(content, file)
        elif number == 5:
            constants.add(_read_tensor(content, file))
        elif number in values:
            values[number].append(_read_value(content))
    if main:  # files from before 2020 list weights among the inputs
        file.inputs = [value for value in values[11] if value.name not in constants]
        file.outputs = values[12]


def _read_node(node: Message, file: OnnxFile) -> None:
    for number, _, _, content in node.fields():
        if number == 4:
            file.operators[content.text()] += 1
        elif number == 5:
            for value_number, _, _, value in content.fields():
                if value_number in (5, 10):
                    _read_tensor(value, file)
                elif value_number in (6, 11):
                    _read_graph(value, file)


def _read_tensor(tensor: Message, file: OnnxFile) -> str:
    """Record a weight's type, size and file; returns its name."""
    shape: list[int] = []
    name, data_type, external, entries = "", 0, False, {}
    for number, _, value, content in tensor.fields():
        if number == 1:
            shape += content.integers()
        elif number == 2:
            data_type = value
        elif number == 8:
            name = content.text()
        elif number == 13:
            pair = {key: text.text() for key, _, _, text in content.fields()}
            entries[pair.get(1, "")] = pair.get(2, "")
        elif number == 14:
            external = value == EXTERNAL
    if external:
        file.data.add(entries["location"])
    if len(shape) > 1 and data_type not in NO_WEIGHTS:
        file.matrices[FLOATS.get(data_type, QUANTIZED)] += prod(shape)
    return name


def _read_value(value: Message) -> Value:
    name, shape = "", None
    for number, _, _, content in value.fields():
        if number == 1:
            name = content.text()
        elif number == 2:
            shape = _read_shape(content)
    return Value(name, shape)


def _read_shape(value_type: Message) -> tuple[int | None, ...] | None:
    """The shape of a tensor's type: each dimension is a message that holds its size, its name, or nothing."""
    for number, _, _, tensor in value_type.fields():
        for part, _, _, shape in tensor.fields() if number == 1 else ():
            if part == 2:
                return tuple(
                    next((size for key, _, size, _ in dimension.fields() if key == 1), None)
                    for _, _, _, dimension in shape.fields()
                )
    return None
