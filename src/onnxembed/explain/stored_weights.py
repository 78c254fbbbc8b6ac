"""The weights of a graph that onnxembed built, by the names that they had in the checkpoint. Needs the extra [export].

The builders name a weight after the checkpoint's tensor and what was done to it (`Graph.weight`, `Graph.concatenated`):
"name", "name.T", "name[0:64]", "name+1", and "one+other". Undone, the folder serves as its own checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxembed.arrays import Array
from onnxembed.errors import UnsupportedError
from onnxembed.explain.formats import rounded
from onnxembed.export.checkpoint.tensor_record import DTYPES, TensorRecord
from onnxembed.export.checkpoint.tensors import Checkpoint

_NAME = re.compile(r"(?P<name>.+?)(?P<rows>\[\d+:\d+\])?(?P<offset>\+-?\d[\d.e+-]*)?(?P<turned>\.T)?")

_TYPES = {np.dtype(numpy_type): name for name, numpy_type in DTYPES.items()}


@dataclass(frozen=True)
class _Part(TensorRecord):
    """One tensor of the checkpoint, read back from the graph; it has no place in a file of its own."""

    read: Callable[[], Array] = field(default=lambda: np.empty(0), repr=False)

    def map(self) -> Array:
        """The tensor."""
        return self.read()


class StoredWeights(Checkpoint):
    """The tensors of a graph that onnxembed built, as those of a checkpoint.

    `shifted` moves the rows of tables: by the end of a table's name, how many rows later each row is read; rows past
    an end are its last. `numbers` is a format that they are rounded to. Raises UnsupportedError for a graph whose
    weights have no names of a checkpoint.
    """

    def __init__(self, folder: Path, graph: Path, shifted: Mapping[str, int] | None = None, numbers: str = "") -> None:
        self._numbers = numbers
        self.folder = folder
        self._used = set()
        model = onnx.load(graph, load_external_data=False)
        stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._records = {}
        pieces: dict[str, dict[int, _Part]] = {}
        joined: list[str] = []
        for name, tensor in stored.items():
            if "+" in name and not _parsed(name)["offset"]:
                joined.append(name)
                continue
            parsed = _parsed(name)
            part = self._part(graph, tensor, parsed)
            if parsed["rows"]:
                start = int(parsed["rows"][1:].partition(":")[0])
                pieces.setdefault(parsed["name"], {})[start] = part
            else:
                self._records[parsed["name"]] = part
        for name, parts in pieces.items():
            self._records[name] = _stacked(parts)
        for name in joined:
            self._split(graph, stored[name])
        for end, rows in (shifted or {}).items():
            self._shift(end, rows)

    def _part(self, graph: Path, tensor: TensorProto, parsed: Mapping[str, str]) -> _Part:
        shape = tuple(tensor.dims)[::-1] if parsed["turned"] else tuple(tensor.dims)
        offset = float(parsed["offset"] or 0)

        def read() -> Array:
            array = numpy_helper.to_array(tensor, str(graph.parent))
            array = array.T if parsed["turned"] else array
            return rounded(array - array.dtype.type(offset) if offset else array, self._numbers)

        dtype = _TYPES[np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))]
        return _Part(graph, dtype, shape, 0, read=read)

    def _split(self, graph: Path, tensor: TensorProto) -> None:
        """Add the tensors that were joined into one, each as long as the weight that it is the bias of."""
        whole = self._part(graph, tensor, {"turned": "", "offset": ""})
        start = 0
        for name in tensor.name.split("+"):
            weight = self._records.get(f"{name.removesuffix('.bias')}.weight")
            if weight is None:
                return
            end = start + weight.shape[0]
            self._records[name] = _Part(graph, whole.dtype, (end - start,), 0, read=_cut(whole, start, end))
            start = end

    def _shift(self, end: str, rows: int) -> None:
        names = [name for name in self._records if name.endswith(end)]
        if not names:
            raise UnsupportedError(f"the graph has no table of positions ({end})")
        for name in names:
            table = self._records[name]
            places = np.clip(np.arange(table.shape[0]) + rows, 0, table.shape[0] - 1)
            self._records[name] = _Part(table.file, table.dtype, table.shape, 0, read=_taken(table, places))


def _parsed(name: str) -> dict[str, str]:
    found = _NAME.fullmatch(name)
    assert found is not None
    return {key: value or "" for key, value in found.groupdict().items()}


def _stacked(parts: Mapping[int, _Part]) -> _Part:
    ordered = [parts[start] for start in sorted(parts)]
    first = ordered[0]
    shape = (sum(part.shape[0] for part in ordered), *first.shape[1:])
    return _Part(first.file, first.dtype, shape, 0, read=lambda: np.concatenate([part.map() for part in ordered]))


def _cut(whole: TensorRecord, start: int, end: int) -> Callable[[], Array]:
    return lambda: whole.map()[start:end]


def _taken(table: TensorRecord, places: Array) -> Callable[[], Array]:
    def read() -> Any:
        return table.map()[places]

    return read
