"""Texts -> windows -> runs on worker threads -> blocks of vectors, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxembed.errors import UsageError
from onnxembed.pooling import FloatArray
from onnxembed.scheduling import plan_runs
from onnxembed.tokenizing import TextTokenizer, Tokens

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
class Block:
    """A window of texts whose runs have been started. `order` maps its texts to rows of distinct texts."""

    order: NDArray[np.int64]  # [N]
    runs: list[list[int]]
    futures: list[Future[FloatArray]]
    truncated: int

    def vectors(self) -> FloatArray:
        """Wait for the runs; vectors [N, D] in the order of the window's texts."""
        computed = np.concatenate([future.result() for future in self.futures])
        rows = np.empty_like(computed)
        rows[np.concatenate(self.runs)] = computed
        return rows[self.order]

    def cancel(self) -> None:
        """Drop the runs that have not begun."""
        for future in self.futures:
            future.cancel()


def start_block(
    window: list[str], tokenizer: TextTokenizer, compute: Callable[[list[Tokens]], FloatArray], workers: Executor
) -> Block:
    """Tokenise a window, embedding identical texts once, and have `compute` give the vectors of each run."""
    places = {text: place for place, text in enumerate(dict.fromkeys(window))}
    tokens = tokenizer.tokenize(list(places))
    runs = plan_runs([len(each) for each in tokens])
    order = np.array([places[text] for text in window])
    batches = [[tokens[index] for index in run] for run in runs]
    if len(batches) == 1:
        futures = [_done(compute(batches[0]))]  # one text: no detour through a thread
    else:
        futures = [workers.submit(compute, batch) for batch in batches]
    return Block(order, runs, futures, truncated=sum(tokens[place].truncated for place in order))


def in_order(blocks: Iterator[Block]) -> Iterator[tuple[FloatArray, int]]:
    """Vectors [N, D] of each block and its number of truncated texts; the next block is already under way.

    An error, or a caller that stops listening, drops what has been started and not begun.
    """
    pending: deque[Block] = deque()
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


def _first(pending: deque[Block]) -> tuple[FloatArray, int]:
    """Take the first block out; until its vectors are there it stays, so that an error cancels its runs too."""
    vectors = pending[0].vectors()
    return vectors, pending.popleft().truncated


def _done(result: FloatArray) -> Future[FloatArray]:
    future: Future[FloatArray] = Future()
    future.set_result(result)
    return future
