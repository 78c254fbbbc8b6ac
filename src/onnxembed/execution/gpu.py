"""A graph on one or several GPUs.

Each GPU has a session of its own. While one run computes, the inputs of another are made and copied, so each GPU has
two runs in flight. A run goes to the GPU that has the fewest runs when it starts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from numpy.typing import NDArray

from onnxembed.arrays import Feeds, FloatArray
from onnxembed.errors import DeviceMemoryError, UsageError
from onnxembed.execution.packing import pack
from onnxembed.execution.planning import GPU_TOKENS_PER_RUN, plan_packed, plan_padded, plan_runs, plan_single
from onnxembed.execution.session import Session
from onnxembed.execution.workers import Workers, give_up
from onnxembed.warning import Once

Run = TypeVar("Run")
Result = TypeVar("Result")

RUNS_IN_FLIGHT = 2
"""Runs that one GPU is given at a time."""


class GpuBackend:
    """A graph that is open on GPUs for runs from many threads, one session for each GPU.

    A run that does not fit into a GPU's memory limits the runs planned after it to half its size. Memory that runs of
    an unusual size took is returned to the GPU.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        tokens_per_run: int | None = None,
        *,
        packed: bool = False,
        quantized: bool = False,
        one_text: bool = False,
    ) -> None:
        self.closed = False
        self.provider = sessions[0].provider
        self.blocks_ahead = RUNS_IN_FLIGHT * len(sessions)
        """A window of short texts may be no more than one run."""
        self.runs_at_once = RUNS_IN_FLIGHT * len(sessions)
        self._sessions = sessions
        self._packed, self._quantized, self._one_text = packed, quantized, one_text
        self._running = [0] * len(sessions)
        self._crowded = [False] * len(sessions)
        self._tokens_per_run = GPU_TOKENS_PER_RUN if tokens_per_run is None else tokens_per_run
        self._memory_warning = Once()
        self._state = threading.Lock()
        self._forked = False
        self._workers = Workers(self.runs_at_once, self)

    def begin_in_child(self) -> None:
        """Give up the sessions: CUDA cannot be used in a forked child, whoever opens it there."""
        self._forked = True
        for session in self._sessions:
            give_up(session)

    def plan(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group texts into large runs, in which texts of similar lengths may be padded a little."""
        if self._one_text:
            return plan_single(lengths)
        if self._packed:
            return plan_packed(lengths, self._tokens_per_run)
        if self._quantized:  # padding changes sums by their last bit, and rounding would make a whole step of that
            return plan_runs(lengths, self._tokens_per_run, run_cost=0)
        return plan_padded(lengths, self._tokens_per_run)

    def start(self, work: Callable[[Run], Result], runs: Sequence[Run]) -> list[Future[Result]]:
        """Do the work of each run on worker threads; RuntimeError after `close`, UsageError in a forked child."""
        self._check_process()
        return self._workers.start_all(work, runs)

    def submit(self, work: Callable[[Run], Result], run: Run) -> Future[Result]:
        """Do the work of a run on a worker thread; RuntimeError after `close`, UsageError in a forked child."""
        self._check_process()
        return self._workers.start(work, run)

    def run(self, outputs: Sequence[str], feeds: Feeds) -> list[FloatArray]:
        """Compute outputs by name, as float32; outputs that are not asked for are not copied.

        Raises DeviceMemoryError for a run that is too large, RuntimeError after `close`, and UsageError in a forked
        child.
        """
        self._check_process()
        with self._state:
            if self.closed:
                raise RuntimeError("this backend is closed")
            device = self._running.index(min(self._running))
            session = self._sessions[device]
            self._running[device] += 1
        try:
            return self._run_on(device, session, outputs, feeds)
        finally:
            with self._state:
                self._running[device] -= 1

    def one_session(self) -> AbstractContextManager[None]:
        """Nothing to do: all sessions are open."""
        return nullcontext()

    def prove_later(self, prove: Callable[[str], None]) -> None:
        """Nothing to do: all sessions are open."""

    def close(self) -> None:
        """Refuse further runs, wait for those that have begun, and free the GPUs' memory. Safe to repeat."""
        if self._forked:  # the sessions are given up
            return
        with self._state:
            self.closed = True
        self._workers.close()
        self._sessions = ()

    def _check_process(self) -> None:
        if self._forked:
            raise UsageError(
                "this model was opened on a GPU before this process was forked, and CUDA cannot be used in a forked "
                'child: start processes with multiprocessing\'s "spawn", or fork before a model is opened'
            )

    def _run_on(self, device: int, session: Session, outputs: Sequence[str], feeds: Feeds) -> list[FloatArray]:
        inputs: Mapping[str, NDArray[Any]] = feeds
        if self._packed:  # a graph that counts positions itself does not take them
            inputs = {name: value for name, value in pack(feeds).items() if name in session.inputs}
        slots = inputs["input_ids"].size
        with self._state:
            shrink = self._crowded[device] or slots > self._tokens_per_run
        try:
            results = session.run(outputs, inputs, shrink=shrink)
        except DeviceMemoryError:
            self._limit_runs(device, slots)
            raise
        if shrink:
            with self._state:
                self._crowded[device] = False
        return results

    def _limit_runs(self, device: int, slots: int) -> None:
        """Plan smaller runs than the one that did not fit, and have the next one free memory. Warns once."""
        with self._state:
            self._crowded[device] = True
            self._tokens_per_run = limit = min(self._tokens_per_run, max(1, slots // 2))
        self._memory_warning.warn(
            f"a run of {slots} tokens did not fit into the GPU's memory; from now on, runs have at most "
            f"{limit} tokens (shown once)"
        )
