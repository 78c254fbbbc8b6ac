"""A graph on one or several GPUs, and the choice between them and the CPU.

A GPU has a session of its own. While one run computes, another's inputs are made and copied, so each GPU has
two runs in flight; which GPU a run goes to is decided when it starts, by who has least to do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxembed.cuda import GPU_PROVIDERS
from onnxembed.errors import DeviceMemoryError, ProviderError, UsageError
from onnxembed.packing import pack
from onnxembed.scheduling import SMALL_RUN, plan_packed, plan_runs
from onnxembed.session import Providers, Session, wanted_providers, wants_cuda
from onnxembed.sessions import Sessions
from onnxembed.warning import warn

Run = TypeVar("Run")
Part = TypeVar("Part")

RUNS_IN_FLIGHT = 2
"""Runs that one GPU is given at a time."""

TOKENS_PER_RUN = 16384
"""A run on a GPU holds at most this many slots, unless one text alone is longer. Not measured yet."""


@dataclass(frozen=True)
class GraphFiles:
    """One graph: its file, its bytes with its weights, and whether the CPU has no kernels for it.

    `packed` is its form for CUDA, whose runs have no padding, where there is one.
    """

    path: Path
    size: int
    cuda_only: bool = False
    packed: Path | None = None
    quantized: bool = False
    """Whether runs must be of texts of one length, because padding would change how values are rounded."""


class Devices:
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
        """Group texts of so many tokens into runs: large ones, in which neighbours by length may differ a little."""
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


def open_graph(
    graph: GraphFiles, providers: Providers, threads: int, device_ids: Sequence[int] | None = None
) -> Sessions | Devices:
    """Open a graph where the caller wants it: on these GPUs, on one, or on the CPU.

    `providers` are those of `Session`, or "auto": CUDA where it can be used, else the CPU, which is then said.
    Who names GPUs, or a graph that only they run, gets them or a ProviderError.
    """
    if providers == "auto" and (device_ids or graph.cuda_only):
        providers = "cuda"
    if wants_cuda(providers):
        try:
            return open_graph(graph, "cuda", threads)
        except ProviderError as error:
            warn(f"running on the CPU, because {error}")
    if providers == "auto":
        providers = "cpu"
    devices = list(device_ids) if device_ids else [None]
    if wanted_providers(providers, devices[0])[0][0] not in GPU_PROVIDERS:
        if graph.cuda_only:
            raise ProviderError(f"{graph.path} runs on CUDA only: the CPU has no kernels for its numbers")
        return Sessions(graph.path, graph.size, providers, threads, 0 if graph.quantized else SMALL_RUN)
    path = graph.packed or graph.path
    sessions = [Session(path, providers, threads, device) for device in devices]
    return Devices(sessions, packed=graph.packed is not None, quantized=graph.quantized)


def may_use_gpu(providers: Providers, device_ids: Sequence[int] | None) -> bool:
    """Whether `open_graph` would try a GPU."""
    if providers == "auto":
        return bool(device_ids) or wants_cuda(providers)
    return wanted_providers(providers)[0][0] in GPU_PROVIDERS


def check_device_ids(device_id: int | None, device_ids: Sequence[int] | None) -> tuple[int, ...] | None:
    """The numbers of the GPUs to use; None for whichever is first. Raises UsageError for what is no such list."""
    if device_id is not None and device_ids is not None:
        raise UsageError("give device_id or device_ids, not both")
    if device_id is None and device_ids is None:
        return None
    if device_ids is None:
        named: tuple[Any, ...] = (device_id,)
    elif isinstance(device_ids, list | tuple | range) and device_ids and len({*device_ids}) == len(device_ids):
        named = tuple(device_ids)
    else:
        raise UsageError(f"device_ids is {device_ids!r}, not a list that names at least one GPU, and each once")
    for each in named:
        if not isinstance(each, int) or isinstance(each, bool) or each < 0:
            raise UsageError(f"{each!r} is no number of a GPU, which is 0, 1, ...")
    return named
