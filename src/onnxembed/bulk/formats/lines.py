"""The lines of a file, compressed or not, one after another in bounded memory."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from onnxembed.bulk.arrow import pa
from onnxembed.bulk.rows import MAX_LINE
from onnxembed.errors import UsageError

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
"""Endings of compressed files, and Arrow's names of what made them."""

# Bytes that are read at a time.
_CHUNK = 2**20


class Lines:
    """The lines of a file, without their ends. A line that is too long to be held is None."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = max(1, path.stat().st_size)
        self._file = pa.OSFile(os.fsencode(path).decode("utf-8", "surrogateescape"))
        codec = COMPRESSIONS.get(path.suffix.lower())
        self._given = 0  # bytes
        self._stream: Any = self._file if codec is None else pa.CompressedInputStream(self._file, codec)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stream.close()
        self._file.close()

    @property
    def share(self) -> float:
        """Which share of the file has been given as lines; of a compressed file, which share has been read."""
        done = self._given if self._stream is self._file else self._file.tell()
        return float(min(1.0, done / self._size))

    def __iter__(self) -> Iterator[bytes | None]:
        with naming_damage(self._path):
            yield from self._lines()

    def _lines(self) -> Iterator[bytes | None]:
        pieces: list[bytes] = []
        length = 0
        chunk = self._stream.read(_CHUNK).removeprefix(codecs.BOM_UTF8)  # written by editors on Windows
        while chunk:
            start = 0
            while (end := chunk.find(b"\n", start)) >= 0:
                length += end - start
                self._given += end + 1 - start
                yield None if length > MAX_LINE else b"".join((*pieces, chunk[start:end])).removesuffix(b"\r")
                pieces, length, start = [], 0, end + 1
            length += len(chunk) - start
            self._given += len(chunk) - start
            if length <= MAX_LINE:
                pieces.append(chunk[start:])
            else:
                pieces = []
            chunk = self._stream.read(_CHUNK)
        if length:
            yield None if length > MAX_LINE else b"".join(pieces).removesuffix(b"\r")


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Turn an error of Arrow while reading into a UsageError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        cause = str(error).partition("\n")[0]
        raise UsageError(f"{path} cannot be read to its end, it may be damaged ({cause}): restore the file") from error
