"""Providers: what is asked for is used, or the error says why not; only "auto" falls back, and says so.

Where there is no GPU, ONNX Runtime's functions are replaced by what they were seen to do with the GPU wheel
(onnxruntime-gpu 1.31.1): it lists CUDA whatever the machine, prints the libraries that it cannot load on
standard output, and opens the session without CUDA.
"""

from __future__ import annotations

import importlib.metadata
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from onnxembed import session
from onnxembed.errors import MissingExtraError, ModelFilesError, ProviderError, UsageError
from onnxembed.session import CPU, CUDA, Session, available_threads

FEEDS = {
    "input_ids": np.array([[2, 5, 6, 3]], np.int64),
    "attention_mask": np.ones((1, 4), np.int64),
    "token_type_ids": np.zeros((1, 4), np.int64),
}


@pytest.fixture
def graph(artifact: Path) -> Path:
    return artifact / "onnx/model.onnx"


class Runtime:
    """What a stand-in for ONNX Runtime has, and what was asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.available = [CPU]
        self.starts = [CPU]
        self.unloadable: list[str] = []
        self.fails: Callable[[dict[str, Any]], str | None] = lambda options: None
        self.opened: list[list[tuple[str, dict[str, Any]]]] = []
        self.preloaded = 0
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: self.available)
        monkeypatch.setattr(onnxruntime, "InferenceSession", self.open)
        monkeypatch.setattr(onnxruntime, "preload_dlls", self.preload)

    def open(
        self,
        graph: str,
        options: Any,
        *,
        providers: list[str],
        provider_options: list[Any],
        enable_fallback: int,
        disabled_optimizers: list[str],
    ) -> Any:
        assert enable_fallback == 0
        assert bool(disabled_optimizers) is (providers == [CPU])  # the GPU is faster with them
        self.opened.append(list(zip(providers, provider_options, strict=True)))
        for name, values in self.opened[-1]:
            if name == CUDA and (reason := self.fails(values)):
                raise RuntimeError(reason)
        started = [name for name in providers if name in self.starts]
        return type("Opened", (), {"get_providers": lambda self: started, "get_inputs": lambda self: []})()

    def preload(self) -> None:
        self.preloaded += 1
        for library in self.unloadable:
            print(f"Failed to load {library}: {library}: cannot open shared object file")
        print("Please follow https://onnxruntime.ai/docs/install/#cuda-and-cudnn to install CUDA.")


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """The CPU wheel; `gpu` makes it another."""
    install(monkeypatch, "onnxruntime")
    return Runtime(monkeypatch)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, runtime: Runtime) -> Runtime:
    """The GPU wheel on a machine where CUDA works."""
    install(monkeypatch, "onnxruntime-gpu")
    runtime.available = [CUDA, CPU]
    runtime.starts = [CUDA, CPU]
    return runtime


def install(monkeypatch: pytest.MonkeyPatch, *wheels: str) -> None:
    def distribution(name: str) -> str:
        if name not in wheels:
            raise importlib.metadata.PackageNotFoundError(name)
        return name

    monkeypatch.setattr(session, "distribution", distribution)


# ---- a real session


@pytest.mark.parametrize(
    "providers", ["auto", "cpu", CPU, ["cpu"], [CPU], [("cpu", {})], [(CPU, {"arena_extend_strategy": "1"})], ("cpu",)]
)
def test_the_cpu_by_any_of_its_names(graph: Path, providers: Any) -> None:
    opened = Session(graph, providers, threads=1)
    assert opened.provider == CPU
    assert opened.run(["sentence_embedding"], FEEDS)[0].shape == (1, 32)


def test_outputs_are_asked_for_by_name(graph: Path) -> None:
    opened = Session(graph, "cpu", threads=1)
    (tokens,) = opened.run(["token_embeddings"], FEEDS)
    assert tokens.shape == (1, 4, 32)
    assert tokens.dtype == np.float32


@pytest.mark.parametrize("content", [b"", b"this is no graph", None])
def test_a_broken_graph_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFilesError, match=r"ONNX Runtime cannot open .*broken\.onnx: "):
        Session(path, "auto", threads=1)


def test_half_a_graph_is_named(tmp_path: Path, graph: Path) -> None:
    content = graph.read_bytes()
    (tmp_path / "half.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelFilesError, match=r"half\.onnx"):
        Session(tmp_path / "half.onnx", "cpu", threads=1)


def test_a_missing_runtime_names_the_extras(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'onnxembed\[cpu\]', or 'onnxembed\[gpu\]'") as caught:
        Session(graph, "auto", threads=1)
    assert isinstance(caught.value, ImportError)


def test_sessions_hardly_spin_and_take_no_more_threads_than_told(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = onnxruntime.InferenceSession

    def open_(path: str, options: Any, **keywords: Any) -> Any:
        seen.append(options)
        return real(path, options, **keywords)

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_)
    Session(graph, "cpu", threads=3)
    assert [options.intra_op_num_threads for options in seen] == [3]
    assert int(seen[0].get_session_config_entry("session.intra_op.spin_duration_us")) <= 1000


# ---- what is asked for is used


@pytest.mark.parametrize(
    ("providers", "opened"),
    [
        ("cuda", [(CUDA, {}), (CPU, {})]),
        (CUDA, [(CUDA, {}), (CPU, {})]),
        ("auto", [(CUDA, {}), (CPU, {})]),
        (["cuda"], [(CUDA, {}), (CPU, {})]),
        ([("cuda", {"device_id": 1})], [(CUDA, {"device_id": 1}), (CPU, {})]),
        ([["cuda", {"device_id": 1}], "cpu"], [(CUDA, {"device_id": 1}), (CPU, {})]),
        ([("cpu", {"a": "b"}), "cuda"], [(CPU, {"a": "b"}), (CUDA, {})]),
        ("cpu", [(CPU, {})]),
    ],
)
def test_providers_and_options_are_passed_on_in_order(
    gpu: Runtime, graph: Path, providers: Any, opened: list[tuple[str, dict[str, Any]]]
) -> None:
    assert Session(graph, providers, threads=1).provider == opened[0][0]
    assert gpu.opened == [opened]


def test_cuda_libraries_are_loaded_only_when_cuda_is_asked_for(gpu: Runtime, graph: Path) -> None:
    Session(graph, "cpu", threads=1)
    assert gpu.preloaded == 0
    Session(graph, ["cpu", "cuda"], threads=1)
    assert gpu.preloaded == 1


def test_a_provider_may_become_available_when_its_libraries_are_loaded(
    gpu: Runtime, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.available = [CPU]

    def register() -> None:
        gpu.available = [CUDA, CPU]

    monkeypatch.setattr(onnxruntime, "preload_dlls", register)
    assert Session(graph, "cuda", threads=1).provider == CUDA


# ---- or the error says why not


@pytest.mark.parametrize("providers", ["cuda", ["cuda"], [("cuda", {"device_id": 0})], ["cpu", CUDA]])
def test_cuda_with_the_cpu_wheel(runtime: Runtime, graph: Path, providers: Any) -> None:
    cure = r"is the CPU wheel: pip uninstall -y onnxruntime, then pip install 'onnxembed\[gpu\]'"
    with pytest.raises(ProviderError, match=cure):
        Session(graph, providers, threads=1)
    assert runtime.opened == []


def test_cuda_with_both_wheels(runtime: Runtime, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    cure = r"are both installed, .*: pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'onnxembed\[gpu\]'"
    with pytest.raises(ProviderError, match=cure):
        Session(graph, "cuda", threads=1)


def test_cuda_with_a_runtime_built_without_it(runtime: Runtime, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(ProviderError, match=rf"has no CUDA \(only {CPU}\): pip install 'onnxembed\[gpu\]'"):
        Session(graph, "cuda", threads=1)


def test_cuda_whose_libraries_are_missing(gpu: Runtime, graph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.starts = [CPU]
    gpu.unloadable = ["libcublasLt.so.13", "libcurand.so.10"]
    with pytest.raises(ProviderError) as caught:
        Session(graph, "cuda", threads=1)
    assert str(caught.value) == (
        "CUDAExecutionProvider could not be started: libcublasLt.so.13: cannot open shared object file; "
        "libcurand.so.10: cannot open shared object file (onnxruntime-gpu needs CUDA, cuBLAS and cuDNN 9: "
        "pip install 'onnxembed[gpu]' brings them; `nvidia-smi` shows whether the driver works)"
    )
    assert capsys.readouterr().out == ""  # vectors may be going there


def test_cuda_that_does_not_start_for_no_known_reason(gpu: Runtime, graph: Path) -> None:
    gpu.starts = [CPU]
    with pytest.raises(ProviderError, match=r"libraries are missing or do not fit the driver .*onnxembed\[gpu\]"):
        Session(graph, "cuda", threads=1)


def test_libraries_that_cannot_be_loaded_and_are_not_needed(gpu: Runtime, graph: Path) -> None:
    gpu.unloadable = ["libcurand.so.10"]
    assert Session(graph, "cuda", threads=1).provider == CUDA


@pytest.mark.parametrize("providers", [[("cuda", {"device_id": 99})], ["cpu", ("cuda", {"device_id": 99})]])
def test_options_that_a_provider_refuses(gpu: Runtime, graph: Path, providers: Any) -> None:
    gpu.fails = lambda options: "CUDA error 101: invalid device ordinal" if options.get("device_id") == 99 else None
    asked = r"not on CUDAExecutionProvider \{'device_id': 99\}: CUDA error 101: invalid device ordinal"
    with pytest.raises(ProviderError, match=asked) as caught:
        Session(graph, providers, threads=1)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_graph_that_no_provider_opens_is_not_the_providers_fault(
    gpu: Runtime, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_(*arguments: Any, **keywords: Any) -> Any:
        raise RuntimeError("Protobuf parsing failed")

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_)
    with pytest.raises(ModelFilesError, match="Protobuf parsing failed"):
        Session(graph, "cuda", threads=1)


def test_another_provider_that_does_not_start(gpu: Runtime, graph: Path) -> None:
    gpu.available = ["OpenVINOExecutionProvider", CPU]
    with pytest.raises(
        ProviderError, match=r"OpenVINOExecutionProvider could not be started: .* log on standard error"
    ):
        Session(graph, "OpenVINOExecutionProvider", threads=1)


@pytest.mark.parametrize("name", ["gpu", "CPU", "TensorrtExecutionProvider", ""])
def test_an_unknown_provider_lists_those_there_are(runtime: Runtime, graph: Path, name: str) -> None:
    with pytest.raises(ProviderError, match=rf"^{name} is not in the installed onnxruntime, which has {CPU}$"):
        Session(graph, name, threads=1)


@pytest.mark.parametrize(
    ("providers", "message"),
    [
        ([], "providers is empty"),
        ((), "providers is empty"),
        (None, "providers is None, not a name or a list of names"),
        (0, "providers is 0, not a name or a list of names"),
        ({"cuda": {}}, "providers is .*, not a name or a list of names"),
        ([None], "None is neither a name nor a"),
        ([("cuda",)], r"\('cuda',\) is neither a name nor a"),
        ([("cuda", "device_id=0")], r"'device_id=0'\) is neither a name nor a"),
        (("cuda", {"device_id": 1}), r"\{'device_id': 1\} is neither a name nor a \(name, options\) pair"),
        ([(1, {})], r"\(1, \{\}\) is neither a name nor a"),
        (["cpu", CPU], f"providers names {CPU} twice"),
    ],
)
def test_what_is_no_list_of_providers(graph: Path, providers: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Session(graph, providers, threads=1)


# ---- auto


def test_auto_is_silent_with_the_cpu_wheel(runtime: Runtime, graph: Path) -> None:
    assert Session(graph, "auto", threads=1).provider == CPU
    assert runtime.preloaded == 0


def test_auto_falls_back_and_says_so_once(gpu: Runtime, graph: Path) -> None:
    gpu.starts = [CPU]
    gpu.unloadable = ["libcublasLt.so.13"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert Session(graph, "auto", threads=1).provider == CPU
    assert len(caught) == 1
    assert str(caught[0].message).startswith(
        "running on the CPU, because CUDAExecutionProvider could not be started: libcublasLt.so.13: cannot open"
    )
    assert caught[0].filename == __file__


def test_auto_says_that_the_cpu_wheel_has_overwritten_the_gpu_wheel(
    runtime: Runtime, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    with pytest.warns(UserWarning, match="running on the CPU, because .* are both installed"):
        assert Session(graph, "auto", threads=1).provider == CPU


# ---- threads


def test_threads_are_the_cores_of_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3, 5, 8}, raising=False)
    assert available_threads(cgroup=tmp_path) == 3


def test_threads_are_all_cores_where_there_is_no_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert available_threads(cgroup=tmp_path) == 6
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert available_threads(cgroup=tmp_path) == 1


@pytest.mark.parametrize(
    ("files", "threads"),
    [
        ({"cpu.max": "max 100000\n"}, 16),
        ({"cpu.max": "400000 100000\n"}, 4),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "9900000 100000\n"}, 16),
        ({"cpu.max": "nonsense"}, 16),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 16),
        ({"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    ],
)
def test_threads_fit_the_containers_share_of_cpu_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], threads: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)), raising=False)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert available_threads(cgroup=tmp_path) == threads
