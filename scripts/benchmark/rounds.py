"""Alternating measurements, so that other load on the machine affects all systems alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

Item = TypeVar("Item")


def alternate(items: Sequence[Item], rounds: int) -> Iterator[Item]:
    """Every item once per round; each round starts one item later, and every other round runs backwards."""
    for number in range(rounds):
        start = number % len(items) if items else 0
        turn = [*items[start:], *items[:start]]
        yield from reversed(turn) if number % 2 else turn


@dataclass(frozen=True)
class Spread:
    """The median, minimum and maximum of repeated measurements."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Summarize repeated measurements."""
    return Spread(median(values), min(values), max(values))


def ratios(seconds: Sequence[float], baseline: Sequence[float]) -> Spread:
    """How many times as fast as the baseline, for each round."""
    return spread([theirs / ours for ours, theirs in zip(seconds, baseline, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
