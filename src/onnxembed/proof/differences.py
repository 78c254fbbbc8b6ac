"""The largest differences between what a graph gives and what it should give."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from onnxembed.arrays import FloatArray, row_cosines
from onnxembed.errors import VerificationError
from onnxembed.proof.limits import Limits
from onnxembed.tokenizer.pairs import Pair


def quote(item: str | Pair) -> str:
    """The beginning of an item, for a message."""
    return f"{item[:40]!r}" if isinstance(item, str) else f"({item[0][:30]!r}, {item[1][:30]!r})"


class Differences:
    """The largest differences between what a graph gives and what it should give.

    Args:
        precision: the graph's precision, for messages.
        what: what is compared, for messages, such as "vectors".
        limits: the limits for vectors of length 1. The limit on differences grows with the longest expected vector.
            None if differences are only measured.
    """

    def __init__(self, precision: str, what: str, limits: Limits | None) -> None:
        self.max_abs_diff, self.min_cosine = 0.0, 1.0
        self._precision, self._what, self._limits = precision, what, limits
        self._length = 1.0
        self._worst: str | Pair = ""
        self._by_way: dict[str, float] = {}  # the largest difference in each way of running

    def add(
        self, way: str, items: Iterable[str | Pair], ours: Iterable[FloatArray], theirs: Iterable[FloatArray]
    ) -> None:
        """Compare an array [rows, D] for each item with the array that is expected; `way` says how they were run.

        Raises VerificationError for another shape, and for numbers that are not finite.
        """
        for item, actual, expected in zip(items, ours, theirs, strict=True):
            self._check(way, item, actual, expected)
            if not actual.size:
                continue
            difference = float(np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max())
            self._by_way[way] = max(self._by_way.get(way, 0.0), difference)
            if difference > self.max_abs_diff:
                self.max_abs_diff, self._worst = difference, item
            self.min_cosine = min(self.min_cosine, float(row_cosines(actual, expected).min()))
            self._length = max(self._length, float(np.linalg.norm(expected.astype(np.float64), axis=1).max()))

    def _check(self, way: str, item: str | Pair, ours: FloatArray, theirs: FloatArray) -> None:
        if ours.shape != theirs.shape:
            raise VerificationError(
                f"{self._precision} {self._what} of {quote(item)} have the shape {ours.shape}, "
                f"should have {theirs.shape} (run {way})"
            )
        for whose, array in ((self._precision, ours), ("the reference's", theirs)):
            if not np.isfinite(array).all():
                raise VerificationError(f"{whose} {self._what} are not finite (run {way})")

    @property
    def limits(self) -> Limits | None:
        """The limits that apply; None if differences are only measured."""
        return self._limits and self._limits.for_length(self._length)

    @property
    def fault(self) -> str:
        """Which limits are exceeded and by what, in words; "" if none is."""
        limits = self.limits
        if limits is None:
            return ""
        floor = limits.min_cosine
        if self.max_abs_diff <= limits.max_abs_diff and (floor is None or self.min_cosine >= floor):
            return ""
        cosine = "" if floor is None else f", min cosine {self.min_cosine:.6f} (at least {floor:g})"
        ways = ", ".join(f"{way} {difference:.1e}" for way, difference in self._by_way.items())
        return (
            f"max abs difference {self.max_abs_diff:.1e} (at most {limits.max_abs_diff:g}){cosine}; "
            f"by way of running: {ways}; worst for {quote(self._worst)}"
        )

    def judge(self, verdict: str) -> Limits | None:
        """The limits that applied, None if there were none; VerificationError, with `verdict`, if one is exceeded."""
        if fault := self.fault:
            raise VerificationError(f"{self._precision} {self._what} are {verdict}: {fault}")
        return self.limits

    def same_among_others(self, item: str) -> str:
        """A sentence about a graph that was compared with itself; raises as `judge` does."""
        conditions = f"for a {item} alone and among others"
        if self.judge(f"not the same {conditions}"):
            return f"the same {conditions}"
        return f"up to {self.max_abs_diff:.1e} apart {conditions}, min cosine {self.min_cosine:.6f}"
