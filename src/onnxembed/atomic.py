"""Files that appear whole or not at all, and the rule of all outputs: what exists is replaced only when forced."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from onnxembed.errors import UsageError

# What only a write can fail with: the disk or the quota is full, or the process may write no larger files.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def refuse_replacing(path: Path, *, force: bool) -> None:
    """Raise UsageError for an output that exists, a broken link included, unless `force` is given."""
    if os.path.lexists(path) and not force:
        raise UsageError(f"{path} exists; pass --force to replace it")


def refuse_overwriting_input(output: Path, inputs: Sequence[Path]) -> None:
    """Raise UsageError for an output that is an input, or a folder around one, by any of its names."""
    if not output.exists():
        return
    for source in inputs:
        absolute = source.absolute()
        if absolute.exists() and any(os.path.samefile(output, place) for place in (source, *absolute.parents)):
            which = "is" if os.path.samefile(output, source) else "contains"
            raise UsageError(f"the output {output} {which} the input {source}: write to another place")


def write_whole(path: Path, write: Callable[[IO[bytes]], int], *, force: bool) -> int:
    """Have `write` write a file and return a number, which is returned; on an error the path stays as it was.

    With `force`, an existing file is replaced; through a link, the file that it leads to.

    Raises UsageError if the path exists and `force` is not given, if no file can be created beside it, or if the
    disk is full.
    """
    refuse_replacing(path, force=force)
    target = path.resolve()
    # Nobody can guess the name, and "x" follows no link: in a shared folder nobody can lead it elsewhere.
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        file = draft.open("xb")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    try:
        with naming_full_disks(path), file:
            count = write(file)
        refuse_replacing(path, force=force)  # it may have been created meanwhile
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return count


@contextmanager
def naming_full_disks(path: Path) -> Iterator[None]:
    """Turn the error of a disk that is full into a UsageError that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
