"""Files in the format of torch.save, written by hand: a pickle, instruction by instruction, in a zip archive."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

STORAGES = {
    np.dtype(np.float64): "torch.DoubleStorage",
    np.dtype(np.float32): "torch.FloatStorage",
    np.dtype(np.float16): "torch.HalfStorage",
    np.dtype(ml_dtypes.bfloat16): "torch.BFloat16Storage",
    np.dtype(np.int64): "torch.LongStorage",
}

STOP = b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def group(*values: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(values) + b"t"


def numbers(*values: int) -> bytes:
    return group(*map(number, values))


def global_name(name: str) -> bytes:
    """A global, by module.name."""
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def call(name: str, *arguments: bytes) -> bytes:
    return global_name(name) + group(*arguments) + b"R"


def table(entries: Mapping[str, bytes]) -> bytes:
    """An OrderedDict, as state dicts are."""
    return ORDERED + b"(" + b"".join(text(name) + value for name, value in entries.items()) + b"u"


ORDERED = global_name("collections.OrderedDict") + b")R"


def storage(key: str, elements: int, kind: str = "torch.FloatStorage") -> bytes:
    return group(text("storage"), global_name(kind), text(key), text("cpu"), number(elements)) + b"Q"


def tensor(data: bytes, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    """A view of the storage `data`."""
    rest = (number(offset), numbers(*shape), numbers(*strides), b"\x89", ORDERED)
    return call("torch._utils._rebuild_tensor_v2", data, *rest)


def write_archive(
    path: Path,
    program: bytes,
    storages: Mapping[str, bytes] | None = None,
    *,
    root: str = "tiny",
    compression: int = zipfile.ZIP_STORED,
    others: Mapping[str, bytes] | None = None,
) -> None:
    """Write the zip archive with a pickle and its storages; `others` are further members, by full name."""
    members = {
        f"{root}/data.pkl": b"\x80\x02" + program + STOP,
        f"{root}/byteorder": b"little",
        **{f"{root}/data/{key}": data for key, data in (storages or {}).items()},
        f"{root}/version": b"3\n",
        **(others or {}),
    }
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def write_torch(path: Path, tensors: Mapping[str, NDArray[Any]], *, root: str = "tiny") -> None:
    """Write a state dict of whole tensors, each in its own storage."""
    entries, storages = {}, {}
    for key, (name, array) in enumerate(tensors.items()):
        strides = tuple(stride // array.itemsize for stride in np.ascontiguousarray(array).strides)
        entries[name] = tensor(storage(str(key), array.size, STORAGES[array.dtype]), array.shape, strides)
        storages[str(key)] = array.tobytes()
    write_archive(path, table(entries), storages, root=root)
