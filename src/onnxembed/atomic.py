"""Files that appear whole or not at all, and the rule of all outputs: what exists is replaced only when forced."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
    remove_abandoned(target)
    try:
        draft, holder = new_draft(target, lambda name: name.open("xb").close())
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    try:
        with naming_full_disks(path), draft.open("r+b") as file:
            count = write(file)
        refuse_replacing(path, force=force)  # it may have been created meanwhile
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
        release(holder)
    return count


def new_draft(target: Path, create: Callable[[Path], None]) -> tuple[Path, int | None]:
    """A new file or folder beside `target`, as `create` makes it, and the lock that this process holds on it.

    A lock ends with its process, however that ends: `remove_abandoned` takes only what nobody holds. None where the
    system or the disk has no locks.
    """
    while True:
        # Nobody can guess the name, and creating follows no link: in a shared folder nobody can lead it elsewhere.
        draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        create(draft)
        holder = _lock(draft, wait=True)
        if _is_there(draft, holder):
            return draft, holder
        release(holder)  # another process took it for abandoned before it was locked


def release(holder: int | None) -> None:
    """Give up the lock of a draft."""
    if holder is not None:
        os.close(holder)


def remove_abandoned(target: Path) -> None:
    """Remove the drafts of `target` whose processes are gone: killed, or cut off from power."""
    for draft in siblings(target, "part"):
        holder = _lock(draft, wait=False)
        if holder is None:
            continue
        if draft.is_dir():
            remove_folder(draft)
        else:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
        release(holder)


def siblings(target: Path, suffix: str) -> list[Path]:
    """What stands beside `target` under its name, eight digits and the suffix, and belongs to this user.

    Nothing on Windows, where no lock says whose process is gone.
    """
    if os.name != "posix":
        return []
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.{suffix}")
    try:
        with os.scandir(target.parent) as entries:
            names = [entry.name for entry in entries if pattern.fullmatch(entry.name)]
        return [path for path in map(target.with_name, sorted(names)) if _is_ours(path)]
    except OSError:  # a folder that is not there, or cannot be listed
        return []


def remove_folder(folder: Path) -> None:
    """Remove a folder as far as possible."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _is_ours(path: Path) -> bool:
    """Whether it is a file or folder of this user, and no link."""
    found = path.lstat()
    return (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)) and found.st_uid == os.geteuid()


def _lock(path: Path, *, wait: bool) -> int | None:
    """Lock a file or folder for this process alone; None if another process holds it, or nothing can be locked."""
    if os.name != "posix":
        return None
    import fcntl  # not on Windows

    try:
        holder = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(holder, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(holder)
        return None
    return holder


def _is_there(path: Path, holder: int | None) -> bool:
    try:
        found = path.lstat()
        return holder is None or os.path.samestat(found, os.fstat(holder))
    except FileNotFoundError:
        return False


@contextmanager
def naming_full_disks(path: Path) -> Iterator[None]:
    """Turn the error of a disk that is full into a UsageError that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
