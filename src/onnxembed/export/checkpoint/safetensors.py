"""safetensors files: read and checked one tensor at a time, and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.checkpoint.tensor_record import DTYPES, TensorRecord
from onnxembed.foreign_errors import foreign_errors
from onnxembed.json_file import LFS_POINTER

MAX_HEADER = 100_000_000


def read_safetensors(path: Path) -> dict[str, TensorRecord]:
    """Parse and check a safetensors header: 8 bytes of length, JSON, then the tensors' bytes without gaps."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            file.seek(0)
            if file.read(len(LFS_POINTER)) == LFS_POINTER.encode():
                raise ModelFilesError(f"{path} is a git-lfs pointer, not the file itself; fetch it with: git lfs pull")
            raise ModelFilesError(f"{path} is not a safetensors file, or is cut short ({size} bytes)")
        text = file.read(length)
    with foreign_errors(f"{path} has a broken safetensors header"):
        header = json.loads(text)
        header.pop("__metadata__", None)
        records = {name: _parse_entry(path, 8 + length, entry) for name, entry in header.items()}
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


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write a safetensors file of float32 tensors."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor, dtype="<f4").tobytes())
