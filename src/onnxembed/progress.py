"""How a long step reports its progress."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the name of the stage, how much of it is done, and how much there is: bytes, texts, files or batches."""


def silent(stage: str, done: int, total: int) -> None:
    """A Progress that reports nothing."""
