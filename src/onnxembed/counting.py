"""Numbers of things in messages: one text, two texts."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """The number and the thing, in the plural unless it is one: 1 vector of 8 numbers, 1,024 vectors of 8 numbers."""
    noun, of, rest = thing.partition(" of ")
    return f"{number:,} {noun}{'' if number == 1 else 's'}{of}{rest}"
