"""`onnxembed doctor`: what is installed, what would be used, what is broken and how to fix it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from onnxembed.cli import cli
from onnxembed.commands import environment as doctor
from onnxembed.errors import MissingExtraError, ProviderError
from onnxembed.execution import cores
from onnxembed.execution.processor import Processor
from onnxembed.execution.providers import CPU, CUDA, Wanted, wanted_providers
from onnxembed.execution.session import Session
from tampering import change_graph, change_tensor

SMI = "0, NVIDIA H200, 12, 143771, 580.65.06, 9.0\n1, NVIDIA H200, 0, 143771, 580.65.06, 9.0\n"


class Machine:
    """An environment: its distributions, processor and providers, and what nvidia-smi and CUDA do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wheels = {"onnxruntime": "1.31.1", "numpy": "2.4.6", "tokenizers": "0.23.3", "huggingface_hub": "2.4.0"}
        self.processor = Processor("a CPU", ("AVX2",))
        self.available = [CPU]
        self.smi: Callable[[], Any] = self.no_smi
        self.cuda: Exception | None = None
        self.tried: list[str] = []
        monkeypatch.setattr(doctor, "version", self.version)
        monkeypatch.setattr("onnxembed.execution.providers.is_installed", lambda name: name in self.wheels)
        monkeypatch.setattr(doctor, "read_processor", lambda: self.processor)
        monkeypatch.setattr("onnxembed.execution.processor.read_processor", lambda: self.processor)
        monkeypatch.setattr("platform.system", lambda: "Linux")
        monkeypatch.setattr("onnxruntime.get_available_providers", lambda: self.available)
        monkeypatch.setattr("subprocess.run", lambda *arguments, **keywords: self.smi())
        monkeypatch.setattr(doctor, "Session", self.session)

    def version(self, name: str) -> str:
        if name not in self.wheels:
            raise PackageNotFoundError(name)
        return self.wheels[name]

    def no_smi(self) -> Any:
        raise FileNotFoundError("nvidia-smi")

    def session(self, graph: Path, wanted: Wanted, threads: int) -> Session:
        provider = wanted.providers[0][0]
        self.tried.append("cuda" if provider == CUDA else "cpu")
        if provider == CUDA and self.cuda:
            raise self.cuda
        return Session(graph, wanted_providers("cpu"), threads)

    def gpu_wheel(self) -> None:
        self.wheels["onnxruntime-gpu"] = self.wheels.pop("onnxruntime")
        self.available = [CUDA, CPU]
        self.smi = lambda: subprocess.CompletedProcess([], 0, SMI, "")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["doctor", *arguments], catch_exceptions=False)


@pytest.mark.parametrize(
    ("instructions", "openvino", "words"),
    [
        ("AVX2", None, "not on this CPU: precision bf16 on a CPU needs Linux and the instructions AVX-512 BF16"),
        ("AMX BF16", None, "OpenVINO would compute in it, with precision bf16: pip install 'onnxembed[openvino]'"),
        ("AVX-512 BF16", "2026.4.0", "OpenVINO 2026.4.0 computes in it, with precision bf16"),
        ("BF16", None, "ONNX Runtime computes matrix products in it, with precision bf16"),
    ],
)
def test_what_computes_in_bf16_is_told(machine: Machine, instructions: str, openvino: str | None, words: str) -> None:
    machine.processor = Processor("a CPU", (instructions,))
    if openvino is not None:
        machine.wheels["openvino"] = openvino
    (line,) = re.findall(r"^bf16 +(.*)$", run().output, re.MULTILINE)
    assert line.startswith(words)


def test_a_machine_without_a_gpu(machine: Machine) -> None:
    result = run()
    assert result.exit_code == 0
    assert "BROKEN" not in result.output
    assert "pip" not in result.output
    for words in (
        "numpy 2.4.6",
        "onnxruntime 1.31.1",
        "none: there is no nvidia-smi",
        "auto         uses the CPU, because no GPU is seen here",
    ):
        assert words in result.output
    assert machine.tried == ["cpu"]


def test_a_gpu_that_the_cpu_wheel_leaves_alone(machine: Machine) -> None:
    machine.smi = lambda: subprocess.CompletedProcess([], 0, SMI, "")
    result = run()
    assert result.exit_code == 0
    assert "because the installed onnxruntime is the CPU wheel: pip uninstall -y onnxruntime, then" in result.output


def test_a_machine_where_cuda_works(machine: Machine) -> None:
    machine.gpu_wheel()
    result = run()
    assert result.exit_code == 0
    assert "auto         uses CUDA, which works" in result.output
    assert "gpu 1        NVIDIA H200, 0 of 143771 MiB used, compute capability 9.0, driver 580.65.06" in result.output
    assert machine.tried == ["cuda"]


def test_a_gpu_wheel_that_finds_no_cuda_is_broken(machine: Machine) -> None:
    machine.gpu_wheel()
    machine.cuda = ProviderError("CUDAExecutionProvider could not be started: libcublas.so.13")
    result = run()
    assert result.exit_code == 1
    assert "cuda         BROKEN: CUDAExecutionProvider could not be started: libcublas.so.13" in result.output
    assert "auto         uses the CPU, because CUDA, whose wheel is installed, does not work" in result.output


def test_a_kernel_that_does_not_run_is_broken(machine: Machine) -> None:
    machine.gpu_wheel()
    machine.cuda = RuntimeError("CUDA failure 209: no kernel image is available")
    result = run()
    assert result.exit_code == 1
    assert "opens on cuda but does not run: CUDA failure 209" in result.output


def test_both_wheels_that_work_are_left_alone(machine: Machine) -> None:
    machine.wheels["onnxruntime-gpu"] = "1.31.1"
    machine.available = [CUDA, CPU]
    result = run()
    assert result.exit_code == 0
    assert "BROKEN" not in result.output
    assert "pip" not in result.output
    assert "what is imported works, so leave it as it is (an update of either may break it" in result.output
    assert "auto         uses CUDA, which works" in result.output


def test_the_findings_as_json(machine: Machine) -> None:
    machine.gpu_wheel()
    found = json.loads(run("--json").output)
    assert found["broken"] is False
    assert {"name": "auto", "text": "uses CUDA, which works", "broken": False} in found["findings"]
    machine.cuda = ProviderError("libcublas.so.13")
    result = run("--json")
    assert (result.exit_code, json.loads(result.output)["broken"]) == (1, True)


def test_both_wheels_are_broken_if_cuda_does_not_work(machine: Machine) -> None:
    machine.wheels["onnxruntime-gpu"] = "1.31.1"
    machine.cuda = ProviderError("both are installed")
    result = run()
    assert result.exit_code == 1
    assert "BROKEN: they write the same files" in result.output
    assert "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'onnxembed[gpu]'" in result.output


def test_no_runtime_is_broken(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    del machine.wheels["onnxruntime"]

    def missing() -> None:
        raise MissingExtraError("onnxruntime cannot be imported: pip install 'onnxembed[cpu]'")

    monkeypatch.setattr(doctor, "load_onnxruntime", missing)
    result = run()
    assert result.exit_code == 1
    assert "wheels       no distribution of onnxruntime" in result.output
    assert "BROKEN: onnxruntime cannot be imported: pip install 'onnxembed[cpu]'" in result.output


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (subprocess.TimeoutExpired("nvidia-smi", 10), "nvidia-smi does not answer"),
        (subprocess.CompletedProcess([], 9, "NVIDIA-SMI has failed\n", ""), "nvidia-smi fails: NVIDIA-SMI has failed"),
        (subprocess.CompletedProcess([], 9, "", ""), "nvidia-smi fails: exit code 9"),
        (subprocess.CompletedProcess([], 0, "\n", ""), "none that nvidia-smi sees"),
    ],
)
def test_an_nvidia_smi_that_does_not_answer(machine: Machine, answer: Any, words: str) -> None:
    def smi() -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    machine.smi = smi
    assert words in run().output


@pytest.mark.parametrize(
    ("quota", "words"),
    [("150000 100000\n", "2: 8 of .*allows 1.5 cores"), ("max 100000\n", "8: 8 of .*no control group")],
)
def test_threads_and_their_limits(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, words: str
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    (tmp_path / "own").write_text("0::/\n")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    monkeypatch.setattr(cores, "OWN", tmp_path / "own")
    (line,) = [line for line in run().output.splitlines() if line.startswith("threads")]
    assert re.search(words, line)


def test_extras_and_what_they_lack(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = [
        "numpy>=2.0",
        "onnxruntime>=1.31; extra == 'cpu'",
        "onnx>=1.20; extra == 'export'",
        "ml-dtypes; extra == 'export'",
        "onnxembed[export]; extra == 'torch'",
        "onnxruntime-gpu[cuda,cudnn]>=1.31; python_version > '3' and extra == 'gpu'",
    ]
    monkeypatch.setattr(doctor, "requires", lambda name: requirements)
    lines = [line.split(maxsplit=1)[1] for line in run().output.splitlines() if line.startswith("extra")]
    assert lines == [
        "[cpu] is installed",
        "[export] lacks onnx, ml-dtypes",
        "[torch] lacks onnx, ml-dtypes",
        "[gpu] lacks onnxruntime-gpu",
    ]


def test_a_models_graphs_are_compared_with_its_proof(artifact: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["doctor", str(artifact)])
    assert result.exit_code == 0, result.output
    graphs = [line for line in result.output.splitlines() if line.startswith("graph ")]
    assert [line.split()[1] for line in graphs] == ["fp32", "fp16"]
    assert all("as the proof says on CPUExecutionProvider" in line for line in graphs)
    broken = shutil.copytree(artifact, tmp_path / "broken")
    change_graph(broken, lambda graph: change_tensor(graph, "word_embeddings.weight", lambda weight: -weight))
    result = CliRunner().invoke(cli, ["doctor", str(broken)])
    assert result.exit_code == 1
    assert "BROKEN: does not give the model's own results" in result.output
