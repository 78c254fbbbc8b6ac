"""A graph on one or several GPUs, and the choice between them and the CPU.

A GPU has a session of its own. While one run computes, another's inputs are made and copied, so each GPU has
two runs in flight; which GPU a run goes to is decided when it starts, by who has least to do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxembed.errors import DeviceMemoryError
from onnxembed.execution.packing import pack
from onnxembed.execution.scheduling import plan_packed, plan_runs
from onnxembed.execution.session import Session
from onnxembed.warning import warn

Run = TypeVar("Run")
Part = TypeVar("Part")

RUNS_IN_FLIGHT = 2
"""Runs that one GPU is given at a time."""

TOKENS_PER_RUN = 16384
"""A run on a GPU holds at most this many slots, unless one text alone is longer. Not measured yet."""


class GpuBackend:
    """A graph open on GPUs, for runs from many threads.

    A run that does not fit into a GPU's memory bounds those that are planned after it to half its size; memory
    that runs of an unusual size took is given back.
    """

    def __init__(self, sessions: Sequence[Session], *, packed: bool = False, quantized: bool = False) -> None:
        self._sessions = sessions
        self._packed, self._quantized = packed, quantized
        self.provider = sessions[0].provider
        """The provider that takes the graph's nodes first."""
        self.blocks_ahead = RUNS_IN_FLIGHT * len(sessions)
        """A window of short texts may be no more than one run."""
        self._running = [0] * len(sessions)
        self._crowded = [False] * len(sessions)
        self._tokens_per_run = TOKENS_PER_RUN
        self._unsaid = True
        self._state = threading.Lock()
        self._workers = ThreadPoolExecutor(RUNS_IN_FLIGHT * len(sessions), "onnxembed")

    def plan(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group texts of so many tokens into runs: large ones, in which neighbors by length may differ a little."""
        if self._packed:
            return plan_packed(lengths, self._tokens_per_run)
        return plan_runs(lengths, self._tokens_per_run, small_run=0 if self._quantized else self._tokens_per_run)

    def start(self, work: Callable[[Run], Part], runs: Sequence[Run]) -> list[Future[Part]]:
        """Have worker threads do the work of each run; RuntimeError after `close`."""
        return [self._workers.submit(work, run) for run in runs]

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """Compute outputs by name, as float32; outputs that are not asked for are not copied.

        Raises DeviceMemoryError for a run that is too large.
        """
        fed = feeds
        if self._packed:  # a graph that counts positions itself takes none
            fed = {name: value for name, value in pack(feeds).items() if name in self._sessions[0].inputs}
        slots = fed["input_ids"].size
        with self._state:
            device = self._running.index(min(self._running))
            self._running[device] += 1
            shrink = self._crowded[device] or slots > self._tokens_per_run
        try:
            results = self._sessions[device].run(outputs, fed, shrink=shrink)
        except DeviceMemoryError:
            self._crowd(device, slots)
            raise
        finally:
            with self._state:
                self._running[device] -= 1
        if shrink:
            with self._state:
                self._crowded[device] = False
        return results

    def close(self) -> None:
        """Wait for what runs, and end the threads; the GPU's memory is free when nobody holds this any more.

        Safe to repeat.
        """
        self._workers.shutdown()

    def _crowd(self, device: int, slots: int) -> None:
        """Plan smaller runs than this one, and have the next one free what it does not need. Says so once."""
        with self._state:
            self._crowded[device] = True
            self._tokens_per_run = min(self._tokens_per_run, max(1, slots // 2))
            said, self._unsaid = not self._unsaid, False
        if not said:
            warn(
                f"a run of {slots} tokens did not fit into the GPU's memory; runs are now of at most "
                f"{self._tokens_per_run} tokens (this is said once)"
            )
