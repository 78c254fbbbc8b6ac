"""Texts -> windows -> runs on worker threads -> results, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, TypeVar

import numpy as np

from onnxembed.errors import UsageError
from onnxembed.pooling import FloatArray
from onnxembed.scheduling import plan_runs
from onnxembed.tokenizing import IntArray, TextTokenizer, Tokens

Item = TypeVar("Item")
Part = TypeVar("Part")
Result = TypeVar("Result")

# A window is what is sorted by length together. Larger windows find more texts of equal length;
# both limits bound the memory of a stream, the second for long texts.
WINDOW_TEXTS = 1024
WINDOW_CHARACTERS = 2**20


def check_text(text: object, where: str) -> str:
    """The text itself; UsageError, naming `where` it stood, for what no tokenizer takes."""
    if not isinstance(text, str):
        raise UsageError(f"{where} is {type(text).__name__}, not str")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{where} is not Unicode: half a surrogate pair at character {error.start}") from None
    return text


def windows(texts: str | Iterable[str], prefix: str = "") -> Iterator[list[str]]:
    """Cut an iterable of texts into windows, each text checked and with its prompt.

    Raises UsageError: now when `texts` is nothing to iterate over, later for an element that is no text.
    """
    if isinstance(texts, str):
        texts = [texts]
    # Iterating over bytes gives numbers, over a mapping its keys: neither is what was meant.
    if not isinstance(texts, bytes | bytearray | Mapping):
        with suppress(TypeError):
            return _cut(iter(texts), prefix)
    raise UsageError(f"texts is {type(texts).__name__}, not a str or an iterable of str")


def _cut(texts: Iterator[str], prefix: str) -> Iterator[list[str]]:
    window: list[str] = []
    characters = 0
    for position, text in enumerate(texts):
        window.append(prefix + check_text(text, f"texts[{position}]"))
        characters += len(window[-1])
        if len(window) == WINDOW_TEXTS or characters >= WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
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
    futures: list[Future[Part]]
    truncated: int

    def result(self) -> Result:
        """Wait for the runs; what they give, in the order of the window's texts."""
        return self.job.arrange([future.result() for future in self.futures], self.places)

    def cancel(self) -> None:
        """Drop the runs that have not begun."""
        for future in self.futures:
            future.cancel()


def start_block(
    window: Sequence[Any], tokenizer: TextTokenizer, job: Job[Part, Result], workers: Executor
) -> Block[Part, Result]:
    """Tokenise a window and start its runs; identical texts are computed once."""
    distinct = {text: number for number, text in enumerate(dict.fromkeys(window))}
    tokens = tokenizer.tokenize(list(distinct))
    runs = plan_runs([len(each) for each in tokens])
    batches = [[tokens[index] for index in run] for run in runs]
    if len(batches) == 1:
        futures = [_done(job.compute(batches[0]))]  # one text: no detour through a thread
    else:
        futures = [workers.submit(job.compute, batch) for batch in batches]
    numbers = np.array([distinct[text] for text in window])
    place = np.empty(len(tokens), np.int64)
    place[np.concatenate(runs)] = np.arange(len(tokens))
    return Block(job, place[numbers], futures, truncated=sum(tokens[number].truncated for number in numbers))


def in_order(blocks: Iterator[Block[Part, Result]]) -> Iterator[tuple[Result, int, int]]:
    """The result of each block, its number of texts and of truncated ones; the next block is already under way.

    An error, or a caller that stops listening, drops what has been started and not begun.
    """
    pending: deque[Block[Part, Result]] = deque()
    try:
        for block in blocks:
            pending.append(block)
            if len(pending) > 1:
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


def _done(result: Part) -> Future[Part]:
    future: Future[Part] = Future()
    future.set_result(result)
    return future
