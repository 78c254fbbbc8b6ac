"""The artifact folder: it appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from onnxembed.atomic import (
    naming_full_disks,
    new_draft,
    refuse_overwriting_input,
    refuse_replacing,
    release,
    remove_abandoned,
    remove_folder,
    siblings,
)
from onnxembed.errors import UsageError
from onnxembed.manifest import FILE_NAME

OLD = ".old"
"""The ending of a folder that is being replaced."""


@contextmanager
def new_folder(output: Path, *, force: bool) -> Iterator[Path]:
    """A temporary folder beside `output` that becomes `output` when the block succeeds.

    Raises UsageError when `output` exists, unless `force` is given and it holds an artifact (or nothing).
    Any failure, Ctrl-C included, leaves `output` as it was.
    """
    _clean_up(output.resolve())
    check_output(output, force=force)
    output = output.resolve()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        draft, holder = new_draft(output, Path.mkdir)
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror}") from error
    old = draft.with_suffix(OLD)
    try:
        with naming_full_disks(output):
            yield draft
        check_output(output, force=force)  # it may have been created meanwhile
        if output.exists():
            output.rename(old)
        draft.rename(output)
    finally:
        if old.exists() and not output.exists():
            old.rename(output)
        remove_folder(draft)
        remove_folder(old)
        release(holder)


def _clean_up(output: Path) -> None:
    """Remove what killed runs left beside `output`; the folder that one of them was about to replace comes back."""
    remove_abandoned(output)
    for old in siblings(output, OLD.removeprefix(".")):
        if old.with_suffix(".part").exists():  # of a process that goes on
            continue
        if output.exists():
            remove_folder(old)
        else:
            old.rename(output)


def check_output(output: Path, *, force: bool, inputs: Sequence[Path] = ()) -> None:
    """Raise UsageError for an `output` that must not be replaced: it is none of ours, or `inputs` lie in it."""
    if os.path.ismount(output):
        raise UsageError(f"{output} is a mount point, which no folder can replace; give a folder in it with -o")
    if not output.exists():
        refuse_replacing(output, force=False)  # a broken link
        return
    if not output.is_dir():
        raise UsageError(f"{output} is a file; give a folder with -o")
    refuse_overwriting_input(output, inputs)
    if any(output.iterdir()):
        if not (output / FILE_NAME).is_file():
            raise UsageError(f"{output} exists and is not an onnxembed artifact; give another folder with -o")
        refuse_replacing(output, force=force)
