"""CpuBackend: which session a run goes to, when the second one is opened, and how many stay open."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from onnxembed.errors import ProofError
from onnxembed.execution.backend import GraphFiles
from onnxembed.execution.cpu import KEEP_BOTH, CpuBackend
from onnxembed.execution.providers import CPU, CUDA, wanted_providers
from onnxembed.execution.session import OpenSession

SECONDS = 0.02
FEEDS: dict[str, Any] = {"input_ids": np.zeros((1, 3), np.int64)}


class Machine:
    """A stand-in for ONNX Runtime: sessions that remember how many threads each run had, and take some time.

    It has its own clock, so that a busy machine does not matter.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.opened: list[int] = []
        self.runs: list[int] = []
        self.shrunk: list[bool] = []
        self.at_once: dict[int, int] = {}
        self.provider = CPU
        self.opening: Callable[[int], None] = lambda threads: None
        self.running: Callable[[], None] = lambda: None
        self.made: weakref.WeakSet[MachineSession] = weakref.WeakSet()
        self._running: dict[int, int] = {}
        self._lock = threading.Lock()

    def session(self, graph: Path, wanted: Any, threads: int) -> MachineSession:
        self.opening(threads)
        self.opened.append(threads)
        session = MachineSession(self, threads)
        self.made.add(session)
        return session

    def run(self, threads: int) -> None:
        with self._lock:
            self.runs.append(threads)
            self._running[threads] = self._running.get(threads, 0) + 1
            self.at_once[threads] = max(self.at_once.get(threads, 0), self._running[threads])
        self.running()
        time.sleep(SECONDS)
        with self._lock:
            self.now += SECONDS
            self._running[threads] -= 1


class MachineSession:
    def __init__(self, machine: Machine, threads: int) -> None:
        self.machine, self.threads, self.provider = machine, threads, machine.provider

    def run(self, outputs: Any, feeds: Any, *, shrink: bool) -> list[Any]:
        self.machine.run(self.threads)
        self.machine.shrunk.append(shrink)
        return [np.zeros(1, np.float32)]


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def opened(machine: Machine) -> Iterator[Callable[..., CpuBackend]]:
    backends = []

    def open_(size: int = 1, threads: int = 4) -> CpuBackend:
        graph, open_session = GraphFiles(Path("model.onnx"), size), cast(OpenSession, machine.session)
        backends.append(
            CpuBackend(graph, wanted_providers("cpu"), threads, open_session=open_session, clock=lambda: machine.now)
        )
        return backends[-1]

    yield open_
    for backend in backends:
        backend.close()


def lone(opened: CpuBackend, times: int) -> None:
    """Runs on the caller's thread, one after another."""
    for _ in range(times):
        opened.run(["output"], FEEDS)


def stream(opened: CpuBackend, times: int) -> None:
    """Runs on the worker threads."""
    for future in opened.start(lambda _: opened.run(["output"], FEEDS), range(times)):
        future.result()


def settle(opened: CpuBackend) -> None:
    """Wait until no session is being opened."""
    if opened.opening:
        opened.opening.result()


def test_a_stream_runs_side_by_side_with_a_thread_each(machine: Machine, opened: Callable[..., CpuBackend]) -> None:
    stream(opened(), 12)
    assert machine.opened == [1]
    assert machine.runs == [1] * 12
    assert machine.at_once == {1: 4}


def test_lone_runs_get_all_threads_once_that_pays(machine: Machine, opened: Callable[..., CpuBackend]) -> None:
    model = opened()
    lone(model, 2)
    settle(model)
    lone(model, 3)
    assert machine.opened == [1, 4]
    assert machine.runs[-3:] == [4, 4, 4]
    stream(model, 8)  # and a stream has its own again
    assert machine.runs[-8:] == [1] * 8
    assert machine.opened == [1, 4]


def test_the_second_session_waits_until_it_would_have_paid(machine: Machine, opened: Callable[..., CpuBackend]) -> None:
    def opening(threads: int) -> None:
        machine.now += 6.5 * SECONDS

    machine.opening = opening
    model = opened()
    lone(model, 4)
    assert machine.opened == [1]
    assert model.opening is None
    lone(model, 4)
    settle(model)
    assert machine.opened == [1, 4]


def test_runs_go_on_while_the_second_session_opens(machine: Machine, opened: Callable[..., CpuBackend]) -> None:
    gate = threading.Event()
    machine.opening = lambda threads: threads == 1 or gate.wait(60)  # type: ignore[assignment]
    model = opened()
    lone(model, 5)
    assert machine.runs == [1] * 5
    gate.set()
    settle(model)
    lone(model, 1)
    assert machine.runs[-1] == 4


def test_lone_runs_of_several_callers_go_side_by_side(machine: Machine, opened: Callable[..., CpuBackend]) -> None:
    """Side by side on all threads, they would be slower than one after another."""
    model = opened()
    lone(model, 2)
    settle(model)
    machine.runs.clear()
    callers = [threading.Thread(target=lone, args=(model, 4)) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert machine.runs.count(1) >= 6
    assert machine.at_once[4] == 1


def test_a_run_that_is_one_of_many_has_one_thread_even_while_nothing_else_runs(
    machine: Machine, opened: Callable[..., CpuBackend]
) -> None:
    model = opened()
    for _ in range(4):
        model.submit(lambda _: model.run(["output"], FEEDS), None).result()
    settle(model)
    assert machine.opened == [1]
    assert machine.runs == [1] * 4
    assert model.runs_at_once == 4


def test_large_weights_are_held_once(machine: Machine, opened: Callable[..., CpuBackend]) -> None:
    model = opened(KEEP_BOTH + 1)
    lone(model, 2)
    assert machine.runs == [4, 4]
    stream(model, 2)  # served as it is at first, one run after another
    assert machine.at_once == {4: 1}
    settle(model)
    stream(model, 8)
    assert machine.opened == [4, 1]
    assert model.open_sessions == ("side_by_side",)
    lone(model, 2)
    settle(model)
    assert model.open_sessions == ("all_threads",)
    assert machine.opened == [4, 1, 4]


@pytest.mark.parametrize(("threads", "provider"), [(1, CPU), (4, CUDA)])
def test_one_thread_and_other_devices_need_one_session(
    machine: Machine, opened: Callable[..., CpuBackend], threads: int, provider: str
) -> None:
    machine.provider = provider
    model = opened(threads=threads)
    lone(model, 5)
    stream(model, 5)
    assert machine.opened == [1]


def test_a_second_session_that_cannot_be_opened_gives_a_warning(
    machine: Machine, opened: Callable[..., CpuBackend]
) -> None:
    def opening(threads: int) -> None:
        if threads > 1:
            raise MemoryError("no room")

    machine.opening = opening
    model = opened()
    lone(model, 1)
    settle(model)
    with pytest.warns(
        UserWarning, match=r"all texts are run side by side, because model.onnx cannot be used with all .*: no room"
    ):
        lone(model, 1)
    lone(model, 3)
    assert machine.runs == [1] * 5


def test_the_second_session_is_used_once_it_is_proved(machine: Machine, opened: Callable[..., CpuBackend]) -> None:
    model = opened()
    proving, proved = threading.Event(), threading.Event()

    def prove(session: str) -> None:
        proving.set()
        assert proved.wait(10)
        lone(model, 1)
        stream(model, 3)

    model.prove_later(prove)
    lone(model, 1)
    assert proving.wait(10)
    lone(model, 2)
    assert machine.runs == [1] * 3
    proved.set()
    settle(model)
    assert machine.runs == [1] * 3 + [4] * 4
    lone(model, 1)
    assert machine.runs[7:] == [4]


def test_a_second_session_that_is_not_proved_gives_a_warning(
    machine: Machine, opened: Callable[..., CpuBackend]
) -> None:
    def prove(session: str) -> None:
        lone(model, 1)
        raise ProofError("wrong")

    model = opened()
    model.prove_later(prove)
    lone(model, 1)
    settle(model)
    with pytest.warns(UserWarning, match=r"all texts are run side by side, because .*: wrong"):
        lone(model, 1)
    stream(model, 2)
    lone(model, 3)
    assert machine.runs == [1, 4] + [1] * 6
    assert model.open_sessions == ("side_by_side",)


def test_what_is_found_wrong_while_a_run_is_in_flight_is_said(
    machine: Machine, opened: Callable[..., CpuBackend]
) -> None:
    def prove(session: str) -> None:
        assert in_flight.wait(10)
        raise ProofError("wrong")

    def running() -> None:
        in_flight.set()
        settle(model)

    model, in_flight = opened(), threading.Event()
    model.prove_later(prove)
    lone(model, 1)
    machine.running = running
    lone(model, 1)
    with pytest.warns(UserWarning, match="wrong"):
        lone(model, 1)
    lone(model, 20)
    settle(model)
    assert machine.opened == [1, 4]


@pytest.mark.parametrize("right", [True, False])
def test_closing_while_the_second_session_is_proved_frees_both(
    machine: Machine, opened: Callable[..., CpuBackend], right: bool
) -> None:
    def prove(session: str) -> None:
        while not model.closed:
            time.sleep(0.001)
        if right:
            lone(model, 1)
        raise ProofError("wrong")

    model = opened()
    sessions: list[Any] = []
    machine.opening = sessions.append
    made, machine.made = machine.made, weakref.WeakSet()
    model.prove_later(prove)
    lone(model, 1)
    gc.disable()
    try:
        model.close()
        assert (sessions, len(made), len(machine.made)) == ([4], 0, 0)
    finally:
        gc.enable()
    assert machine.runs == [1]


def test_meanwhile_there_is_one_session(machine: Machine, opened: Callable[..., CpuBackend]) -> None:
    for size, threads in ((1, 1), (KEEP_BOTH + 1, 4)):
        machine.opened.clear()
        model = opened(size=size)
        with model.one_session():
            lone(model, 5)
            stream(model, 5)
            assert machine.opened == [threads]
        lone(model, 3)
        stream(model, 3)
        settle(model)
        assert sorted(machine.opened) == [1, 4]


def test_closing_while_the_last_run_ends_is_not_an_error(machine: Machine, opened: Callable[..., CpuBackend]) -> None:
    model = opened()
    machine.running = model.close
    lone(model, 1)
    assert machine.opened == [1]
    assert model.closed
    assert model.open_sessions == ()


@pytest.mark.parametrize("runs", [1, 2])
def test_a_closed_backend_refuses_runs(machine: Machine, opened: Callable[..., CpuBackend], runs: int) -> None:
    model = opened()
    model.close()
    with pytest.raises(RuntimeError):
        lone(model, 1)
    with pytest.raises(RuntimeError):
        model.start(print, range(runs))
    assert machine.runs == []


def test_runs_of_a_quantized_graph_hold_no_padding(machine: Machine) -> None:
    for quantized, runs in (False, [[0, 1, 2, 3]]), (True, [[0, 2], [1, 3]]):
        graph = GraphFiles(Path("model.onnx"), 1, quantized=quantized)
        model = CpuBackend(graph, wanted_providers("cpu"), 2, open_session=cast(OpenSession, machine.session))
        assert [sorted(run) for run in model.plan([9, 8, 9, 8])] == runs
        model.close()


def test_runs_hold_as_many_tokens_as_told(machine: Machine) -> None:
    graph = GraphFiles(Path("model.onnx"), 1)
    model = CpuBackend(graph, wanted_providers("cpu"), 2, 10, open_session=cast(OpenSession, machine.session))
    assert model.plan([5, 5, 5]) == [[0, 1], [2]]
    model.close()


def test_a_run_that_is_larger_than_planned_ones_returns_its_memory(machine: Machine) -> None:
    graph = GraphFiles(Path("model.onnx"), 1)
    model = CpuBackend(graph, wanted_providers("cpu"), 2, 10, open_session=cast(OpenSession, machine.session))
    for texts, tokens in (2, 5), (1, 11), (1, 10):
        model.run(["output"], {"input_ids": np.zeros((texts, tokens), np.int64)})
    assert machine.shrunk == [False, True, False]
    model.close()
