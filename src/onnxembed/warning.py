"""Warnings that point at the caller's line, however deep inside the package they arise."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial


def warn(message: str) -> None:
    """Warn at the innermost line outside onnxembed: the one that its author can change."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "onnxembed":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


@dataclass(frozen=True, eq=False)
class Once:
    """A warning that is given once, however many threads come upon it."""

    # Taken in one step, so no lock is needed, which a forked child might find held for ever.
    _chance: Iterator[bool] = field(default_factory=partial(iter, (True,)))

    def warn(self, message: str) -> None:
        """Warn as the function `warn` does, the first time only."""
        if next(self._chance, False):
            warn(message)
