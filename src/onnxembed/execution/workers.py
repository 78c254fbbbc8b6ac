"""Threads that do the work of runs, and what a fork does to them: the child has their memory, but none of them.

A lock that another thread held at the fork is never released in the child, and work that was given to a thread is
never done. Backends therefore begin anew in the child; ONNX Runtime's own locks are not held while a fork happens.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

Run = TypeVar("Run")
Result = TypeVar("Result")


class Forked(Protocol):
    """A backend, as far as forks matter to it."""

    def begin_in_child(self) -> None:
        """Give up what the forked child cannot use. No other thread exists yet."""


OPENING = threading.RLock()
"""Held while a session is opened, and a fork waits for it: ONNX Runtime's own locks would stay held in the child."""

_OPEN: WeakSet[Forked] = WeakSet()


class _Here(threading.local):
    """What is true on the thread that asks."""

    is_worker = False


class Workers:
    """Threads that do the work of runs, started as they are needed. They end when this object is freed.

    In every child that this process forks, their `backend` begins anew.
    """

    def __init__(self, threads: int, backend: Forked) -> None:
        self._closed = False
        self.here = here = _Here()
        """Says on each thread whether it is one of these."""
        # The threads must not hold this object, or whoever holds it: neither would ever be freed.
        self._pool = ThreadPoolExecutor(threads, "onnxembed", partial(setattr, here, "is_worker", True))
        _OPEN.add(backend)

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

    def check_open(self) -> None:
        """Raise RuntimeError after `close`, and when the interpreter is ending, which nothing but the threads knows."""
        self.start(bool, None)

    def close(self) -> None:
        """Refuse further work, and wait for what has begun. Safe to repeat."""
        self._closed = True
        self._pool.shutdown()


def done(work: Callable[[Run], Result], run: Run) -> Future[Result]:
    """The work of a run, done on the caller's thread."""
    future: Future[Result] = Future()
    future.set_result(work(run))
    return future


def give_up(session: Any) -> None:
    """Never free a session in this process: freeing it would wait for its threads, which were not forked."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


def _in_child() -> None:
    OPENING.release()
    # With this setting, the tokenizers library would go on to wait for its threads, too. Without it, it knows better.
    if _OPEN and "TOKENIZERS_PARALLELISM" in os.environ:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for backend in list(_OPEN):
        backend.begin_in_child()


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(before=OPENING.acquire, after_in_parent=OPENING.release, after_in_child=_in_child)
