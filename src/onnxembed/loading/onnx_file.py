"""What an ONNX file says of itself, read without the onnx package: inputs, outputs, operators, kinds of weights.

An ONNX file is a protocol buffer: fields of a number, a wire type and a value, some of them messages again.
Only the fields named here are looked into; weights are stepped over, in a file that is mapped, not read.
(Reference: onnx/onnx.proto; protobuf.dev/programming-guides/encoding.)
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import NamedTuple

from onnxembed.errors import ModelFilesError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
SIZES = {FIXED64: 8, FIXED32: 4}

FLOATS = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
NO_WEIGHTS = {6, 7, 8, 9, 12, 13}  # int32, int64, string, bool, uint32, uint64: indices, masks, shapes
QUANTIZED = "quantized"

EXTERNAL = 1  # TensorProto.data_location


@dataclass(frozen=True)
class Value:
    """An input or output; a size is None where it is free, the shape where the file gives none."""

    name: str
    shape: tuple[int | None, ...] | None


@dataclass
class OnnxFile:
    """What an ONNX file holds.

    `operators` counts nodes of each type, those of graphs inside nodes included. `matrices` counts the
    elements of weights of two axes or more, by type. `data` are the files beside this one that hold weights.
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
        """The type of its weights: QUANTIZED as soon as one is, else the float type of most; None without any."""
        if QUANTIZED in self.matrices:
            return QUANTIZED
        return self.matrices.most_common(1)[0][0] if self.matrices else None


def read_onnx(path: Path) -> OnnxFile:
    """Read what an ONNX file says of itself; ModelFilesError for a file that is none."""
    found = OnnxFile(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            _read_model(_Message(buffer, 0, len(buffer)), found)
    except (OSError, ValueError, LookupError, RecursionError) as error:
        raise ModelFilesError(f"{path} is not an ONNX file, or is cut short: {error}") from None
    if not found.outputs:
        raise ModelFilesError(f"{path} is not an ONNX file: it has no graph with outputs")
    return found


class _Message(NamedTuple):
    """A part of the file."""

    buffer: mmap.mmap
    start: int
    end: int

    def fields(self) -> Iterator[tuple[int, int, _Message]]:
        """Number, value and content of each field: the value of an integer, the content of all else."""
        at = self.start
        while at < self.end:
            key, at = self._varint(at)
            number, wire = key >> 3, key & 7
            value = 0
            begin = at
            if wire in (VARINT, LENGTH):
                value, at = self._varint(at)
            if wire == LENGTH:
                begin, at = at, at + value
            elif wire != VARINT:
                at += SIZES[wire]
            if at > self.end:
                raise ValueError(f"a field of {value} bytes at byte {begin} goes past its end")
            yield number, value, _Message(self.buffer, begin, at)

    def text(self) -> str:
        return self.buffer[self.start : self.end].decode()

    def _varint(self, at: int) -> tuple[int, int]:
        value = shift = 0
        while at < self.end and shift < 64:
            byte = self.buffer[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
        raise ValueError(f"a number at byte {at} has no end")

    def numbers(self) -> Iterator[int]:
        """Integers that are written one after the other."""
        at = self.start
        while at < self.end:
            value, at = self._varint(at)
            yield value


def _read_model(model: _Message, found: OnnxFile) -> None:
    producer = {2: "", 3: ""}  # name and version
    for number, _, content in model.fields():
        if number in producer:
            producer[number] = content.text()
        elif number == 7:
            _read_graph(content, found, main=True)
    found.producer = " ".join(producer.values()).strip()


def _read_graph(graph: _Message, found: OnnxFile, *, main: bool = False) -> None:
    constants = set()
    values: dict[int, list[Value]] = {11: [], 12: []}  # inputs and outputs
    for number, _, content in graph.fields():
        if number == 1:
            _read_node(content, found)
        elif number == 5:
            constants.add(_read_tensor(content, found))
        elif number in values:
            values[number].append(_read_value(content))
    if main:  # files of before 2020 list weights among the inputs
        found.inputs = [value for value in values[11] if value.name not in constants]
        found.outputs = values[12]


def _read_node(node: _Message, found: OnnxFile) -> None:
    for number, _, content in node.fields():
        if number == 4:
            found.operators[content.text()] += 1
        elif number == 5:
            for kind, _, value in content.fields():
                if kind in (5, 10):
                    _read_tensor(value, found)
                elif kind in (6, 11):
                    _read_graph(value, found)


def _read_tensor(tensor: _Message, found: OnnxFile) -> str:
    """Note what a weight is; returns its name."""
    shape: list[int] = []
    name, kind, external, entries = "", 0, False, {}
    for number, value, content in tensor.fields():
        if number == 1:
            shape += content.numbers()
        elif number == 2:
            kind = value
        elif number == 8:
            name = content.text()
        elif number == 13:
            pair = {key: text.text() for key, _, text in content.fields()}
            entries[pair.get(1, "")] = pair.get(2, "")
        elif number == 14:
            external = value == EXTERNAL
    if external:
        found.data.add(entries["location"])
    if len(shape) > 1 and kind not in NO_WEIGHTS:
        found.matrices[FLOATS.get(kind, QUANTIZED)] += prod(shape)
    return name


def _read_value(value: _Message) -> Value:
    name, shape = "", None
    for number, _, content in value.fields():
        if number == 1:
            name = content.text()
        elif number == 2:
            shape = _read_shape(content)
    return Value(name, shape)


def _read_shape(kind: _Message) -> tuple[int | None, ...] | None:
    """The shape of a tensor's type: each dimension is a message that holds its size, its name, or nothing."""
    for number, _, tensor in kind.fields():
        for part, _, shape in tensor.fields() if number == 1 else ():
            if part == 2:
                return tuple(
                    next((size for key, size, _ in dimension.fields() if key == 1), None)
                    for _, _, dimension in shape.fields()
                )
    return None
