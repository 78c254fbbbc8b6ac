"""One graph on one provider: how it is opened, what a run gives, and what errors say."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from onnxembed.errors import DeviceMemoryError, MissingExtraError, ModelFilesError
from onnxembed.execution.backend import GraphFiles
from onnxembed.execution.opening import open_backend
from onnxembed.execution.providers import CPU, Placement, Wanted, decide, wanted_providers
from onnxembed.execution.session import SHRINK, Session

SPIN = "session.intra_op.spin_duration_us"
FEEDS = {
    "input_ids": np.array([[2, 5, 6, 3]], np.int64),
    "attention_mask": np.ones((1, 4), np.int64),
    "token_type_ids": np.zeros((1, 4), np.int64),
}

INFERENCE_SESSION = onnxruntime.InferenceSession  # the real one, which tests replace


@pytest.mark.parametrize("providers", ["cpu", CPU, ["cpu"], [CPU], [("cpu", {})], ("cpu",)])
def test_the_cpu_may_be_named_in_several_ways(graph: Path, providers: Any) -> None:
    opened = Session(graph, wanted_providers(providers), threads=1)
    assert opened.provider == CPU
    assert opened.run(["sentence_embedding"], FEEDS)[0].shape == (1, 32)


def test_outputs_are_asked_for_by_name(graph: Path) -> None:
    opened = Session(graph, wanted_providers("cpu"), threads=1)
    (tokens,) = opened.run(["token_embeddings"], FEEDS)
    assert tokens.shape == (1, 4, 32)
    assert tokens.dtype == np.float32


def test_a_run_on_the_cpu_can_return_its_memory(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def open_(*arguments: Any, **keywords: Any) -> Any:
        session = INFERENCE_SESSION(*arguments, **keywords)
        run = session.run

        def watched(outputs: Any, feeds: Any, options: Any) -> Any:
            asked.append(options and options.get_run_config_entry(SHRINK))
            return run(outputs, feeds, options)

        session.run = watched
        return session

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_)
    opened = Session(graph, wanted_providers("cpu"), threads=1)
    kept, returned = (opened.run(["sentence_embedding"], FEEDS, shrink=shrink)[0] for shrink in (False, True))
    assert np.array_equal(kept, returned)
    assert asked == [None, "cpu:0"]


@pytest.mark.parametrize("content", [b"", b"this is no graph", None])
def test_a_broken_graph_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFilesError, match=r"ONNX Runtime cannot open .*broken\.onnx: "):
        Session(path, wanted_providers("cpu"), threads=1)


def test_half_a_graph_is_named(tmp_path: Path, graph: Path) -> None:
    content = graph.read_bytes()
    (tmp_path / "half.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelFilesError, match=r"half\.onnx"):
        Session(tmp_path / "half.onnx", wanted_providers("cpu"), threads=1)


def test_a_missing_runtime_names_the_extras(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'onnxembed\[cpu\]', or 'onnxembed\[gpu\]'") as caught:
        Session(graph, wanted_providers("cpu"), threads=1)
    assert isinstance(caught.value, ImportError)


def test_sessions_hardly_spin_and_take_no_more_threads_than_told(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = onnxruntime.InferenceSession

    def open_(path: str, options: Any, **keywords: Any) -> Any:
        seen.append(options)
        return real(path, options, **keywords)

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_)
    Session(graph, wanted_providers("cpu"), threads=3)
    assert [options.intra_op_num_threads for options in seen] == [3]
    assert int(seen[0].get_session_config_entry(SPIN)) <= 1000
    Session(graph, wanted_providers("cpu"), threads=3, spin=True)
    with pytest.raises(RuntimeError, match=SPIN):  # ONNX Runtime's own choice
        seen[1].get_session_config_entry(SPIN)


@pytest.mark.parametrize("spin", [False, True])
def test_models_spin_only_if_told(artifact: Path, monkeypatch: pytest.MonkeyPatch, spin: bool) -> None:
    asked: list[bool] = []

    class Watched(Session):
        def __init__(self, graph: Path, wanted: Wanted, threads: int, *, spin: bool = False) -> None:
            asked.append(spin)
            super().__init__(graph, wanted, threads, spin=spin)

    placement = decide(Placement("cpu", threads=2, spin=spin))
    open_backend(GraphFiles(artifact / "onnx/model.onnx", 1), placement, Watched).close()
    assert asked == [spin]


# ---- a run


class Bound:
    """Runs with bound inputs and outputs on the CPU instead of a GPU, and records how they were called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, graph: Path) -> None:
        self.outputs: list[tuple[str, str, int]] = []
        self.entries: list[str] = []
        self.fails = ""
        with monkeypatch.context() as patch:
            patch.setattr(onnxruntime, "InferenceSession", self.open)
            self.session = Session(graph, wanted_providers("cpu"), threads=1)
        self.session.device_id = 1

    def open(self, *arguments: Any, **keywords: Any) -> Bound:
        self.real = INFERENCE_SESSION(*arguments, **keywords)
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def io_binding(self) -> Any:
        binding = self.real.io_binding()
        bound, outputs = binding.bind_output, self.outputs

        def bind_output(name: str, device: str, device_id: int) -> None:
            outputs.append((name, device, device_id))
            bound(name, "cpu", 0)

        binding.bind_output = bind_output
        return binding

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        if self.fails:
            raise RuntimeError(self.fails)
        with suppress(RuntimeError):  # it has no such entry
            self.entries.append(options.get_run_config_entry(SHRINK))
        self.real.run_with_iobinding(binding, None)


def test_a_run_on_a_gpu_copies_one_output(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = Bound(monkeypatch, graph)
    (expected,) = Session(graph, wanted_providers("cpu"), threads=1).run(["sentence_embedding"], FEEDS)
    (vectors,) = bound.session.run(["sentence_embedding"], FEEDS)
    assert np.array_equal(vectors, expected)
    assert bound.outputs == [("sentence_embedding", "cuda", 1)]
    assert bound.entries == []
    bound.session.run(["sentence_embedding"], FEEDS, shrink=True)
    assert bound.entries == ["gpu:1"]


@pytest.mark.parametrize(
    "message",
    [
        "bfc_arena.cc:376 AllocateRawInternal Failed to allocate memory for requested buffer of size 939524096",
        "Available memory of 100 is smaller than requested bytes of 200",
        "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size);",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
    ],
)
def test_a_run_that_does_not_fit(graph: Path, monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    bound = Bound(monkeypatch, graph)
    bound.fails = message
    with pytest.raises(DeviceMemoryError, match=r"a run of shape \(1, 4\) does not fit .*max_length") as caught:
        bound.session.run(["sentence_embedding"], FEEDS)
    assert message in str(caught.value)


def test_other_errors_are_raised_unchanged(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = Bound(monkeypatch, graph)
    bound.fails = "CUDA failure 20: something else"
    with pytest.raises(RuntimeError, match="failure 20"):
        bound.session.run(["sentence_embedding"], FEEDS)
