"""Progress on standard error, if that is a terminal; nothing is written to a file or a pipe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from tqdm import tqdm


def counter(items: Iterable[Any], description: str, unit: str, *, hidden: bool = False) -> tqdm[Any]:
    """The items, counted as they are read; a context manager that removes its line at the end."""
    return _bar(iterable=items, desc=description, unit=unit, delay=0.5, disable=hidden or None)


class ProgressLine:
    """A line for stages of known length: call it with a stage, and how many of its steps are done, of how many."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: tqdm[Any] | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far the stage is; a new stage replaces the line of the previous one."""
        if self._bar is None or stage != self._stage:
            self._close()
            self._stage, self._bar = stage, _bar(desc=stage, unit="", unit_scale=True, total=total, disable=None)
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _bar(**options: Any) -> tqdm[Any]:
    from tqdm import tqdm

    return tqdm(leave=False, **options)  # disable=None: hidden unless standard error is a terminal
