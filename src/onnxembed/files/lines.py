"""Lines of a pipe or a terminal, and whether the next one is there already."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

PAUSE = 0.01
"""Seconds without a byte after which the writer is taken to wait for an answer."""

CHUNK = 2**16


class ReadyLines:
    """The lines of an open file descriptor, each with its line feed, read as they come.

    Raises io.UnsupportedOperation or OSError as reading does.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = b""
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        pieces: list[bytes] = []  # of a line that is longer than a chunk
        while not self._ended:
            line, feed, rest = self._buffer.partition(b"\n")
            if feed:
                self._buffer = rest
                yield b"".join((*pieces, line, feed))
                pieces = []
                continue
            pieces.append(line)
            self._buffer = os.read(self._descriptor, CHUNK)
            self._ended = not self._buffer
        if last := b"".join(pieces):
            yield last

    def ready(self) -> bool:
        """Whether a line or the end is there, or comes within a moment."""
        if b"\n" in self._buffer or self._ended or os.name != "posix":  # elsewhere, pipes cannot be asked
            return True
        return bool(select.select([self._descriptor], [], [], PAUSE)[0])
