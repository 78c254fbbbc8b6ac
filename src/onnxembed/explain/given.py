"""What is given to explain: texts beside vectors, checked, with the rows that say nothing left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxembed.arguments import check_text
from onnxembed.arrays import Array, FloatArray, IntArray
from onnxembed.counting import counted
from onnxembed.errors import UsageError

FEWEST = 3
"""With fewer rows, a cause that fits may fit by chance."""

MOST = 64
"""The search looks at this many texts, spread over all lengths; more cost time and tell little more."""


@dataclass(frozen=True)
class Given:
    """The texts to look at, their vectors [N, D], their places among all texts, and what is to be said about it."""

    texts: list[str]
    vectors: FloatArray
    everything: FloatArray
    """All usable vectors [M, D], those of texts that are not looked at included."""
    places: IntArray
    unusable: int
    """How many of their vectors are NaN or zero, so that they were left out."""
    notes: tuple[str, ...]


def checked(texts: Sequence[str], vectors: Array) -> Given:
    """The usable rows. Raises UsageError for arrays that cannot belong to the texts, and for too few usable rows."""
    if isinstance(texts, str):
        raise UsageError("texts is one text, not a list of texts: a cause needs several to be told from others")
    checked_texts = [check_text(text, f"texts[{place}]") for place, text in enumerate(texts)]
    array = _numbers(vectors)
    if array.ndim != 2:
        raise UsageError(f"their vectors have the shape {array.shape}, not (texts, dimensions)")
    if len(array) != len(checked_texts):
        raise UsageError(
            f"there are {counted(len(array), 'vector')} and {counted(len(checked_texts), 'text')}: "
            "give the texts that the vectors were "
            "made of, in their order"
        )
    broken: Array = np.logical_not(np.isfinite(array).all(axis=1))
    empty: Array = np.logical_not(broken) & (np.abs(array).max(axis=1) == 0)
    notes = [f"left out for NaN or infinity: {_rows(broken)}"] if broken.any() else []
    notes += [f"left out because they are zero: {_rows(empty)}"] if empty.any() else []
    usable = np.flatnonzero(~(broken | empty))
    if len(usable) < FEWEST:
        left = f" ({'; '.join(notes)})" if notes else ""
        raise UsageError(f"{len(usable)} usable texts are too few to tell a cause: give at least {FEWEST}{left}")
    everything = array[usable]
    if len(usable) > MOST:
        by_length = sorted(usable.tolist(), key=lambda place: len(checked_texts[place]))
        chosen = np.linspace(0, len(by_length) - 1, MOST).round().astype(int)
        notes.append(f"the search looked at {MOST} of {len(usable)} texts, spread over all lengths")
        usable = np.array(sorted(by_length[place] for place in chosen), np.int64)
    unusable = int((broken | empty).sum())
    return Given([checked_texts[place] for place in usable], array[usable], everything, usable, unusable, tuple(notes))


def _numbers(vectors: Array) -> FloatArray:
    try:
        array = np.asarray(vectors)
        if array.dtype.kind not in "fiu":
            raise ValueError(f"their type is {array.dtype}")
        return array.astype(np.float32)
    except (ValueError, TypeError) as error:
        raise UsageError(f"their vectors are not an array of numbers, one row per text: {error}") from None


def _rows(which: Array) -> str:
    places = np.flatnonzero(which).tolist()
    shown = ", ".join(map(str, places[:5])) + (", ..." if len(places) > 5 else "")
    return f"{counted(len(places), 'row')} of their vectors (texts[{shown}])"
