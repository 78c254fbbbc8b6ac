"""Texts from files, vectors to files: .txt and .jsonl in, .npy and .jsonl out. Everything streams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from onnxembed.atomic import _write_whole
from onnxembed.errors import UsageError
from onnxembed.runtime.outputs.sparse import SparseEmbedding

FloatArray = NDArray[np.float32]

VECTOR_FILES = (".npy", ".jsonl")
LINE_FILES = (".jsonl",)


def check_vector_file(path: Path, formats: Sequence[str] = VECTOR_FILES, what: str = "vectors") -> None:
    """Raise UsageError for a path that vectors cannot be written to, before any work is done for it."""
    if path.suffix not in formats:
        raise UsageError(f"{path}: {what} are written to {' or '.join(formats)}")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a folder")
    if path.is_dir():
        raise UsageError(f"{path} is a folder")


def write_npy(path: Path, vectors: Iterable[FloatArray], dimension: int) -> int:
    """Write vectors [D] as they come to a .npy file, float32 [N, D]; returns how many.

    The file appears whole or not at all.
    """
    return _write_whole(path, lambda file: _stream_npy(file, vectors, dimension))


def write_lines(path: Path, lines: Iterable[bytes]) -> int:
    """Write lines as they come; returns how many. The file appears whole or not at all."""
    return _write_whole(path, lambda file: stream_lines(file, lines))


def _stream_npy(file: IO[bytes], vectors: Iterable[FloatArray], dimension: int) -> int:
    """numpy leaves room in the header for a first axis that grows, so the header can be written again."""
    _write_npy_header(file, 0, dimension)
    count = 0
    for vector in vectors:
        file.write(np.ascontiguousarray(vector, np.float32).data)
        count += 1
    file.seek(0)
    _write_npy_header(file, count, dimension)
    return count


def _write_npy_header(file: IO[bytes], count: int, dimension: int) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, dimension)}
    np.lib.format.write_array_header_1_0(file, header)


def stream_lines(file: IO[bytes], lines: Iterable[bytes]) -> int:
    """Write lines as they come; returns how many."""
    count = 0
    for line in lines:
        file.write(line + b"\n")
        count += 1
    return count


def vector_line(vector: FloatArray) -> bytes:
    """A vector [D] as a JSON array. Numbers round-trip to the same float32."""
    return b"[" + ", ".join(map(str, vector)).encode() + b"]"


def matrix_line(vectors: FloatArray) -> bytes:
    """Vectors [T, D] as a JSON array of arrays."""
    return b"[" + b", ".join(map(vector_line, vectors)) + b"]"


def sparse_line(embedding: SparseEmbedding) -> bytes:
    """A sparse embedding as a JSON object of its indices and values."""
    indices = str(embedding.indices.tolist()).encode()
    return b'{"indices": ' + indices + b', "values": ' + vector_line(embedding.values) + b"}"
