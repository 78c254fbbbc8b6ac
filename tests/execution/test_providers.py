"""Providers: the requested ones are used, or the error says why not; only "auto" falls back, with a warning."""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from onnxembed.errors import ModelFilesError, ProviderError, UsageError
from onnxembed.execution import cuda
from onnxembed.execution import providers as provider_module
from onnxembed.execution.backend import GraphFiles
from onnxembed.execution.cores import available_threads
from onnxembed.execution.opening import open_backend
from onnxembed.execution.providers import CPU, CUDA, TENSORRT, Placement, decide, is_installed, wanted_providers
from onnxembed.execution.session import Session
from stand_in_runtime import KNOWN, ON_CUDA, Runtime, install

# ---- what is asked for is used


@pytest.mark.parametrize(
    ("providers", "opened"),
    [
        ("cuda", [(CUDA, ON_CUDA), (CPU, {})]),
        (CUDA, [(CUDA, ON_CUDA), (CPU, {})]),
        (["cuda"], [(CUDA, ON_CUDA), (CPU, {})]),
        ([("cuda", {"device_id": 1})], [(CUDA, {**ON_CUDA, "device_id": 1}), (CPU, {})]),
        ([["cuda", {"use_tf32": 1}], "cpu"], [(CUDA, {**ON_CUDA, "use_tf32": 1}), (CPU, {})]),
        (["cpu", "cuda"], [(CPU, {}), (CUDA, ON_CUDA)]),
        ("cpu", [(CPU, {})]),
    ],
)
def test_providers_and_options_are_passed_on_in_order(
    gpu: Runtime, graph: Path, providers: Any, opened: list[tuple[str, dict[str, Any]]]
) -> None:
    assert Session(graph, wanted_providers(providers), threads=1).provider == opened[0][0]
    assert gpu.opened == [opened]


def test_cuda_libraries_are_loaded_only_when_cuda_is_asked_for(gpu: Runtime, graph: Path) -> None:
    Session(graph, wanted_providers("cpu"), threads=1)
    assert gpu.preloaded == 0
    Session(graph, wanted_providers(["cpu", "cuda"]), threads=1)
    assert gpu.preloaded == 1


def test_a_provider_may_become_available_when_its_libraries_are_loaded(
    gpu: Runtime, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.available = [CPU]

    def register() -> None:
        gpu.available = [CUDA, CPU]

    monkeypatch.setattr(onnxruntime, "preload_dlls", register)
    assert Session(graph, wanted_providers("cuda"), threads=1).provider == CUDA


# ---- or the error says why not


@pytest.mark.parametrize("providers", ["cuda", ["cuda"], [("cuda", {"device_id": 0})], ["cpu", CUDA]])
def test_cuda_with_the_cpu_wheel(runtime: Runtime, graph: Path, providers: Any) -> None:
    cure = r"is the CPU wheel: pip uninstall -y onnxruntime, then pip install 'onnxembed\[gpu\]'"
    with pytest.raises(ProviderError, match=cure):
        Session(graph, wanted_providers(providers), threads=1)
    assert runtime.opened == []


def test_cuda_with_both_wheels(runtime: Runtime, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    cure = r"are both installed, .*: pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'onnxembed\[gpu\]'"
    with pytest.raises(ProviderError, match=cure):
        Session(graph, wanted_providers("cuda"), threads=1)


def test_cuda_with_a_runtime_built_without_it(runtime: Runtime, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(ProviderError, match=rf"has no {CUDA} \(only {CPU}\): pip install 'onnxembed\[gpu\]'"):
        Session(graph, wanted_providers("cuda"), threads=1)


def test_cuda_whose_libraries_are_missing(gpu: Runtime, graph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.starts = [CPU]
    gpu.unloadable = ["libcublasLt.so.13", "libcurand.so.10"]
    with pytest.raises(ProviderError) as caught:
        Session(graph, wanted_providers("cuda"), threads=1)
    assert str(caught.value) == (
        "CUDAExecutionProvider could not be started: libcublasLt.so.13: cannot open shared object file; "
        "libcurand.so.10: cannot open shared object file (onnxruntime-gpu needs CUDA, cuBLAS and cuDNN 9: "
        "pip install 'onnxembed[gpu]' installs them; `nvidia-smi` shows whether the driver works)"
    )
    assert capsys.readouterr().out == ""  # vectors may be going there


def test_cuda_without_a_driver(gpu: Runtime, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.starts = [CPU]
    monkeypatch.setattr(cuda, "missing_driver", lambda: "there is no NVIDIA driver here")
    with pytest.raises(ProviderError, match=r"could not be started: there is no NVIDIA driver here \("):
        Session(graph, wanted_providers("cuda"), threads=1)


def test_a_driver_is_a_library_that_can_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr("ctypes.CDLL", loaded.append)
    assert not cuda.missing_driver()

    def missing(library: str) -> None:
        raise OSError(library)

    monkeypatch.setattr("ctypes.CDLL", missing)
    assert f"no NVIDIA driver ({loaded[0]}) here; --gpus all gives it to a container" in cuda.missing_driver()


def test_cuda_that_does_not_start_for_no_known_reason(gpu: Runtime, graph: Path) -> None:
    gpu.starts = [CPU]
    with pytest.raises(ProviderError, match=r"libraries are missing or do not fit the driver .*onnxembed\[gpu\]"):
        Session(graph, wanted_providers("cuda"), threads=1)


def test_memory_of_one_layer_is_kept_for_the_next_on_a_gpu_alone(gpu: Runtime, graph: Path) -> None:
    Session(graph, wanted_providers("cpu"), threads=1)
    assert not gpu.reuses
    Session(graph, wanted_providers("cuda"), threads=1)
    assert gpu.reuses


def test_libraries_that_cannot_be_loaded_and_are_not_needed(gpu: Runtime, graph: Path) -> None:
    gpu.unloadable = ["libcurand.so.10"]
    assert Session(graph, wanted_providers("cuda"), threads=1).provider == CUDA


@pytest.mark.parametrize("providers", [[("cuda", {"device_id": 99})], ["cpu", ("cuda", {"device_id": 99})]])
def test_options_that_a_provider_refuses(gpu: Runtime, graph: Path, providers: Any) -> None:
    gpu.fails = lambda options: "CUDA failure 101: invalid device ordinal" if options.get("device_id") == 99 else None
    asked = (
        r"not on CUDAExecutionProvider \{.*'device_id': 99\}: there is no GPU of this number: .*\(CUDA failure 101: inv"
    )
    with pytest.raises(ProviderError, match=asked) as caught:
        Session(graph, wanted_providers(providers), threads=1)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_graph_that_no_provider_opens_is_a_model_files_error(
    gpu: Runtime, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_(*arguments: Any, **keywords: Any) -> Any:
        raise RuntimeError("Protobuf parsing failed")

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_)
    with pytest.raises(ModelFilesError, match="Protobuf parsing failed"):
        Session(graph, wanted_providers("cuda"), threads=1)


def test_another_provider_that_does_not_start(gpu: Runtime, graph: Path) -> None:
    gpu.available = ["OpenVINOExecutionProvider", CPU]
    with pytest.raises(
        ProviderError, match=r"OpenVINOExecutionProvider could not be started: .* log on standard error"
    ):
        Session(graph, wanted_providers("OpenVINOExecutionProvider"), threads=1)


@pytest.mark.parametrize("name", ["gpu", "CPU", "OpenVINOExecutionProvider", ""])
def test_an_unknown_provider_lists_those_there_are(runtime: Runtime, graph: Path, name: str) -> None:
    message = rf"^{name} is not in the installed onnxruntime, which has {CPU} \(short names: cpu, "
    with pytest.raises(ProviderError, match=message):
        Session(graph, wanted_providers(name), threads=1)


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
def test_an_invalid_list_of_providers_is_refused(graph: Path, providers: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Session(graph, wanted_providers(providers), threads=1)


# ---- options and devices


def test_an_option_that_cuda_refuses(gpu: Runtime, graph: Path) -> None:
    gpu.fails = lambda options: 'Unknown provider option: "use_tf33".' if "use_tf33" in options else None
    with pytest.raises(UsageError, match=r"Unknown provider option: .use_tf33"):
        Session(graph, wanted_providers([("cuda", {"use_tf33": 1})]), threads=1)


def test_an_option_that_a_provider_ignores(gpu: Runtime, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPU providers refuse unknown options, and do not report all those they accept."""
    gpu.available = gpu.starts = ["XnnpackExecutionProvider", CPU]
    monkeypatch.setitem(KNOWN, "XnnpackExecutionProvider", {"intra_op_num_threads": "0"})
    with pytest.raises(UsageError, match=r"^Xnnpack.* has no option thread; it has: intra_op_num_threads"):
        Session(graph, wanted_providers([("XnnpackExecutionProvider", {"thread": 1})]), threads=1)


# ---- what goes to the GPU


def test_work_that_would_go_to_the_cpu_is_an_error(gpu: Runtime, graph: Path) -> None:
    Session(graph, wanted_providers("cuda"), threads=1)
    assert gpu.recorded
    for operator, cure in (
        ("GroupQueryAttention", "use fp16 or bf16 for a causal model"),
        ("MatMulIntegerToFloat", "int8 and int16 graphs are for CPUs"),
        ("DynamicQuantizeLinear", "choose another precision"),
    ):
        gpu.assigned = [(CUDA, "MatMul"), (CPU, "Gather"), (CPU, operator), (CPU, operator)]
        with pytest.raises(ProviderError, match=f"cannot run on {CUDA}: .* no kernels for 2 {operator}, .*{cure}"):
            Session(graph, wanted_providers("cuda"), threads=1)


def test_onnxruntime_says_where_each_node_went(graph: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(cuda.ASSIGNMENT, "1")
    parts = onnxruntime.InferenceSession(graph, options, [CPU]).get_provider_graph_assignment_info()
    assert {part.ep_name for part in parts} == {CPU}
    attentions = [node for part in parts for node in part.get_nodes() if node.op_type == "MultiHeadAttention"]
    assert len(attentions) == 4  # in the branches of two Ifs


def test_auto_runs_on_the_cpu_what_the_gpu_cannot(gpu: Runtime, graph: Path) -> None:
    gpu.assigned = [(CPU, "GroupQueryAttention")]
    with pytest.warns(UserWarning, match="running on the CPU, because .*precision='fp16'"):
        assert auto(graph) == CPU


def test_attention_does_not_use_cudnn(gpu: Runtime, graph: Path) -> None:
    Session(graph, wanted_providers("cuda"), threads=1)
    assert gpu.opened[0][0][1]["sdpa_kernel"] & 8 == 0
    Session(graph, wanted_providers([("cuda", {"sdpa_kernel": 8})]), threads=1)
    assert gpu.opened[1][0][1]["sdpa_kernel"] == 8


def test_the_cpu_has_no_options(graph: Path) -> None:
    """ONNX Runtime itself silently ignores the option."""
    with pytest.raises(UsageError, match=rf"^{CPU} has no option arena_extend_strategy; it has: none$"):
        Session(graph, wanted_providers([("cpu", {"arena_extend_strategy": "1"})]), threads=1)


def test_a_device_is_an_option_of_the_providers_for_gpus(gpu: Runtime, graph: Path) -> None:
    assert Session(graph, wanted_providers("cuda", 2), threads=1).device_id == 2
    assert gpu.opened == [[(CUDA, {**ON_CUDA, "device_id": 2}), (CPU, {})]]
    assert Session(graph, wanted_providers([("cuda", {"device_id": "3"})], 3), threads=1).device_id == 3
    assert Session(graph, wanted_providers("cpu"), threads=1).device_id is None


def test_tensorrt_leaves_to_cuda_what_it_cannot_run(gpu: Runtime, graph: Path) -> None:
    gpu.available = gpu.starts = [TENSORRT, CUDA, CPU]
    assert Session(graph, wanted_providers("tensorrt", 1), threads=1).provider == TENSORRT
    assert gpu.opened == [[(TENSORRT, {"device_id": 1}), (CUDA, {**ON_CUDA, "device_id": 1}), (CPU, {})]]


def test_tensorrt_that_does_not_start(gpu: Runtime, graph: Path) -> None:
    gpu.available = [TENSORRT, CUDA, CPU]
    with pytest.raises(ProviderError, match=r"TensorrtExecutionProvider could not be started: .* needs TensorRT 10"):
        Session(graph, wanted_providers("tensorrt"), threads=1)


@pytest.mark.parametrize(
    ("providers", "message"),
    [
        ("cpu", rf"device_id is for {CUDA} and {TENSORRT}, not for {CPU}"),
        ([("cuda", {"device_id": 1})], f"{CUDA} has the option device_id=1, but device_id is 0"),
    ],
)
def test_a_device_that_contradicts_the_providers(gpu: Runtime, graph: Path, providers: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Session(graph, wanted_providers(providers, 0), threads=1)


@pytest.mark.parametrize(
    ("reason", "meaning"),
    [
        ("CUDA failure 35: CUDA driver version is insufficient ; GPU=-1", "driver is too old .*: update it"),
        ("CUDA failure 100: no CUDA-capable device is detected ; GPU=32", "no GPU is visible: .*CUDA_VISIBLE_DEVICES"),
        ("CUDA failure 2: out of memory ; GPU=0", "memory is in use: `nvidia-smi` shows by what"),
        ("CUDA failure 209: no kernel image is available ; GPU=0", "has no code for this GPU"),
        ("libcudnn.so.9 not found. Require cuDNN 9", "cuDNN 9 cannot be loaded: pip install"),
    ],
)
def test_errors_of_cuda_are_explained(gpu: Runtime, graph: Path, reason: str, meaning: str) -> None:
    gpu.fails = lambda options: reason
    with pytest.raises(ProviderError, match=meaning) as caught:
        Session(graph, wanted_providers("cuda"), threads=1)
    assert reason in str(caught.value)


# ---- auto


def auto(graph: Path) -> str:
    opened = open_backend(GraphFiles(graph, graph.stat().st_size), decide(Placement(threads=1)))
    opened.close()
    return opened.provider


def test_auto_is_silent_with_the_cpu_wheel(runtime: Runtime, graph: Path) -> None:
    assert auto(graph) == CPU
    assert runtime.preloaded == 0


def test_auto_is_cuda_where_it_works(gpu: Runtime, graph: Path) -> None:
    assert auto(graph) == CUDA
    assert gpu.opened == [[(CUDA, ON_CUDA), (CPU, {})]]


def test_auto_falls_back_and_says_so_once(gpu: Runtime, graph: Path) -> None:
    gpu.starts = [CPU]
    gpu.unloadable = ["libcublasLt.so.13"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert auto(graph) == CPU
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
        assert auto(graph) == CPU


# ---- what is installed


def test_the_distributions_that_are_installed_are_those_of_importlib_metadata() -> None:
    names = {distribution.name for distribution in distributions()}
    assert {"numpy", "pytest", "huggingface_hub"} <= {name.replace("-", "_") for name in names}
    assert [name for name in sorted(names) if not is_installed(name)] == []
    assert not is_installed("onnxruntime-none")


def test_a_wheel_counts_as_installed_even_if_its_files_were_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "missing"), str(tmp_path / "archive.zip")])
    (tmp_path / "archive.zip").touch()
    for name in ("onnxruntime", "onnxruntime_gpu-1.32.0.data", "onnxruntime_gpu_tools-1.0.dist-info"):
        (tmp_path / name).mkdir()
    assert not is_installed("onnxruntime-gpu")
    (tmp_path / "onnxruntime_gpu-1.32.0.dist-info").mkdir()
    assert is_installed("onnxruntime-gpu")
    assert not is_installed("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [""])  # the folder that the interpreter was started in
    assert is_installed("onnxruntime-gpu")


# ---- what a placement leaves open


@pytest.mark.parametrize("value", [0, -1, True, "2", 1.5])
@pytest.mark.parametrize("name", ["threads", "tokens_per_run"])
def test_impossible_numbers_are_refused(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{name} is {value!r}, not a positive whole number$"):
        decide(Placement(**{name: value}))


@pytest.mark.parametrize("value", ["no", 1, None])
def test_spin_is_true_or_false(value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^spin is {value!r}, not True or False$"):
        decide(Placement(spin=value))


def test_threads_are_all_available_ones_unless_told() -> None:
    assert decide(Placement(threads=3)).threads == 3
    assert decide(Placement()).threads == available_threads()


@pytest.mark.parametrize(
    ("providers", "device_ids", "device"),
    [
        ("auto", None, "cpu"),
        ("auto", [1], "gpu"),
        ("cpu", None, "cpu"),
        ("cuda", None, "gpu"),
        ([CPU, CUDA], None, "cpu"),
        (["tensorrt"], None, "gpu"),
        (["CoreMLExecutionProvider"], None, None),
    ],
)
def test_a_placement_decides_whether_a_gpu_or_the_cpu_runs_the_graph(
    providers: Any, device_ids: Any, device: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [CPU])
    monkeypatch.setattr(provider_module, "is_installed", lambda name: False)
    place = decide(Placement(providers, device_ids=device_ids))
    assert [wanted.device for wanted in place.wanted] == [device]
