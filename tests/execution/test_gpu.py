"""GpuBackend: which GPU a run goes to, which runs are planned, and what happens when memory runs out."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxembed import OnnxEmbedder
from onnxembed.errors import DeviceMemoryError, ProviderError, UsageError
from onnxembed.execution.backend import GraphFiles
from onnxembed.execution.cpu import CpuBackend
from onnxembed.execution.gpu import RUNS_IN_FLIGHT, GpuBackend
from onnxembed.execution.opening import open_backend
from onnxembed.execution.planning import GPU_TOKENS_PER_RUN
from onnxembed.execution.providers import CPU, CUDA, Placement, Wanted, decide, wanted_providers
from onnxembed.execution.session import OpenSession, Session
from onnxembed.runtime import streaming
from onnxembed.runtime.open_model import OpenModel

SECONDS = 0.02
WORDS = ["the", "cat", "it", "was", "that", "of", "and", "to", "in", "is"]
TEXTS = [" ".join(WORDS[:count]) for count in (1, 2, 5, 10, 0)]


OnGpus = Callable[..., tuple[OnnxEmbedder, list["Gpu"]]]


class Gpu:
    """A stand-in for a session on a GPU: it remembers its runs, and a run of more than `holds` slots does not fit."""

    provider = CUDA

    def __init__(
        self, number: int | None = 0, holds: float = np.inf, compute: Callable[..., Any] | None = None
    ) -> None:
        self.number = number
        self.holds = holds
        self.compute = compute or (lambda outputs, feeds: [np.zeros(1, np.float32)])
        self.runs: list[tuple[int, bool]] = []
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()

    def run(self, outputs: Any, feeds: dict[str, NDArray[np.int64]], *, shrink: bool) -> Any:
        slots = feeds["input_ids"].size
        with self._lock:
            self.runs.append((slots, shrink))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(SECONDS)
        with self._lock:
            self._at_once -= 1
        if slots > self.holds:
            raise DeviceMemoryError("does not fit")
        return self.compute(outputs, feeds)


def feeds(slots: int) -> dict[str, Any]:
    return {"input_ids": np.zeros((1, slots), np.int64)}


def opened(*gpus: Gpu, tokens_per_run: int | None = None) -> GpuBackend:
    return GpuBackend(cast(Sequence[Session], gpus), tokens_per_run)


# ---- which GPU


def test_runs_are_shared_out_two_at_a_time_to_each_gpu() -> None:
    gpus = [Gpu(number) for number in range(3)]
    model = opened(*gpus)
    for future in model.start(lambda slots: model.run(["output"], feeds(slots)), [8] * 30):
        future.result()
    model.close()
    assert [gpu.most_at_once for gpu in gpus] == [RUNS_IN_FLIGHT] * 3
    assert sum(len(gpu.runs) for gpu in gpus) == 30
    assert min(len(gpu.runs) for gpu in gpus) >= 6


def test_one_run_leaves_the_caller_free_to_tokenize() -> None:
    model = opened(Gpu())
    names = [future.result() for future in model.start(lambda run: threading.current_thread().name, ["run"])]
    model.close()
    assert threading.current_thread().name not in names
    with pytest.raises(RuntimeError):
        model.start(print, ["run"])
    with pytest.raises(RuntimeError):
        model.run(["output"], feeds(8))


def test_closing_frees_the_sessions() -> None:
    gpu = Gpu()
    freed = weakref.ref(gpu)
    model = opened(gpu)
    model.start(partial(model.run, ["output"]), [feeds(8)])[0].result()
    model.close()
    del gpu
    assert freed() is None  # though the backend is still there


# ---- which runs


def test_runs_are_large_and_may_hold_a_little_padding() -> None:
    model = opened(Gpu())
    lengths = [100, 99, 98, 97] * 100
    assert len(model.plan(lengths)) == -(-100 * 400 // GPU_TOKENS_PER_RUN)
    model.close()


def test_runs_of_a_quantized_graph_hold_no_padding() -> None:
    model = GpuBackend(cast(Sequence[Session], [Gpu()]), quantized=True)
    assert model.plan([9, 8, 9, 8]) == [[0, 2], [1, 3]]
    model.close()


# ---- memory


def test_a_run_that_does_not_fit_limits_the_runs_after_it() -> None:
    gpu = Gpu(holds=5000)
    model = opened(gpu)
    words = r"16000 tokens did not fit .* runs have at most 8000 tokens \(shown once\)"
    with pytest.warns(UserWarning, match=words), pytest.raises(DeviceMemoryError):
        model.run(["output"], feeds(16000))
    assert max(sum(100 for _ in run) for run in model.plan([100] * 200)) == 8000
    with pytest.raises(DeviceMemoryError):  # not shown again: a warning is an error here
        model.run(["output"], feeds(8000))
    assert max(sum(100 for _ in run) for run in model.plan([100] * 200)) == 4000
    model.run(["output"], feeds(4000))
    model.run(["output"], feeds(4000))
    model.close()
    assert gpu.runs == [(16000, False), (8000, True), (4000, True), (4000, False)]  # the memory is given back once


def test_two_runs_that_do_not_fit_together_count_once() -> None:
    model = opened(Gpu(holds=0))
    with pytest.warns(UserWarning, match="did not fit"):
        wait(futures := model.start(partial(model.run, ["output"]), [feeds(16384)] * 2))
    assert all(isinstance(future.exception(), DeviceMemoryError) for future in futures)
    assert max(map(len, model.plan([1] * 20000))) == 8192
    model.close()


def test_memory_of_a_text_beyond_the_budget_is_returned() -> None:
    gpu = Gpu()
    model = opened(gpu)
    for slots in (GPU_TOKENS_PER_RUN, GPU_TOKENS_PER_RUN + 1, 10):
        model.run(["output"], feeds(slots))
    model.close()
    assert [shrink for _, shrink in gpu.runs] == [False, True, False]


@pytest.fixture
def on_gpus(artifact: Path) -> OnGpus:
    """An embedder on GPUs that compute as the CPU does, each with memory for a number of slots."""
    real = Session(artifact / "onnx/model.onnx", wanted_providers("cpu"), threads=1)

    def open_(*holds: float, tokens_per_run: int | None = None) -> tuple[OnnxEmbedder, list[Gpu]]:
        gpus = [Gpu(number, slots, real.run) for number, slots in enumerate(holds)]
        model = OpenModel(
            artifact,
            ("embedding",),
            Placement(tokens_per_run=tokens_per_run),
            open_backend=lambda graph, placement: opened(*gpus, tokens_per_run=placement.tokens_per_run),
        )
        return OnnxEmbedder.over(model), gpus

    return open_


def test_a_stream_of_single_runs_keeps_every_gpu_busy(on_gpus: OnGpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 1)
    model, gpus = on_gpus(np.inf, np.inf)
    with model:
        assert model.encode([f"the {number}" for number in range(40)]).shape == (40, 32)
    assert [gpu.most_at_once for gpu in gpus] == [RUNS_IN_FLIGHT] * 2


def test_a_stream_halves_what_does_not_fit_and_keeps_the_order(artifact: Path, on_gpus: OnGpus) -> None:
    texts = [f"{text} {number}" for text in TEXTS for number in range(9)]
    expected = OnnxEmbedder(artifact, providers="cpu").encode(texts)
    model, (gpu,) = on_gpus(100)
    with model:
        with pytest.warns(UserWarning, match="did not fit into the GPU's memory"):
            vectors = model.encode(texts)
        np.testing.assert_allclose(vectors, expected, atol=1e-6)
        assert max(slots for slots, _ in gpu.runs) > 100
        gpu.runs.clear()
        np.testing.assert_allclose(model.encode(texts), expected, atol=1e-6)
    assert max(slots for slots, _ in gpu.runs) <= 100  # learned


def test_a_single_text_that_does_not_fit_is_an_error(on_gpus: OnGpus) -> None:
    model, _ = on_gpus(5)
    with model, pytest.warns(UserWarning, match="did not fit"), pytest.raises(DeviceMemoryError):
        model.encode(["the", "the cat it was that of the and to"])


def test_several_gpus_give_the_same_vectors(artifact: Path, on_gpus: OnGpus) -> None:
    texts = [f"the {number}" for number in range(300)] + TEXTS
    expected = OnnxEmbedder(artifact, providers="cpu").encode(texts)
    model, gpus = on_gpus(np.inf, np.inf, tokens_per_run=64)
    with model:
        np.testing.assert_allclose(model.encode(texts), expected, atol=1e-6)
    assert all(gpu.runs for gpu in gpus)
    assert max(slots for gpu in gpus for slots, _ in gpu.runs) <= 64


# ---- the choice


@pytest.mark.parametrize(
    ("providers", "device_ids", "sessions"),
    [
        ("auto", None, [("cuda", None)]),
        ("auto", (2, 0), [("cuda", 2), ("cuda", 0)]),
        ("cuda", None, [("cuda", None)]),
        ("cuda", (1,), [("cuda", 1)]),
        ("tensorrt", None, [("tensorrt", None)]),
        (
            [("cuda", {"gpu_mem_limit": 1})],
            (0, 1),
            [([("cuda", {"gpu_mem_limit": 1})], 0), ([("cuda", {"gpu_mem_limit": 1})], 1)],
        ),
    ],
)
def test_each_gpu_has_a_session(
    monkeypatch: pytest.MonkeyPatch, providers: Any, device_ids: Any, sessions: list[Any]
) -> None:
    asked: list[Wanted] = []

    def session(graph: Path, wanted: Wanted, threads: int) -> Gpu:
        asked.append(wanted)
        return Gpu(0)

    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [CUDA, CPU])
    placement = Placement(providers, threads=2, device_ids=device_ids)
    open_backend(GraphFiles(Path("model.onnx"), 1), decide(placement), cast(OpenSession, session)).close()
    assert asked == [wanted_providers(name, device) for name, device in sessions]


def test_the_cpu_has_its_own_backend(artifact: Path) -> None:
    model = open_backend(GraphFiles(artifact / "onnx/model.onnx", 1), decide(Placement("cpu", threads=2)))
    model.close()
    assert isinstance(model, CpuBackend)
    assert model.provider == CPU


def test_naming_a_gpu_never_gives_the_cpu(monkeypatch: pytest.MonkeyPatch, artifact: Path) -> None:
    with pytest.raises(ProviderError, match="onnxruntime"):
        OnnxEmbedder(artifact, device_id=0)
    with pytest.raises(UsageError, match=r"device_id is for .*, not for CPUExecutionProvider"):
        OnnxEmbedder(artifact, providers="cpu", device_ids=[0, 1])


@pytest.mark.parametrize(
    ("device_id", "device_ids", "devices"),
    [(None, None, (None,)), (0, None, (0,)), (None, [1, 0], (1, 0)), (None, range(3), (0, 1, 2))],
)
def test_numbers_of_gpus(device_id: Any, device_ids: Any, devices: Any) -> None:
    decided = decide(Placement("cuda", device_id=device_id, device_ids=device_ids))
    assert tuple(wanted.providers[0][1].get("device_id") for wanted in decided.wanted) == devices


@pytest.mark.parametrize(
    ("device_id", "device_ids", "message"),
    [
        (0, [1], "give device_id or device_ids, not both"),
        (-1, None, "-1 is not a GPU number"),
        (True, None, "True is not a GPU number"),
        ("0", None, "'0' is not a GPU number"),
        (None, [], "names at least one"),
        (None, [0, 0], "and each once"),
        (None, 0, "device_ids is 0, not a list"),
        (None, "01", "device_ids is '01', not a list"),
        (None, [0, 1.5], "1.5 is not a GPU number"),
    ],
)
def test_impossible_numbers_of_gpus(device_id: Any, device_ids: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        decide(Placement(device_id=device_id, device_ids=device_ids))


def test_a_forked_child_does_not_use_the_gpu_of_its_parent() -> None:
    backend = opened(Gpu())
    backend.begin_in_child()
    with pytest.raises(UsageError, match=r'CUDA cannot be used in a forked child: start processes with .*"spawn"'):
        backend.start(print, [1])
    with pytest.raises(UsageError, match="CUDA cannot be used in a forked child"):
        backend.run(["output"], feeds(1))
    backend.close()
