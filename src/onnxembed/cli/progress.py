"""Progress on standard error, if that is a terminal; nothing is written to a file or a pipe."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from tqdm import tqdm

# Stage, bar, share, and the time that is left; in that order, so that a narrow terminal cuts the time.
STAGES = "{desc}: {percentage:3.0f}% |{bar}| {elapsed}, {remaining} left"
COUNTED = "{desc}: {n:,} of {total:,} {unit} |{bar}| {rate_fmt}, {remaining} left"
UNCOUNTED = "{desc}: {n:,} {unit}, {elapsed}, {rate_fmt}"


def counter(
    items: Iterable[Any], description: str, unit: str, *, total: int | None = None, hidden: bool = False
) -> tqdm[Any]:
    """The items, counted as they are read, of `total` if that is known; removes its line at the end."""
    shape = UNCOUNTED if total is None else COUNTED
    return _bar(
        iterable=items, desc=description, unit=unit, total=total, delay=0.5, disable=hidden or None, shape=shape
    )


def count_lines(file: IO[bytes]) -> int | None:
    """How many lines a file has, if somebody watches the progress and it is a file that can be read twice."""
    if not (sys.stderr.isatty() and stat.S_ISREG(os.fstat(file.fileno()).st_mode)):
        return None
    lines, last = 0, b"\n"
    while chunk := file.read(2**20):
        lines, last = lines + chunk.count(b"\n"), chunk[-1:]
    file.seek(0)
    return lines if last == b"\n" else lines + 1


class ProgressLine:
    """A line for stages of known length: call it with a stage, and how many of its steps are done, of how many."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: tqdm[Any] | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far the stage is; a new stage replaces the line of the previous one."""
        if self._bar is None or stage != self._stage:
            self._close()
            # A stage of one step has no share to show: it stands until it is over.
            shape = "{desc} ..." if total == 1 else STAGES
            self._stage, self._bar = stage, _bar(desc=stage, total=total, disable=None, shape=shape)
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _bar(*, shape: str, **options: Any) -> tqdm[Any]:
    from tqdm import tqdm

    # disable=None: hidden unless standard error is a terminal
    return tqdm(leave=False, bar_format=shape, dynamic_ncols=True, **options)
