"""A bar that counts the texts of a stream, in a terminal or a notebook."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

Blocks = Generator[tuple[list[Item], Result], None, None]
"""Windows of a stream with their results."""


def shown(blocks: Blocks[Item, Result], total: int | None, unit: str) -> Blocks[Item, Result]:
    """The same blocks, counted by their items as they pass; `total` is how many items there will be, if that is known.

    tqdm comes with the hub client; it chooses a form that suits a notebook or a terminal.
    """
    from tqdm.auto import tqdm

    with tqdm(total=total, unit=unit) as bar:
        for window, result in blocks:
            bar.update(len(window))
            yield window, result
