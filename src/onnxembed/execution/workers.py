"""Threads that do the work of runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

Run = TypeVar("Run")
Result = TypeVar("Result")


class Workers:
    """Threads that do the work of runs, started as they are needed. They end when this object is freed."""

    def __init__(self, threads: int) -> None:
        self._closed = False
        self._here = here = threading.local()
        # The threads must not hold this object, or whoever holds it: neither would ever be freed.
        self._pool = ThreadPoolExecutor(threads, "onnxembed", partial(setattr, here, "is_worker", True))

    def are_here(self) -> bool:
        """Whether the caller is one of these threads."""
        return getattr(self._here, "is_worker", False)

    def start(self, work: Callable[[Run], Result], run: Run) -> Future[Result]:
        """Begin the work of a run; RuntimeError after `close`, and when the interpreter is ending."""
        return self._pool.submit(work, run)

    def start_all(self, work: Callable[[Run], Result], runs: Sequence[Run]) -> list[Future[Result]]:
        """Begin the work of each run; RuntimeError after `close`.

        When the interpreter is ending, it starts nothing on these threads, but other threads may still embed: the work
        is then done on theirs.
        """
        started = []
        for run in runs:
            try:
                started.append(self.start(work, run))
            except RuntimeError:
                if self._closed:
                    raise
                started.append(done(work, run))
        return started

    def close(self) -> None:
        """Refuse further work, and wait for what has begun. Safe to repeat."""
        self._closed = True
        self._pool.shutdown()


def done(work: Callable[[Run], Result], run: Run) -> Future[Result]:
    """The work of a run, done on the caller's thread."""
    future: Future[Result] = Future()
    future.set_result(work(run))
    return future
