"""A graph on the CPU, in one or two sessions, and which of them a run goes to.

A CPU finishes many texts soonest side by side, with a thread each: threads that share the products of one run wait
for each other at every node. It finishes a single text soonest with all threads together. ONNX Runtime fixes the
number of threads when it opens a graph, so these are two sessions, each with a copy of the weights in the layout
that its products need.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from onnxembed.arrays import Feeds, FloatArray
from onnxembed.execution.backend import GraphFiles
from onnxembed.execution.planning import CPU_TOKENS_PER_RUN, RUN_COST, plan_runs, plan_single
from onnxembed.execution.providers import CPU, OPENVINO, Wanted
from onnxembed.execution.session import Session
from onnxembed.execution.workers import OPENING, Workers, done, give_up
from onnxembed.warning import warn

Run = TypeVar("Run")
Result = TypeVar("Result")

Sharing = Literal["side_by_side", "all_threads"]
"""How runs share the threads: side by side with a thread each, or one after another with all threads."""

KEEP_BOTH = 512 * 2**20
"""Up to this many bytes of a graph and its weights both sessions stay open; a larger graph has one at a time."""


class CpuSession(Protocol):
    """A graph that is open on the CPU, as `Session` is."""

    @property
    def provider(self) -> str:
        """What computes the graph."""

    def run(self, outputs: Sequence[str], feeds: Feeds, *, shrink: bool = False) -> list[FloatArray]:
        """Compute outputs by name, as float32; `shrink` returns memory, when the run ends."""


OpenCpuSession = Callable[[Path, Wanted, int], CpuSession]
"""Opens a graph with these providers, for runs that are each computed by this many threads."""

_IN_WORDS: dict[Sharing, str] = {"side_by_side": "side by side", "all_threads": "with all threads"}


class _Proving(threading.local):
    """The session that this thread proves, before anybody gets what it computes."""

    session: CpuSession | None = None


class CpuBackend:
    """A graph that is open on the CPU for runs from many threads.

    The first session is the one for runs side by side, or the one for all threads if the weights are too large to be
    held twice. The other session is opened in the background, once the runs it would have sped up have together taken
    longer than opening it, and proved if there is a proof; the first one is then closed if only one may stay.

    A run on a worker thread is one of many; a run on any other thread, while nothing else runs, is a single text.
    """

    blocks_ahead = 1

    def __init__(
        self,
        graph: GraphFiles,
        wanted: Wanted,
        threads: int,
        tokens_per_run: int | None = None,
        *,
        open_session: OpenCpuSession = Session,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.closed = False
        self._graph, self._providers, self._threads = graph, wanted, threads
        self._tokens_per_run = CPU_TOKENS_PER_RUN if tokens_per_run is None else tokens_per_run
        # Padding changes sums by their last bit, and rounding would make a whole step of that.
        self._run_cost = 0 if graph.quantized else RUN_COST
        self._open_session, self._clock = open_session, clock
        self._keep_both = graph.size <= KEEP_BOTH
        self.runs_at_once = threads
        self._first: Sharing = "side_by_side" if self._keep_both else "all_threads"
        self.opening: Future[None] | None = None
        """The opening of the second session, once it has begun."""
        self._unserved: dict[Sharing, float] = {"side_by_side": 0.0, "all_threads": 0.0}  # seconds
        self._trouble = ""
        self._prove: Callable[[str], None] | None = None
        self._proving = _Proving()
        self._sessions: dict[Sharing, CpuSession] = {}
        self._make_threads()
        started = clock()
        session = self._opened(self._first)
        self._opening_time = clock() - started  # seconds
        self.provider = session.provider
        self._sessions = {self._first: session}
        self._only = self._first if threads == 1 or session.provider not in (CPU, OPENVINO) else None

    def _make_threads(self) -> None:
        """Make what no fork survives: the locks, the worker threads, and the numbers of what they compute."""
        self._state = threading.Lock()
        self._running = 0
        self._held = 0
        self._one_at_a_time = threading.Lock()
        self._workers = Workers(self._threads, self)

    def begin_in_child(self) -> None:
        """Make new threads and locks, and give up sessions that have threads of their own or were computing.

        A session without threads that was idle serves on, so that parent and child share its memory.
        """
        idle = not self._running
        for sharing, session in [*self._sessions.items()]:
            if not idle or session.provider != CPU or self._session_threads(sharing) > 1:
                give_up(session)
                del self._sessions[sharing]
        self.opening = None
        self._make_threads()

    @property
    def open_sessions(self) -> tuple[Sharing, ...]:
        """Which sessions are open now."""
        return tuple(self._sessions)

    def plan(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group texts into runs of equal lengths; a run of short texts may hold a little padding."""
        if len(lengths) == 1:  # as for a single query, which should not wait
            return [[0]]
        if self._graph.one_text:
            return plan_single(lengths)
        return plan_runs(lengths, self._tokens_per_run, self._run_cost)

    def start(self, work: Callable[[Run], Result], runs: Sequence[Run]) -> list[Future[Result]]:
        """Do the work of each run on worker threads; that of a single run on the caller's, which spares a detour."""
        self._check_open()
        here = len(runs) == 1 or self._proving.session is not None
        return [done(work, run) for run in runs] if here else self._workers.start_all(work, runs)

    def submit(self, work: Callable[[Run], Result], run: Run) -> Future[Result]:
        """Do the work of a run beside that of others, on a worker thread; RuntimeError after `close`."""
        return self._workers.start(work, run)

    def run(self, outputs: Sequence[str], feeds: Feeds) -> list[FloatArray]:
        """Compute outputs by name, as float32; outputs that are not asked for are not copied."""
        # Planned runs are small. What one long text needs, on top, would stay with this process for good.
        shrink = feeds["input_ids"].size > self._tokens_per_run
        if self._proving.session is not None:
            self._workers.check_open()
            return self._proving.session.run(outputs, feeds, shrink=shrink)
        with self._state:
            self._check_open()
            self._report_trouble()
            if not self._sessions:  # in a forked child
                self._sessions = {self._first: self._opened(self._first)}
            wanted = self._only or self._wanted()
            used = wanted if wanted in self._sessions else next(iter(self._sessions))
            session = self._sessions[used]
            self._running += 1
        started = self._clock()
        try:
            with self._one_at_a_time if used == "all_threads" else nullcontext():
                return session.run(outputs, feeds, shrink=shrink)
        finally:
            with self._state:
                self._running -= 1
                if wanted not in self._sessions and not self.closed:
                    self._count_unserved(wanted, self._clock() - started)

    @contextmanager
    def one_session(self) -> Iterator[None]:
        """Meanwhile no second session is opened. On a thread that proves one, all runs go to that in any case."""
        with self._state:
            self._held += 1
            opening = None if self._proving.session else self.opening
        try:
            if opening is not None:
                wait([opening])
            yield
        finally:
            with self._state:
                self._held -= 1

    def prove_later(self, prove: Callable[[str], None]) -> None:
        """Call `prove` when the second session was opened; if it raises, a warning says so, and there is none."""
        self._prove = prove

    def close(self) -> None:
        """Refuse further runs, wait for those that have begun, and free the sessions. Safe to repeat."""
        with self._state:
            self.closed = True
        self._workers.close()
        with self._state:
            self._sessions = {}

    def _check_open(self) -> None:
        if self.closed:
            raise RuntimeError(f"{self._graph.path} is closed")

    def _wanted(self) -> Sharing:
        """Which session suits the run that begins on this thread."""
        return "side_by_side" if self._running or self._workers.here.is_worker else "all_threads"

    def _count_unserved(self, wanted: Sharing, seconds: float) -> None:
        """Count the time of a run that another session would have sped up; open that session once it pays."""
        if self._held or self._only:
            return
        self._unserved[wanted] += seconds
        if self._unserved[wanted] > self._opening_time and (self.opening is None or self.opening.done()):
            self._unserved[wanted] = 0.0
            with suppress(RuntimeError):  # the interpreter is ending
                self.opening = self._workers.start(self._add, wanted)

    def _report_trouble(self) -> None:
        """Warn, once, that the second session cannot be used."""
        trouble, self._trouble = self._trouble, ""
        if trouble and self._only:
            other: Sharing = "all_threads" if self._only == "side_by_side" else "side_by_side"
            warn(
                f"all texts are run {_IN_WORDS[self._only]}, because {self._graph.path} cannot be used "
                f"{_IN_WORDS[other]}: {trouble}"
            )

    def _add(self, sharing: Sharing) -> None:
        """Open the second session; it replaces the first one if only one may stay. If it cannot be used, there is none.

        The error is kept as text alone: with it, the session and whatever proves it would live on.
        """
        if self.closed:
            return
        try:
            session = self._proved(sharing)
        except Exception as error:
            with self._state:
                if not self.closed:
                    self._only, self._trouble = next(iter(self._sessions)), f"{error}"
            return
        with self._state:
            self._sessions = {**self._sessions, sharing: session} if self._keep_both else {sharing: session}

    def _proved(self, sharing: Sharing) -> CpuSession:
        session = self._opened(sharing)
        if self._prove is not None:
            self._proving.session = session
            try:
                self._prove(sharing)
            finally:
                self._proving.session = None
        return session

    def _opened(self, sharing: Sharing) -> CpuSession:
        with OPENING:
            return self._open_session(self._graph.path, self._providers, self._session_threads(sharing))

    def _session_threads(self, sharing: Sharing) -> int:
        """How many threads compute a run together; a session with one thread has none of its own."""
        return 1 if sharing == "side_by_side" else self._threads
