"""The sessions of one graph, and which of them a run goes to.

On a CPU many texts are done soonest side by side, a thread each: threads that share one run's products wait
for each other at every node. A single text is done soonest by all threads together. ONNX Runtime fixes the
number of threads when it opens a graph, so these are two sessions, each with a copy of the weights in the
layout of its products.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxembed.execution.providers import CPU, Providers
from onnxembed.execution.scheduling import SMALL_RUN, plan_runs
from onnxembed.execution.session import Session
from onnxembed.warning import warn

Run = TypeVar("Run")
Part = TypeVar("Part")

Way = Literal["apart", "together"]
"""Runs with a thread each, side by side; or with all threads, one after another."""

KEEP_BOTH = 512 * 2**20
"""Bytes of a graph and its weights up to which both sessions stay open; a larger one has one at a time."""


class CpuBackend:
    """A graph open for runs from many threads.

    The first session is that of runs side by side, or of runs together where the weights are too large to be
    held twice. The other one is opened, in the background, once the runs that would rather have had it have
    taken as long as opening takes; the first is then closed if only one may stay.

    `submit` runs work on the threads for runs side by side; a run from any other thread, while nothing else
    runs, is a single text.

    Runs of less than `small_run` tokens may take in texts of other lengths. Never in a quantized graph, which takes
    0: padding changes sums by their last bit, and rounding makes a whole step of that.
    """

    def __init__(self, graph: Path, size: int, providers: Providers, threads: int, small_run: int = SMALL_RUN) -> None:
        self.blocks_ahead = 1
        self._small_run = small_run
        self._graph, self._providers, self._threads = graph, providers, threads
        self._keep_both = size <= KEEP_BOTH
        first: Way = "apart" if self._keep_both else "together"
        started = time.perf_counter()
        session = self._opened(first)
        self._patience = time.perf_counter() - started
        self._open: dict[Way, Session] = {first: session}
        self._only = first if threads == 1 or session.provider != CPU else None
        self._unserved: dict[Way, float] = {"apart": 0.0, "together": 0.0}  # seconds
        self._opening: Future[None] | None = None
        self._state = threading.Lock()
        self._running = 0
        self._one_at_a_time = threading.Lock()
        self._thread = threading.local()
        self._workers = ThreadPoolExecutor(threads, "onnxembed", initializer=self._mark_worker)

    @property
    def provider(self) -> str:
        """The provider that takes the graph's nodes first."""
        return next(iter(self._open.values())).provider

    def plan(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group texts of so many tokens into runs."""
        return plan_runs(lengths, small_run=self._small_run)

    def start(self, work: Callable[[Run], Part], runs: Sequence[Run]) -> list[Future[Part]]:
        """Have worker threads do the work of each run; of a single one the caller's, which spares a detour."""
        if len(runs) > 1:
            return [self.submit(work, run) for run in runs]
        done: Future[Part] = Future()
        done.set_result(work(runs[0]))
        return [done]

    def submit(self, work: Any, *arguments: Any) -> Future[Any]:
        """Have a worker thread do something; RuntimeError after `close`."""
        return self._workers.submit(work, *arguments)

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """Compute outputs by name, as float32; outputs that are not asked for are not copied."""
        with self._state:
            self._heed_failure()
            way = self._only or self._wanted()
            used, session = (way, self._open[way]) if way in self._open else next(iter(self._open.items()))
            self._running += 1
        started = time.perf_counter()
        try:
            with self._one_at_a_time if used == "together" else nullcontext():
                return session.run(outputs, feeds)
        finally:
            with self._state:
                self._running -= 1
                if way not in self._open:
                    self._miss(way, time.perf_counter() - started)

    def close(self) -> None:
        """Wait for what runs, and end the threads. Safe to repeat."""
        self._workers.shutdown()

    def _mark_worker(self) -> None:
        self._thread.is_worker = True

    def _wanted(self) -> Way:
        return "apart" if self._running or getattr(self._thread, "is_worker", False) else "together"

    def _miss(self, way: Way, seconds: float) -> None:
        """Count the time of a run that another session would have done sooner; open that when it is worth it."""
        self._unserved[way] += seconds
        if self._unserved[way] > self._patience and (self._opening is None or self._opening.done()):
            self._unserved[way] = 0.0
            with suppress(RuntimeError):  # closed meanwhile
                self._opening = self._workers.submit(self._add, way)

    def _heed_failure(self) -> None:
        """Say once that the second session could not be opened, and do without."""
        if self._opening and self._opening.done() and (error := self._opening.exception()):
            self._opening = None
            self._only = next(iter(self._open))
            warn(f"all runs go {self._only}, because {self._graph} could not be opened a second time: {error}")

    def _add(self, way: Way) -> None:
        session = self._opened(way)
        with self._state:
            self._open = {**self._open, way: session} if self._keep_both else {way: session}

    def _opened(self, way: Way) -> Session:
        return Session(self._graph, self._providers, threads=1 if way == "apart" else self._threads)
