"""A checkpoint's tensors, by name, mapped from its safetensors files one at a time.

Each tensor is its own read-only memory map, dropped after use, so that reading a checkpoint never holds
more than the tensor at hand. (The safetensors library maps whole files: the pages read so far stay
resident, which for a large model is the whole checkpoint.)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from onnxembed.errors import ModelFilesError, UnsupportedError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

# https://github.com/huggingface/safetensors: the dtypes that weights of embedding models come in.
DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}

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


class Checkpoint:
    """The tensors of a checkpoint folder; remembers which were used.

    `prefix` is what task classes put before the encoder's names ("bert."); it is taken off.
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self.folder = folder
        self._records = {name.removeprefix(prefix): record for name, record in _records(folder).items()}
        self._used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of the tensor `name`."""
        return self._record(name).shape

    def read(self, name: str) -> np.ndarray[Any, Any]:
        """The tensor `name` as a read-only view of the file, in its stored type."""
        record = self._record(name)
        dtype = np.dtype(DTYPES[record.dtype])
        if 0 in record.shape:
            return np.zeros(record.shape, dtype)
        return np.memmap(record.file, dtype, "r", record.offset, record.shape)

    def unused(self) -> list[str]:
        """Names of the tensors that were neither read nor asked for their shape."""
        return sorted(self._records.keys() - self._used)

    def _find(self, name: str) -> str | None:
        if name in self._records:
            return name
        stem, _, last = name.rpartition(".")
        old = f"{stem}.{RENAMED.get(last, last)}"
        return old if old in self._records else None

    def _record(self, name: str) -> TensorRecord:
        found = self._find(name)
        if found is None:
            raise ModelFilesError(f"the weights in {self.folder} have no tensor {name}")
        self._used.add(found)
        return self._records[found]


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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFilesError(f"{folder / INDEX} is not a safetensors index: {error!r}") from error
    shards = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:
            raise ModelFilesError(f"{folder / INDEX} names {shard!r}, which is outside the model's folder")
        if not (folder / shard).is_file():
            raise ModelFilesError(f"{folder} lacks {shard}, which {INDEX} names")
        shards[shard] = _read_header(folder / shard)
    missing = [name for name, shard in weight_map.items() if name not in shards[shard]]
    if missing:
        raise ModelFilesError(f"{folder}: {weight_map[missing[0]]} lacks the tensor {missing[0]} that {INDEX} names")
    return {name: shards[shard][name] for name, shard in weight_map.items()}


def _read_header(path: Path) -> dict[str, TensorRecord]:
    """Parse and check a safetensors header: 8 bytes of length, JSON, then the tensors' bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            raise ModelFilesError(f"{path} is not a safetensors file, or is cut short ({size} bytes)")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            records = {name: _record(path, 8 + length, entry) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelFilesError(f"{path} has a broken safetensors header: {error!r}") from error
    for name, record in records.items():
        end = record.offset + int(np.prod(record.shape, dtype=np.int64)) * np.dtype(DTYPES[record.dtype]).itemsize
        if end > size:
            raise ModelFilesError(f"{path} is cut short: {name} ends at byte {end}, the file at {size}")
    return records


def _record(path: Path, start: int, entry: dict[str, Any]) -> TensorRecord:
    dtype, shape = entry["dtype"], tuple(int(n) for n in entry["shape"])
    if dtype not in DTYPES:
        raise UnsupportedError(f"{path} has tensors of type {dtype}; onnxembed reads {', '.join(DTYPES)}")
    begin, end = entry["data_offsets"]
    expected = int(np.prod(shape, dtype=np.int64)) * np.dtype(DTYPES[dtype]).itemsize
    if begin < 0 or min(shape, default=0) < 0 or end - begin != expected:
        raise ValueError(f"shape {shape} of {dtype} does not fill bytes {begin} to {end}")
    return TensorRecord(path, dtype, shape, start + begin)
