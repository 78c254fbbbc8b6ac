"""What this environment has, what `providers="auto"` would use, and what is broken, with the cure."""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import numpy as np

from onnxembed import __version__
from onnxembed.commands.doctor import Finding
from onnxembed.errors import MissingExtraError, OnnxEmbedError, ProviderError
from onnxembed.execution.cores import available_threads, cpu_quota, usable_cores
from onnxembed.execution.opening import bf16_way
from onnxembed.execution.processor import read_processor
from onnxembed.execution.providers import load_onnxruntime, wanted_providers, wants_cuda, why_unavailable
from onnxembed.execution.session import Session
from onnxembed.protobuf import encode_field as field

# All of them write the package onnxruntime: of two, each has overwritten some of the other's files.
WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-rocm")
LIBRARIES = ("numpy", "tokenizers", "huggingface_hub")

NVIDIA_SMI = ("nvidia-smi", "--query-gpu=index,name,memory.used,memory.total,driver_version,compute_cap")
SMI_SECONDS = 10


def examine() -> Iterator[Finding]:
    """All findings, in the order to be printed."""
    yield Finding("onnxembed", f"{__version__}, Python {platform.python_version()} on {platform.platform()}")
    yield Finding("libraries", ", ".join(f"{name} {_version(name) or 'is missing'}" for name in LIBRARIES))
    wheels = {name: _version(name) for name in WHEELS if _version(name)}
    installed = " and ".join(f"{name} {number}" for name, number in wheels.items())
    yield Finding("wheels", installed or "no distribution of onnxruntime")
    yield _processor()
    yield _bf16()
    yield _threads()
    gpus = list(_gpus())
    yield from gpus
    tried = list(_providers(any(finding.name != "gpus" for finding in gpus)))
    yield from _several(wheels, tried)
    yield from tried
    yield from _extras()


def _several(wheels: Mapping[str, str], tried: Sequence[Finding]) -> Iterator[Finding]:
    """What it means that several wheels of ONNX Runtime are installed: their files are mixed, which may still work.

    What was tried decides: an installation that works is left alone.
    """
    if len(wheels) < 2:
        return
    mixed = "they write the same files, so one has overwritten the other's"
    if any(finding.broken for finding in tried):
        cure = f"pip uninstall -y {' '.join(wheels)}, then pip install 'onnxembed[gpu]' or 'onnxembed[cpu]'"
        yield Finding("wheels", f"{mixed}: {cure}", broken=True)
    else:
        risk = "an update of either may break it; uninstalling one removes the other's files"
        yield Finding("wheels", f"{mixed}; what is imported works, so leave it as it is ({risk})")


def _processor() -> Finding:
    """The processor's name, and its instructions that decide how fast graphs run."""
    processor = read_processor()
    known = ", ".join(processor.instructions) or "none of those that matter here is known"
    return Finding("processor", f"{processor.name}: {known}")


def _bf16() -> Finding:
    """What computes fp32 graphs in bf16 on this CPU, with precision bf16."""
    try:
        way = bf16_way()
    except ProviderError as error:
        return Finding("bf16", f"not on this CPU: {error}")
    if way == "fast_math":
        return Finding("bf16", "ONNX Runtime computes matrix products in it, with precision bf16")
    installed = _version("openvino")
    cure = "OpenVINO would compute in it, with precision bf16: pip install 'onnxembed[openvino]'"
    return Finding("bf16", f"OpenVINO {installed} computes in it, with precision bf16" if installed else cure)


def _providers(has_gpu: bool) -> Iterator[Finding]:
    """What ONNX Runtime has, and whether it works on what `auto` uses."""
    try:
        runtime = load_onnxruntime()
    except MissingExtraError as error:
        yield Finding("onnxruntime", str(error), broken=True)
        return
    available = runtime.get_available_providers()
    yield Finding("onnxruntime", f"{runtime.__version__} with {', '.join(available)}")
    if wants_cuda():
        failure = _try("cuda")
        if not failure:
            yield Finding("auto", "uses CUDA, which works")
            return
        yield Finding("cuda", failure, broken=True)
        because = "because CUDA, whose wheel is installed, does not work"
    elif has_gpu:
        because = f"because {why_unavailable('CUDAExecutionProvider', available)}"
    else:
        because = "because no GPU is seen here"  # the CPU wheel is the right one
    failure = _try("cpu")
    yield Finding("auto", f"uses the CPU, {because}")
    if failure:
        yield Finding("cpu", failure, broken=True)


def _try(provider: str) -> str:
    """Compute something on a provider; returns what went wrong, or ""."""
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, "square.onnx")
        graph.write_bytes(_square())
        try:
            session = Session(graph, wanted_providers(provider), threads=1)
            (result,) = session.run(["y"], {"x": np.full((2, 2), 2.0, np.float32)})
        except OnnxEmbedError as error:
            return str(error).replace(str(graph), "a small graph")
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            return f"a small graph opens on {provider} but does not run: {error}"
    return "" if (result == 8).all() else f"a matrix product on {provider} gives wrong numbers"


def _square() -> bytes:
    """An ONNX file that computes y = x @ x for float32 [2, 2], written by hand: the runtime does not need onnx."""
    side = field(1, field(1, 2))  # dim_value 2
    tensor_type = field(1, field(1, 1) + field(2, side + side))  # float32
    values = field(11, field(1, b"x") + field(2, tensor_type)) + field(12, field(1, b"y") + field(2, tensor_type))
    node = field(1, field(1, b"x") + field(1, b"x") + field(2, b"y") + field(4, b"MatMul"))
    return field(1, 8) + field(7, node + field(2, b"square") + values) + field(8, field(2, 17))  # IR 8, opset 17


def _threads() -> Finding:
    quota = cpu_quota()
    limit = "no control group limits them" if quota == math.inf else f"a control group allows {quota:g} cores"
    return Finding("threads", f"{available_threads()}: {usable_cores()} of {os.cpu_count()} cores by affinity, {limit}")


def _gpus() -> Iterator[Finding]:
    """What nvidia-smi says about each GPU."""
    command = [*NVIDIA_SMI, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SMI_SECONDS, check=False)
    except FileNotFoundError:
        yield Finding("gpus", "none: there is no nvidia-smi here")
        return
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding("gpus", f"nvidia-smi does not answer: {error}")
        return
    if done.returncode:
        printed = (done.stdout + done.stderr).strip().splitlines()
        yield Finding("gpus", f"nvidia-smi fails: {printed[0] if printed else f'exit code {done.returncode}'}")
        return
    lines = done.stdout.strip().splitlines()
    for line in lines:
        index, name, used, total, driver, capability = (value.strip() for value in line.split(","))
        memory = f"{used} of {total} MiB used"
        yield Finding(f"gpu {index}", f"{name}, {memory}, compute capability {capability}, driver {driver}")
    if not lines:
        yield Finding("gpus", "none that nvidia-smi sees")


def _extras() -> Iterator[Finding]:
    """What each extra of onnxembed lacks."""
    needs: dict[str, list[str]] = {}  # extra -> its distributions, and other extras in the form onnxembed[NAME]
    for requirement in _requirements():
        if match := re.search(r"""extra\s*==\s*['"]([\w-]+)['"]""", requirement):
            needs.setdefault(match[1], []).append(requirement)
    for extra in needs:
        missing = ", ".join(_missing(extra, needs))
        yield Finding("extra", f"[{extra}] " + (f"lacks {missing}" if missing else "is installed"))


def _missing(extra: str, needs: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The distributions of an extra, and of the extras it includes, that are not installed."""
    for requirement in needs.get(extra, ()):
        if included := re.match(r"onnxembed\[([\w,-]+)\]", requirement):
            for other in included[1].split(","):
                yield from _missing(other, needs)
        elif not _version(name := re.split(r"[^\w.-]", requirement, maxsplit=1)[0]):
            yield name


def _requirements() -> list[str]:
    try:
        return requires("onnxembed") or []
    except PackageNotFoundError:  # run from a source folder that is not installed
        return []


def _version(name: str) -> str:
    """The version of a distribution; "" if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
