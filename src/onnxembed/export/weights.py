"""A checkpoint's tensors, by name, mapped from its safetensors files one at a time.

Each tensor is its own read-only memory map, dropped after use, so that reading a checkpoint never holds
more than the tensor at hand. (The safetensors library maps whole files: the pages read so far stay
resident, which for a large model is the whole checkpoint.)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from onnxembed.errors import ModelFilesError, UnsupportedError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

# The types of the safetensors format that numpy (with ml_dtypes) has.
DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
# Integers are buffers (position ids), which nothing reads, or quantised weights, which need their scales.
WEIGHT_DTYPES = ("F64", "F32", "F16", "BF16")

# Checkpoints older than 2019 call LayerNorm's parameters gamma and beta; transformers renames them too.
RENAMED = {"weight": "gamma", "bias": "beta"}

MAX_HEADER = 100_000_000


@dataclass(frozen=True)
class TensorRecord:
    """Where one tensor lies."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def end(self) -> int:
        """The first byte after the tensor."""
        return self.offset + prod(self.shape) * int(np.dtype(DTYPES[self.dtype]).itemsize)


class Checkpoint:
    """The tensors of a checkpoint folder; remembers which were used.

    `prefix` is what task classes put before the encoder's names ("bert."); it is taken off.
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self.folder = folder
        records = _records(folder)
        self._records = {name.removeprefix(prefix): record for name, record in records.items()}
        if len(self._records) < len(records):
            raise ModelFilesError(f"the weights in {folder} have tensors both with and without the prefix {prefix!r}")
        self._used: set[str] = set()

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of the tensor `name`."""
        return self._record(name).shape

    def read(self, name: str) -> np.ndarray[Any, Any]:
        """The tensor `name` as a read-only view of the file, in its stored type."""
        record = self._record(name)
        if record.dtype not in WEIGHT_DTYPES:
            raise UnsupportedError(
                f"{record.file}: {name} is {record.dtype}; onnxembed reads weights of {', '.join(WEIGHT_DTYPES)}"
            )
        dtype = np.dtype(DTYPES[record.dtype])
        if 0 in record.shape:
            return np.zeros(record.shape, dtype)  # nothing to map
        return np.memmap(record.file, dtype, "r", record.offset, record.shape)

    def unused(self) -> list[str]:
        """Names of the tensors that were neither read nor asked for their shape."""
        return sorted(self._records.keys() - self._used)

    def _record(self, name: str) -> TensorRecord:
        stem, _, last = name.rpartition(".")
        for known in (name, f"{stem}.{RENAMED.get(last, last)}"):
            if known in self._records:
                self._used.add(known)
                return self._records[known]
        raise ModelFilesError(f"the weights in {self.folder} have no tensor {name}")


def _records(folder: Path) -> dict[str, TensorRecord]:
    """All tensors of the folder: of model.safetensors, or of the shards that the index names."""
    if (folder / SINGLE).is_file():
        return _read_header(folder / SINGLE)
    if not (folder / INDEX).is_file():
        other = sorted(path.name for path in folder.glob("*.bin"))
        hint = f" (it has {', '.join(other)}; convert it to safetensors first)" if other else ""
        raise ModelFilesError(f"{folder} has no {SINGLE} and no {INDEX}{hint}")
    try:
        weight_map = dict(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"])
        outside = [shard for shard in weight_map.values() if not shard or Path(shard).name != shard]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelFilesError(f"{folder / INDEX} is not a safetensors index: {error!r}") from error
    if outside:
        raise ModelFilesError(f"{folder / INDEX} names {outside[0]!r}, which is outside the model's folder")
    shards = {}
    for shard in sorted(set(weight_map.values())):
        if not (folder / shard).is_file():
            raise ModelFilesError(f"{folder} lacks {shard}, which {INDEX} names")
        shards[shard] = _read_header(folder / shard)
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            raise ModelFilesError(f"{folder / shard} lacks the tensor {name} that {INDEX} names")
    return {name: shards[shard][name] for name, shard in weight_map.items()}


def _read_header(path: Path) -> dict[str, TensorRecord]:
    """Parse and check a safetensors header: 8 bytes of length, JSON, then the tensors' bytes without gaps."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            raise ModelFilesError(f"{path} is not a safetensors file, or is cut short ({size} bytes)")
        text = file.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        records = {name: _parse_entry(path, 8 + length, entry) for name, entry in header.items()}
    except UnsupportedError:  # which is a ValueError, too
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelFilesError(f"{path} has a broken safetensors header: {error!r}") from error
    end = 8 + length
    for name, record in sorted(records.items(), key=lambda item: (item[1].offset, item[1].end)):
        if record.offset != end:
            raise ModelFilesError(f"{path} has a broken safetensors header: {name} does not begin where another ends")
        end = record.end
    if end != size:
        raise ModelFilesError(f"{path} is cut short or damaged: it has {size} bytes, but its tensors end at {end}")
    return records


def _parse_entry(path: Path, start: int, entry: dict[str, Any]) -> TensorRecord:
    dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in DTYPES:
        raise UnsupportedError(f"{path} has tensors of type {dtype}; onnxembed reads {', '.join(DTYPES)}")
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError(f"shape {shape} and offsets {begin}, {end} are not sizes")
    record = TensorRecord(path, dtype, shape, start + begin)
    if record.end != start + end:
        raise ValueError(f"shape {shape} of {dtype} does not fill bytes {begin} to {end}")
    return record
