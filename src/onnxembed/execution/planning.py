"""Lengths -> runs: which texts go through the graph together, with as little padding as possible.

On a CPU, every padded slot costs as much as a real token, so texts of equal length run together. What is left of each
length is a small run, and each run costs something before its first token, so a few such leftovers may share a run and
be padded: the cheapest division is chosen. A GPU needs far larger runs to be busy, so there every run takes slightly
shorter texts.

A text without tokens has nothing to attend to but padding, so its vector would depend on how much there is: such texts
run among themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

CPU_TOKENS_PER_RUN = 512
"""A run on the CPU holds at most this many slots (texts x longest), unless one text alone is longer.

Matrix products reach their full rate at about 64 rows, and lose some of it above 512, where the activations no longer
fit into the cache; in between, every budget is equally fast. A small one also shares the work more evenly.
"""

GPU_TOKENS_PER_RUN = 16384
"""A run on a GPU holds at most this many slots, unless one text alone is longer. Not measured yet."""

RUN_COST = 10
"""A run on the CPU costs as much as this many slots, before its first one: all weights are read from memory once.

On MiniLM with one thread of a Zen 2 core, 10 slots take 6.4 ms, 80 take 25 ms and 510 take 142 ms. Weights and products
grow together, so the number is about the same for larger models.
"""

LONGEST_PADDED = 64
"""Longer texts are never padded on the CPU: their attention would lose more without its faster kernel than it gains."""

MAX_PADDING = 0.25
"""The largest share of padded slots in a run on a GPU."""

MAX_SPREAD = 2
"""Pooling may pad a packed run again; padded, it may hold this many times the budget."""


class Fits(Protocol):
    """Whether a run takes one more text."""

    def __call__(self, length: int, tokens: int, slots: int) -> bool:
        """Decide from that text's tokens, those of all texts before it, and the run's slots.

        The slots are those of all texts, the new one included, each padded to the longest.
        """


def plan_runs(
    lengths: Sequence[int], tokens_per_run: int = CPU_TOKENS_PER_RUN, run_cost: int = RUN_COST
) -> list[list[int]]:
    """Group texts into the runs that together cost least: `run_cost` each, and 1 for every slot.

    Takes the number of tokens of each text; returns lists of their indices, runs of longest texts first, each index
    once. Every run holds at most `tokens_per_run` slots, or a single text. No run is padded if `run_cost` is 0.
    """
    of_length: dict[int, list[int]] = {}
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        of_length.setdefault(lengths[index], []).append(index)
    runs: list[list[int]] = []
    small: list[list[int]] = []
    for length, texts in of_length.items():
        at_once = max(1, tokens_per_run // max(1, length))
        full = len(texts) - len(texts) % at_once
        runs += [texts[first : first + at_once] for first in range(0, full, at_once)]
        if texts[full:]:
            (small if 0 < length <= LONGEST_PADDED else runs).append(texts[full:])
    runs += _cheapest(small, lengths, tokens_per_run, run_cost)
    return sorted(runs, key=lambda run: -lengths[run[0]])


def _cheapest(
    groups: Sequence[list[int]], lengths: Sequence[int], tokens_per_run: int, run_cost: int
) -> list[list[int]]:
    """Join neighbors among groups of equal texts, the longest texts first, where that is cheaper."""
    least = [0.0]  # what the first groups cost together, for each number of groups
    begins: list[int] = []  # where the last run of these begins
    for end in range(1, len(groups) + 1):
        least.append(math.inf)
        begins.append(0)
        texts = 0
        for begin in range(end - 1, -1, -1):
            texts += len(groups[begin])
            slots = texts * lengths[groups[begin][0]]
            if begin < end - 1 and slots > tokens_per_run:
                break
            if least[begin] + run_cost + slots < least[end]:
                least[end], begins[-1] = least[begin] + run_cost + slots, begin
    runs = []
    end = len(groups)
    while end:
        runs.append([index for group in groups[begins[end - 1] : end] for index in group])
        end = begins[end - 1]
    return runs


def plan_padded(lengths: Sequence[int], tokens_per_run: int) -> list[list[int]]:
    """Group texts into runs that take slightly shorter texts, too; otherwise as `plan_runs`."""

    def fits(length: int, tokens: int, slots: int) -> bool:
        return slots - tokens - length <= MAX_PADDING * slots and slots <= tokens_per_run

    return _group(lengths, fits)


def plan_single(lengths: Sequence[int]) -> list[list[int]]:
    """Each text in a run of its own, the longest first."""
    return [[index] for index in sorted(range(len(lengths)), key=lambda i: -lengths[i])]


def plan_packed(lengths: Sequence[int], tokens_per_run: int) -> list[list[int]]:
    """Group texts of any lengths into runs without padding; otherwise as `plan_runs`."""

    def fits(length: int, tokens: int, slots: int) -> bool:
        return tokens + length <= tokens_per_run and slots <= MAX_SPREAD * tokens_per_run

    return _group(lengths, fits)


def _group(lengths: Sequence[int], fits: Fits) -> list[list[int]]:
    runs: list[list[int]] = []
    longest = tokens = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        alike = length > 0 or longest == 0
        if runs and alike and fits(length, tokens, (len(runs[-1]) + 1) * longest):
            runs[-1].append(index)
            tokens += length
        else:
            runs.append([index])
            longest = tokens = length
    return runs
