"""Texts -> windows -> runs on worker threads -> results, in order and in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextvars import ContextVar
from copy import deepcopy
from itertools import chain
from threading import Event
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxembed.arrays import Feeds, FloatArray, IntArray
from onnxembed.errors import DeviceMemoryError, TokenRowError, UsageError
from onnxembed.execution.backend import Backend
from onnxembed.manifest import IntegerOutput
from onnxembed.runtime.outputs.pooling import prompt_mask
from onnxembed.runtime.outputs.readout import PROMPT_MASK, Readout
from onnxembed.tokenizer.texts import TextTokenizer, Tokens, pad

Item = TypeVar("Item")
Result = TypeVar("Result")

# The texts of a window are sorted by length together. A larger window finds more texts of equal length; both
# limits bound the memory of a stream, the second one for long texts.
WINDOW_TEXTS = 1024
WINDOW_CHARACTERS = 2**20


class Reading(NamedTuple):
    """How far a stream reads ahead, how many texts a run may hold, and what becomes of texts that are too long."""

    read_ahead: int | None = None
    """At most this many texts are read before the first result is given; about two thousand if None."""
    batch_size: int | None = None
    """A run holds at most this many texts; as many as suit the device if None."""
    refuse_long: bool = False
    """Whether a text of too many tokens is an error; otherwise it is cut."""

    @property
    def window(self) -> int:
        """The most texts of a window."""
        return WINDOW_TEXTS if self.read_ahead is None else min(WINDOW_TEXTS, max(1, self.read_ahead // 2))

    def blocks_ahead(self, wanted: int) -> int:
        """How many windows are started beside the one that is waited for, where a backend wants that many."""
        return wanted if self.read_ahead is None else min(wanted, self.read_ahead // self.window - 1)


DEFAULT_READING = Reading()

STOP: ContextVar[Event | None] = ContextVar("STOP", default=None)
"""The event that ends the work of the call that is made in this context; the async methods set it."""


def windows(texts: Iterable[str], prefix: str = "", limit: int | None = None) -> Iterator[list[str]]:
    """Cut texts into windows of at most `limit` texts; each text gets the prefix."""
    return cut((prefix + text for text in texts), len, limit)


def cut(items: Iterator[Item], characters: Callable[[Item], int], limit: int | None = None) -> Iterator[list[Item]]:
    """Cut items into windows; `characters` counts those of an item."""
    most = WINDOW_TEXTS if limit is None else limit
    window: list[Item] = []
    total = 0
    for item in items:
        window.append(item)
        total += characters(item)
        if len(window) == most or total >= WINDOW_CHARACTERS:
            yield window
            window, total = [], 0
    if window:
        yield window


class Computation(NamedTuple, Generic[Result]):
    """Computes runs: pads their texts, runs the graph and reads its outputs."""

    backend: Backend
    readout: Readout[Result]
    inputs: Sequence[str]
    """The names of the graph's inputs."""
    names: Callable[[Iterable[int]], list[str | None]]
    """The tokens of ids."""
    pad_token_id: int
    single_texts: bool
    """Whether the graph computes one text at a time."""
    integer_outputs: Mapping[str, IntegerOutput]
    """How the integers of outputs become numbers, by the name of the output."""
    stop: Event | None = None
    """Once it is set, no run begins any more."""
    prompt_left_out: int = 0
    """How many tokens at the beginning of each text are a prompt's that is not pooled."""

    def results(self, texts: list[Tokens]) -> list[Result]:
        """The result of a run: one, or those of its halves if it does not fit into the device's memory."""
        try:
            return [self.result(pad(texts, self.pad_token_id))]
        except DeviceMemoryError:
            if len(texts) == 1:
                raise
            half = len(texts) // 2
            return self.results(texts[:half]) + self.results(texts[half:])

    def result(self, feeds: Feeds) -> Result:
        """What the readout makes of a padded batch, int64 [B, T] each. Raises RuntimeError on a closed backend."""
        if self.single_texts and len(feeds["input_ids"]) > 1:
            return joined([self.result(single) for single in rows(feeds)])
        if self.stop is not None and self.stop.is_set():
            raise CancelledError
        feeds = self.readout.prepare(feeds)
        if self.prompt_left_out:
            feeds = {**feeds, PROMPT_MASK: prompt_mask(feeds["attention_mask"], self.prompt_left_out)}
        try:
            outputs = self.backend.run(self.readout.outputs, {name: feeds[name] for name in self.inputs})
        except TokenRowError as error:
            raise TokenRowError.of(error.token_id, self.names([error.token_id])[0]) from error
        for place, name in enumerate(self.readout.outputs):
            if (integers := self.integer_outputs.get(name)) is not None:
                outputs[place] = dequantized(outputs[place], integers)
        return self.readout.read(outputs, feeds)


def dequantized(output: FloatArray, integers: IntegerOutput) -> FloatArray:
    """The numbers that an output's integers [..., D] stand for."""
    scale, zero_point = np.array(integers.scale, np.float32), np.array(integers.zero_point, np.float32)
    numbers: FloatArray = (output - zero_point) * scale
    return numbers


def rows(feeds: Feeds) -> Iterator[Feeds]:
    """Each text of a padded batch by itself, without what is padded on its right."""
    for place, mask in enumerate(feeds["attention_mask"]):
        end = len(mask) - int(mask[::-1].argmax())
        yield {name: array[place : place + 1, :end] for name, array in feeds.items()}


def joined(results: list[Result]) -> Result:
    """The results of several runs as that of one: arrays joined along their first axis, or lists one after another."""
    if len(results) == 1:
        return results[0]
    if isinstance(results[0], np.ndarray):
        arrays: Any = np.concatenate(results)  # type: ignore[arg-type]
        return arrays  # type: ignore[no-any-return]
    items: Any = list(chain.from_iterable(results))  # type: ignore[arg-type]
    return items  # type: ignore[no-any-return]


class Block(NamedTuple, Generic[Item, Result]):
    """A window whose runs have been started."""

    process: int
    """The process that started them. A fork leaves its child without the threads that compute them."""
    window: list[Item]
    cut: NDArray[np.bool_]
    """Which of its texts were cut, [N]."""
    lengths: IntArray
    """The tokens of each of its texts, after the cut, [N]."""
    futures: list[Future[list[Result]]]
    places: IntArray
    """The place of each text of the window among the texts of all runs, [N]."""

    @property
    def truncated(self) -> int:
        """How many of its texts were cut."""
        return int(self.cut.sum())

    def result(self) -> Result:
        """Wait for the runs, and put their results into the order of the window."""
        results: Any = joined([result for future in self.futures for result in future.result()])
        if isinstance(results, np.ndarray):
            return results[self.places]  # type: ignore[return-value]
        own: list[Any] = []
        used: set[int] = set()
        for place in self.places.tolist():  # equal texts were computed once, but each gets a result of its own
            own.append(deepcopy(results[place]) if place in used else results[place])
            used.add(place)
        return own  # type: ignore[return-value]

    def is_lost(self) -> bool:
        """Whether nobody computes its runs, because this is a forked child of the process that started them."""
        return self.process != os.getpid()

    def cancel(self) -> None:
        """Drop the runs that have not begun."""
        for future in () if self.is_lost() else self.futures:
            future.cancel()


Windows = Callable[[int], Iterator[list[Item]]]
"""Cuts items into windows of at most this many."""


def stream(
    windows: Windows[Item],
    tokenizer: TextTokenizer,
    computation: Computation[Result],
    report: Callable[[int, int], None],
    *,
    reading: Reading,
    refuse: Callable[[int], None],
    notice: Callable[[Block[Item, Result]], None],
) -> Generator[tuple[list[Item], Result], None, None]:
    """Each window with its result, in order; the next windows are already being computed.

    `notice` is called with each window's block, just before its result is given.

    At the end, or when the caller stops listening, calls `report` with the numbers of texts that were cut and of all
    texts, if any was cut. Where `reading` refuses long texts, calls `refuse` with the place of the first one, which
    raises. An error, or a caller that stops listening, drops the runs that have not begun.
    Raises UsageError when the backend is closed meanwhile.
    """
    backend = computation.backend
    upcoming = windows(reading.window)
    ahead = reading.blocks_ahead(backend.blocks_ahead)
    pending: deque[Block[Item, Result]] = deque()
    read = seen = truncated = 0
    try:
        while True:
            while len(pending) <= ahead and (window := next(upcoming, None)) is not None:
                block = start(window, tokenizer, computation, reading.batch_size)
                pending.append(block)
                if reading.refuse_long and block.truncated:
                    refuse(read + int(block.cut.argmax()))
                read += len(window)
            if not pending:
                break
            if pending[0].is_lost():
                pending = deque(start(lost.window, tokenizer, computation, reading.batch_size) for lost in pending)
            result = pending[0].result()  # it stays pending until then, so that an error cancels its runs, too
            block = pending.popleft()
            seen, truncated = seen + len(block.window), truncated + block.truncated
            notice(block)
            yield block.window, result
    except RuntimeError as error:
        if backend.closed:
            raise UsageError("this model is closed") from error
        raise
    except GeneratorExit:
        if truncated:
            report(truncated, seen)
        raise
    finally:
        for block in pending:
            block.cancel()
    if truncated:
        report(truncated, seen)


def collected(blocks: Iterable[tuple[list[Item], Result]]) -> list[Result]:
    """The results of all windows of a stream."""
    return [result for _, result in blocks]


def start(
    window: list[Item], tokenizer: TextTokenizer, computation: Computation[Result], batch_size: int | None = None
) -> Block[Item, Result]:
    """Tokenize a window and start its runs, of at most `batch_size` texts; identical texts are computed once."""
    distinct = {text: number for number, text in enumerate(dict.fromkeys(window))}
    texts: list[Any] = list(distinct)  # or pairs
    tokens = tokenizer.tokenize(texts)
    runs = computation.backend.plan([len(text.ids) for text in tokens])
    if batch_size is not None:
        runs = [run[first : first + batch_size] for run in runs for first in range(0, len(run), batch_size)]
    futures = computation.backend.start(computation.results, [[tokens[index] for index in run] for run in runs])
    numbers = np.array([distinct[text] for text in window])
    places = np.empty(len(tokens), np.int64)
    places[np.concatenate(runs)] = np.arange(len(tokens))
    cut = np.array([text.truncated for text in tokens])
    lengths = np.array([len(text.ids) for text in tokens])
    return Block(os.getpid(), window, cut[numbers], lengths[numbers], futures, places[numbers])
