"""The sha256 of every file of an artifact: the largest are hashed while they are written, the others afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from onnxembed.manifest import CARD_FILE, FILE_NAME, FileRecord

if TYPE_CHECKING:
    from onnxembed.progress import Progress

CHUNK = 16 * 2**20


class HashedFile:
    """A new file that is hashed in a thread while it is written: hashing takes about as long as writing."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.size = 0
        self._digest = hashlib.sha256()
        self._file = path.open("wb")
        self._hashing = ThreadPoolExecutor(1, "hashing")
        self._last: Future[None] | None = None

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._hashing.shutdown()
        self._file.close()

    def write(self, piece: bytes | memoryview) -> None:
        """Append a piece, which must not change afterwards; at most two pieces are in memory at a time."""
        self._wait()
        self._last = self._hashing.submit(self._digest.update, piece)
        self._file.write(piece)
        self.size += len(piece)

    def record(self) -> FileRecord:
        """The size and sha256 of what has been written."""
        self._wait()
        return FileRecord(self._digest.hexdigest(), self.size)

    def _wait(self) -> None:
        if self._last:
            self._last.result()


def hash_files(folder: Path, progress: Progress, hashed: Mapping[str, FileRecord]) -> dict[str, FileRecord]:
    """sha256 and size of every file except the manifest and the card, sorted by name.

    `hashed` files are not read again.
    """
    paths = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (FILE_NAME, CARD_FILE)
    }
    total = sum(path.stat().st_size for name, path in paths.items() if name not in hashed)
    done = 0
    records = {}
    for name, path in paths.items():
        if name in hashed:
            records[name] = hashed[name]
            continue
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                done += len(chunk)
                progress("hashing", done, total)
        records[name] = FileRecord(digest.hexdigest(), path.stat().st_size)
    return records
