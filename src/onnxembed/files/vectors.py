"""Vectors to .npy and .jsonl files, as they stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from onnxembed.arrays import Array, FloatArray
from onnxembed.atomic import write_whole
from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.files.given_vectors import read_npy
from onnxembed.quantization import OutputDtype, check_ranges, numpy_type, quantization_ranges
from onnxembed.runtime.outputs.sparse import SparseEmbedding

VECTOR_FILES = (".npy", ".jsonl")
"""The suffixes of files for dense vectors."""

LINE_FILES = (".jsonl",)
"""The suffixes of files for sparse and multi-vector embeddings."""


def check_vector_file(path: Path, formats: Sequence[str] = VECTOR_FILES, what: str = "vectors") -> None:
    """Raise UsageError for a path that cannot be written to; `what` names the content in the message."""
    if path.suffix not in formats:
        raise UsageError(
            f"{path}: {what} are written to {' or '.join(formats)}, or as parquet files to a folder, -o {path}/"
        )
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a folder")
    if path.is_dir():
        raise UsageError(f"{path} is a folder")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is a pipe or a device; print the {what} instead, and redirect them: > {path}")


def write_npy(
    path: Path, vectors: Iterable[Array], width: int, dtype: OutputDtype = "float32", *, force: bool = False
) -> int:
    """Write vectors [width] of a type to a .npy file as they arrive, [N, width]; returns N.

    The file appears whole or not at all. Raises what `write_whole` does, and ModelFilesError for a vector of
    another length.
    """
    return write_whole(path, lambda file: _stream_npy(file, vectors, width, numpy_type(dtype)), force=force)


def write_lines(path: Path, lines: Iterable[bytes], *, force: bool = False) -> int:
    """Write lines to a file as they arrive; returns how many. The file appears whole or not at all.

    Raises what `write_whole` does.
    """
    return write_whole(path, lambda file: stream_lines(file, lines), force=force)


def _stream_npy(file: IO[bytes], vectors: Iterable[Array], width: int, kind: np.dtype[Any]) -> int:
    """Write the header twice: numpy leaves room in it for the first axis to grow."""
    _write_npy_header(file, 0, width, kind)
    count = 0
    for vector in vectors:
        if vector.shape != (width,):
            raise ModelFilesError(f"a vector has shape {vector.shape}, but all have {width} numbers in a .npy file")
        file.write(np.ascontiguousarray(vector, kind).data)
        count += 1
    file.seek(0)
    _write_npy_header(file, count, width, kind)
    return count


def _write_npy_header(file: IO[bytes], count: int, width: int, kind: np.dtype[Any]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (count, width)}
    np.lib.format.write_array_header_1_0(file, header)


def read_ranges(path: Path) -> FloatArray:
    """The ranges of 8-bit vectors, float32 [2, D], from a .npy file of them, or of vectors [M, D] to take them from.

    Raises UsageError for a file that holds neither.
    """
    numbers = read_npy(path)
    if not isinstance(numbers, np.ndarray) or numbers.ndim != 2 or not np.issubdtype(numbers.dtype, np.floating):
        raise UsageError(f"{path} holds neither ranges [2, D] nor vectors [M, D] of floats to take them from")
    return check_ranges(numbers, numbers.shape[1]) if len(numbers) == 2 else quantization_ranges(numbers)


def stream_lines(file: IO[bytes], lines: Iterable[bytes]) -> int:
    """Write lines to an open file as they arrive; returns how many."""
    count = 0
    for line in lines:
        file.write(line + b"\n")
        count += 1
    return count


def vector_line(vector: Array) -> bytes:
    """A vector [D] as a JSON array, whose numbers read back as the same numbers of its type."""
    return b"[" + ", ".join(map(str, vector)).encode() + b"]"


def matrix_line(vectors: FloatArray) -> bytes:
    """Vectors [T, D] as a JSON array of arrays."""
    return b"[" + b", ".join(map(vector_line, vectors)) + b"]"


def sparse_line(embedding: SparseEmbedding) -> bytes:
    """A sparse embedding as a JSON object with its indices and values."""
    indices = str(embedding.indices.tolist()).encode()
    return b'{"indices": ' + indices + b', "values": ' + vector_line(embedding.values) + b"}"
