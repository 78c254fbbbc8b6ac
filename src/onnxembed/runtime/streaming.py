"""Texts -> windows -> runs on worker threads -> results, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from onnxembed.arguments import check_text
from onnxembed.arrays import FloatArray, IntArray
from onnxembed.errors import DeviceMemoryError, UsageError
from onnxembed.tokenizer.texts import TextTokenizer, Tokens

Item = TypeVar("Item")
Part = TypeVar("Part")
Result = TypeVar("Result")

# A window is what is sorted by length together. Larger windows find more texts of equal length;
# both limits bound the memory of a stream, the second for long texts.
WINDOW_TEXTS = 1024
WINDOW_CHARACTERS = 2**20


def windows(texts: str | Iterable[str], prefix: str = "") -> Iterator[list[str]]:
    """Cut an iterable of texts into windows, each text checked and with its prompt.

    Raises UsageError: now when `texts` is nothing to iterate over, later for an element that is no text.
    """
    if isinstance(texts, str):
        texts = [texts]
    # Iterating over bytes gives numbers, over a mapping its keys: neither is what was meant.
    if not isinstance(texts, bytes | bytearray | Mapping):
        with suppress(TypeError):
            checked = (prefix + check_text(text, f"texts[{position}]") for position, text in enumerate(iter(texts)))
            return cut(checked, len)
    raise UsageError(f"texts is {type(texts).__name__}, not a str or an iterable of str")


def cut(items: Iterator[Item], characters: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Cut items, each of so many characters, into windows."""
    window: list[Item] = []
    total = 0
    for item in items:
        window.append(item)
        total += characters(item)
        if len(window) == WINDOW_TEXTS or total >= WINDOW_CHARACTERS:
            yield window
            window, total = [], 0
    if window:
        yield window


@dataclass(frozen=True)
class Job(Generic[Part, Result]):
    """What is done with token ids: `compute` gives the part of one run, on a worker thread.

    `arrange` makes the result of a window from the parts of its runs and, for each of its texts, the place
    [N] of that text among all texts of all runs.
    """

    compute: Callable[[list[Tokens]], Part]
    arrange: Callable[[list[Part], IntArray], Result]


def rows(parts: list[FloatArray], places: IntArray) -> FloatArray:
    """`Job.arrange` for arrays with a row for each text."""
    return np.concatenate(parts)[places]


def items(parts: list[Sequence[Item]], places: IntArray) -> list[Item]:
    """`Job.arrange` for sequences with an item for each text."""
    every = list(chain.from_iterable(parts))
    return [every[place] for place in places]


@dataclass(frozen=True)
class Block(Generic[Part, Result]):
    """A window of texts whose runs have been started."""

    job: Job[Part, Result]
    places: IntArray  # [N]
    futures: list[Future[list[Part]]]
    truncated: int

    def result(self) -> Result:
        """Wait for the runs; what they give, in the order of the window's texts."""
        return self.job.arrange([part for future in self.futures for part in future.result()], self.places)

    def cancel(self) -> None:
        """Drop the runs that have not begun."""
        for future in self.futures:
            future.cancel()


class Opened(Protocol):
    """A graph that runs can be started on: `CpuBackend` or `GpuBackend`.

    `blocks_ahead`: how many blocks must have been started beside the one that is waited for, to keep it busy.
    """

    blocks_ahead: int

    def plan(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group texts of so many tokens into runs."""

    def start(self, work: Callable[[Item], Part], runs: Sequence[Item]) -> list[Future[Part]]:
        """Do the work of each run."""


def start_block(
    window: Sequence[Any], tokenizer: TextTokenizer, job: Job[Part, Result], session: Opened
) -> Block[Part, Result]:
    """Tokenize a window and start its runs; identical texts are computed once."""
    distinct = {text: number for number, text in enumerate(dict.fromkeys(window))}
    tokens = tokenizer.tokenize(list(distinct))
    runs = session.plan([len(each) for each in tokens])
    futures = session.start(partial(_compute, job), [[tokens[index] for index in run] for run in runs])
    numbers = np.array([distinct[text] for text in window])
    place = np.empty(len(tokens), np.int64)
    place[np.concatenate(runs)] = np.arange(len(tokens))
    return Block(job, place[numbers], futures, truncated=sum(tokens[number].truncated for number in numbers))


def _compute(job: Job[Part, Result], batch: list[Tokens]) -> list[Part]:
    """The parts of a run: one, or those of its halves where it does not fit into the device's memory."""
    try:
        return [job.compute(batch)]
    except DeviceMemoryError:
        if len(batch) == 1:
            raise
        half = len(batch) // 2
        return [part for texts in (batch[:half], batch[half:]) for part in _compute(job, texts)]


def in_order(blocks: Iterator[Block[Part, Result]], ahead: int) -> Iterator[tuple[Result, int, int]]:
    """The result of each block, its number of texts and of truncated ones; the next `ahead` are already under way.

    An error, or a caller that stops listening, drops what has been started and not begun.
    """
    pending: deque[Block[Part, Result]] = deque()
    try:
        for block in blocks:
            pending.append(block)
            if len(pending) > ahead:
                yield _first(pending)
        while pending:
            yield _first(pending)
    finally:
        for block in pending:
            block.cancel()


def _first(pending: deque[Block[Part, Result]]) -> tuple[Result, int, int]:
    """Take the first block out; until its result is there it stays, so that an error cancels its runs too."""
    result = pending[0].result()
    block = pending.popleft()
    return result, len(block.places), block.truncated
