"""Lengths -> runs: which texts go through the graph together, with as little padding as possible.

On a CPU, every padded slot costs as much as a real token, and a run without padding uses a faster attention kernel,
so texts of equal length run together. Only a run that is too small to keep the matrix products busy takes slightly
shorter texts, too. A GPU needs far larger runs to be busy, so there every run does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

CPU_TOKENS_PER_RUN = 512
"""A run on the CPU holds at most this many slots (texts x longest), unless one text alone is longer.

Matrix products reach their full rate at about 64 rows, and lose some of it above 512, where the activations no longer
fit into the cache; in between, every budget is equally fast. A small one also shares the work more evenly.
"""

GPU_TOKENS_PER_RUN = 16384
"""A run on a GPU holds at most this many slots, unless one text alone is longer. Not measured yet."""

SMALL_RUN = 64
"""A run of fewer tokens may take texts of other lengths, because its products are too small to be efficient."""

MAX_PADDING = 0.25
"""The largest share of padded slots in a small run."""

MAX_SPREAD = 2
"""Pooling may pad a packed run again; padded, it may hold this many times the budget."""


class Fits(Protocol):
    """Whether a run takes one more text."""

    def __call__(self, length: int, longest: int, tokens: int, slots: int) -> bool:
        """Decide from that text's tokens, the longest text's, those of all texts before it, and the run's slots.

        The slots are those of all texts, the new one included, each padded to the longest.
        """


def plan_runs(
    lengths: Sequence[int], tokens_per_run: int = CPU_TOKENS_PER_RUN, small_run: int = SMALL_RUN
) -> list[list[int]]:
    """Group texts into runs.

    Takes the number of tokens of each text; returns lists of their indices, longest texts first, each index once.
    Every run holds at most `tokens_per_run` slots, or a single text. While a run has fewer than `small_run` tokens, it
    may take texts of other lengths.
    """

    def fits(length: int, longest: int, tokens: int, slots: int) -> bool:
        padded = tokens < small_run and slots - tokens - length <= MAX_PADDING * slots
        return (length == longest or padded) and slots <= tokens_per_run

    return _group(lengths, fits)


def plan_single(lengths: Sequence[int]) -> list[list[int]]:
    """Each text in a run of its own, the longest first."""
    return [[index] for index in sorted(range(len(lengths)), key=lambda i: -lengths[i])]


def plan_packed(lengths: Sequence[int], tokens_per_run: int) -> list[list[int]]:
    """Group texts of any lengths into runs without padding; otherwise as `plan_runs`."""

    def fits(length: int, longest: int, tokens: int, slots: int) -> bool:
        return tokens + length <= tokens_per_run and slots <= MAX_SPREAD * tokens_per_run

    return _group(lengths, fits)


def _group(lengths: Sequence[int], fits: Fits) -> list[list[int]]:
    runs: list[list[int]] = []
    longest = tokens = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        if runs and fits(length, longest, tokens, (len(runs[-1]) + 1) * longest):
            runs[-1].append(index)
            tokens += length
        else:
            runs.append([index])
            longest = tokens = length
    return runs
