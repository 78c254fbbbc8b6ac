"""Texts from files, vectors to files: .txt and .jsonl in, .npy and .jsonl out. Everything streams."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from onnxembed.errors import UsageError
from onnxembed.sparse import SparseEmbedding
from onnxembed.streaming import check_text

FloatArray = NDArray[np.float32]

TEXT_FILES = (".txt", ".jsonl")
VECTOR_FILES = (".npy", ".jsonl")
LINE_FILES = (".jsonl",)


def read_texts(source: IO[bytes], name: str, field: str | None = None) -> Iterator[str]:
    """The texts of a file: its lines, or with `field` that field of its JSON lines (or the line, if a string).

    An empty line is an empty text, so that rows are lines; among JSON lines it is none. Raises UsageError
    naming the line that is not UTF-8, not JSON, or has no such field.
    """
    for number, line in enumerate(source, start=1):
        where = f"{name}, line {number}"
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)  # noqa: PLW2901  # Windows' editors write it
        try:
            text = line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UsageError(f"{where}: not UTF-8 ({error.reason})") from None
        if field is None:
            yield text
        elif text.strip():
            yield _field(text, field, where)


def _field(line: str, field: str, where: str) -> str:
    try:
        value: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        raise UsageError(f"{where}: not JSON that can be read ({error})") from None
    if isinstance(value, dict):
        if field not in value:
            raise UsageError(f"{where}: no {field!r} (it has: {', '.join(value) or 'nothing'}); see --field")
        where, value = f"{where}: {field!r}", value[field]
    return check_text(value, where)


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


def _write_whole(path: Path, write: Callable[[IO[bytes]], int]) -> int:
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        file = draft.open("wb")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    try:
        with file:
            count = write(file)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return count


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
