"""What an ONNX file says about itself, read without the onnx package: inputs, outputs, nodes, types of weights.

An ONNX file is a protobuf message. Only the fields used here are parsed. The file is mapped, not read, and
weights are skipped. (Reference: onnx/onnx.proto.)
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxembed.errors import ModelFilesError
from onnxembed.protobuf import FIXED32, LENGTH, Field, Message

ELEMENT_TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
    17: "float8e4m3fn",
    18: "float8e4m3fnuz",
    19: "float8e5m2",
    20: "float8e5m2fnuz",
    21: "uint4",
    22: "int4",
}
"""The names of TensorProto's data types; newer ones keep their number."""

INTEGERS = ("uint8", "int8", "uint16", "int16", "int32")
"""The types of outputs whose integers may stand for other numbers."""

FLOATS = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
NO_WEIGHTS = {6, 7, 8, 9, 12, 13}  # int32, int64, string, bool, uint32, uint64: indices, masks, shapes
QUANTIZED = "quantized"

# The data types of the constants that are read, as numpy reads their raw data.
_RAW = {1: "<f4", 2: "<u1", 3: "<i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}

EXTERNAL = 1  # TensorProto.data_location


class Value(NamedTuple):
    """An input or output; a size is None if it is free, the shape if the file gives none."""

    name: str
    shape: tuple[int | None, ...] | None
    element_type: str = "float32"


class Node(NamedTuple):
    """A node of the main graph; `integers` are those attributes that are an integer, or several."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    integers: Mapping[str, tuple[int, ...]]


@dataclass
class OnnxFile:
    """What an ONNX file holds.

    `nodes` are those of the main graph. `operators` counts the nodes of each type, including those of graphs inside
    nodes and of the model's functions. `matrices` counts the elements of weights of two axes or more, by type. `shapes`
    are those of the main graph's weights, by name. `data` are the files next to this one that hold weights.
    """

    path: Path
    producer: str = ""
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    operators: Counter[str] = field(default_factory=Counter)
    matrices: Counter[str] = field(default_factory=Counter)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    data: set[str] = field(default_factory=set)

    @property
    def files(self) -> list[Path]:
        """The file itself, and those that hold its weights."""
        return [self.path, *(self.path.parent / name for name in sorted(self.data))]

    @property
    def weights(self) -> str | None:
        """The type of its weights: QUANTIZED if any is, else the most common float type; None without weights."""
        if QUANTIZED in self.matrices:
            return QUANTIZED
        return self.matrices.most_common(1)[0][0] if self.matrices else None

    @cached_property
    def producers(self) -> dict[str, Node]:
        """The node of the main graph that computes each value."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    def constant(self, name: str) -> NDArray[Any] | None:
        """A constant of the main graph by name; None for a value that is none, or that lies in another file."""
        producer = self.producers.get(name)
        while producer is not None and producer.operator == "Identity":
            name = producer.inputs[0]
            producer = self.producers.get(name)
        with _mapped(self.path) as model:
            return next((_array(tensor) for tensor in _constants(model, name)), None)


@contextmanager
def _mapped(path: Path) -> Iterator[Message]:
    """The model in an ONNX file; ModelFilesError for bytes that are none."""
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            yield Message.of(buffer)
    except (OSError, ValueError, LookupError, RecursionError) as error:
        raise ModelFilesError(f"{path} is not an ONNX file, or is cut short: {error}") from None


def read_onnx(path: Path) -> OnnxFile:
    """Read what an ONNX file says about itself; ModelFilesError if it is not an ONNX file."""
    file = OnnxFile(path)
    with _mapped(path) as model:
        _read_model(model, file)
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
        elif number == 25:  # a function
            for part, _, _, node in content.fields():
                if part == 7:
                    _read_node(node, file)
    file.producer = " ".join(producer.values()).strip()


def _read_graph(graph: Message, file: OnnxFile, *, main: bool = False) -> None:
    shapes: dict[str, tuple[int, ...]] = {}
    values: dict[int, list[Value]] = {11: [], 12: []}  # inputs and outputs
    for number, _, _, content in graph.fields():
        if number == 1:
            node = _read_node(content, file)
            if main:
                file.nodes.append(node)
        elif number == 5:
            name, shape = _read_tensor(content, file)
            shapes[name] = shape
        elif number in values:
            values[number].append(_read_value(content))
    if main:  # files from before 2020 list weights among the inputs
        file.inputs = [value for value in values[11] if value.name not in shapes]
        file.outputs, file.shapes = values[12], shapes


def _read_node(node: Message, file: OnnxFile) -> Node:
    operator, names = "", {1: list[str](), 2: list[str]()}  # inputs and outputs
    integers: dict[str, tuple[int, ...]] = {}
    for number, _, _, content in node.fields():
        if number == 4:
            operator = content.text()
        elif number in names:
            names[number].append(content.text())
        elif number == 5:
            _read_attribute(content, file, integers)
    file.operators[operator] += 1
    return Node(operator, tuple(names[1]), tuple(names[2]), integers)


def _read_attribute(attribute: Message, file: OnnxFile, integers: dict[str, tuple[int, ...]]) -> None:
    """Record an attribute's tensors and graphs, and the values of one that has integers."""
    name, values = "", list[int]()
    for part in attribute.fields():
        if part.number == 1:
            name = part.content.text()
        elif part.number in (3, 8):
            values += _integers(part)
        elif part.number in (5, 10):
            _read_tensor(part.content, file)
        elif part.number in (6, 11):
            _read_graph(part.content, file)
    if values:
        integers[name] = tuple(values)


def _integers(field: Field) -> Iterator[int]:
    """The integers of a repeated field, which is packed or not; they are of 64 bits and may be below 0."""
    for value in field.content.integers() if field.wire == LENGTH else (field.value,):
        yield value - 2**64 if value >= 2**63 else value


def _read_tensor(tensor: Message, file: OnnxFile) -> tuple[str, tuple[int, ...]]:
    """Record a weight's type, size and file; returns its name and shape."""
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
    return name, tuple(shape)


def _read_value(value: Message) -> Value:
    name, shape, element_type = "", None, 0
    for number, _, _, content in value.fields():
        if number == 1:
            name = content.text()
        elif number == 2:
            shape, element_type = _read_shape(content), _read_element_type(content)
    return Value(name, shape, ELEMENT_TYPES.get(element_type, f"of type {element_type}"))


def _read_element_type(value_type: Message) -> int:
    """The data type of a tensor's type."""
    for number, _, _, tensor in value_type.fields():
        for part, _, element_type, _ in tensor.fields() if number == 1 else ():
            if part == 1:
                return element_type
    return 0


def _read_shape(value_type: Message) -> tuple[int | None, ...] | None:
    """The shape of a tensor's type: each dimension is a message that holds its size, its name, or nothing.

    Some exporters write a free size as -1.
    """
    for number, _, _, tensor in value_type.fields():
        for part, _, _, shape in tensor.fields() if number == 1 else ():
            if part == 2:
                return tuple(
                    next((size for key, _, size, _ in dimension.fields() if key == 1 and size < 2**63), None)
                    for _, _, _, dimension in shape.fields()
                )
    return None


def _constants(model: Message, name: str) -> Iterator[Message]:
    """The tensors of the main graph with this name: its weights, and the tensors of its Constant nodes."""
    for graph in (content for number, _, _, content in model.fields() if number == 7):
        for number, _, _, content in graph.fields():
            if number == 5 and _named(content, 8) == name:
                yield content
            elif number == 1 and _named(content, 4) == "Constant" and _named(content, 2) == name:
                for attribute in (part.content for part in content.fields() if part.number == 5):
                    yield from (part.content for part in attribute.fields() if part.number == 5)


def _named(message: Message, number: int) -> str:
    """The text of a message's field."""
    return next((field.content.text() for field in message.fields() if field.number == number), "")


def _array(tensor: Message) -> NDArray[Any] | None:
    """The values of a tensor; None for a type that is not read here, and for one that lies in another file."""
    shape, data_type, raw, values = list[int](), 0, b"", list[Any]()
    for part in tensor.fields():
        if part.number == 1:
            shape += _integers(part)
        elif part.number == 2:
            data_type = part.value
        elif part.number == 9:
            raw = part.content.raw()
        elif part.number in (5, 7):  # int32_data, which small types share, and int64_data
            values += _integers(part)
        elif part.number in (4, 10):  # float_data and double_data
            size = "<f4" if part.number == 4 or part.wire == FIXED32 else "<f8"
            values += np.frombuffer(part.content.raw(), size).tolist()
        elif part.number == 14 and part.value == EXTERNAL:
            return None
    if data_type not in _RAW or (data_type == 10 and not raw):  # float16 outside of raw data is stored as bits
        return None
    array = np.frombuffer(raw, _RAW[data_type]) if raw else np.array(values, _RAW[data_type])
    return array.reshape(shape)
