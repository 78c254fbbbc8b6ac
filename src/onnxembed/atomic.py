"""A file that appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from onnxembed.errors import UsageError


def write_whole(path: Path, write: Callable[[IO[bytes]], int]) -> int:
    """Have `write` write a file and return a number, which is returned; on an error the path stays as it was.

    Raises UsageError if no file can be created beside `path`.
    """
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
