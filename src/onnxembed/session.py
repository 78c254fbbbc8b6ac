"""ONNX Runtime: which provider, how many threads, and one graph ready to run."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxembed.errors import MissingExtraError, ModelFilesError, ProviderError, UsageError
from onnxembed.warning import warn

Provider = tuple[str, dict[str, Any]]
Providers = str | Sequence[str | tuple[str, Mapping[str, Any]]]

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
SHORT_NAMES = {"cpu": CPU, "cuda": CUDA}

CUDA_CURE = (
    "onnxruntime-gpu needs CUDA, cuBLAS and cuDNN 9: pip install 'onnxembed[gpu]' brings them; "
    "`nvidia-smi` shows whether the driver works"
)

# Optimisations of ONNX Runtime that make graphs slower on the CPU; see Graph.add_pre_layer_norm.
SLOW_FUSIONS = ["SkipLayerNormFusion"]

SPIN_MICROSECONDS = "200"

CGROUP = Path("/sys/fs/cgroup")


class Session:
    """One graph on one provider. `run` may be called from many threads at once.

    `providers`: "auto" (CUDA where it can be used, else the CPU), "cpu", "cuda", or a list of ONNX
    Runtime's provider names or (name, options) pairs, in order of preference. What is asked for by name
    is used or is a ProviderError; only "auto" falls back, and says so. On the CPU each run is computed by
    `threads` threads together.
    """

    def __init__(self, graph: Path, providers: Providers, threads: int) -> None:
        runtime = load_onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin while they wait burn the cores that neighbours could use. Short enough for the gap
        # between two nodes it costs nothing measurable, and a run does not have to wake them for every node.
        options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_MICROSECONDS)
        # A plan for the memory of every combination of shapes that comes by: they add up, and save no time.
        options.enable_mem_pattern = False
        self._session = _create(runtime, graph, options, providers)
        # Ours take int64; some graphs of others take int32.
        self._narrow = {value.name for value in self._session.get_inputs() if value.type == "tensor(int32)"}

    @property
    def provider(self) -> str:
        """The provider that takes the graph's nodes first."""
        return str(self._session.get_providers()[0])

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """Compute outputs by name, as float32; outputs that are not asked for are not copied."""
        fed = {name: value.astype(np.int32) if name in self._narrow else value for name, value in feeds.items()}
        results = self._session.run(list(outputs), fed)
        return [np.asarray(result, np.float32) for result in results]


def load_onnxruntime() -> Any:
    """The onnxruntime module, or an error that names the extras that bring it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            f"onnxruntime cannot be imported ({error}): pip install 'onnxembed[cpu]', "
            "or 'onnxembed[gpu]' on a machine with an NVIDIA GPU"
        ) from error
    return onnxruntime


def available_threads(cgroup: Path = CGROUP) -> int:
    """The number of cores this process may use: its affinity, or its container's share of CPU time if less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min(cores, _cpu_quota(cgroup)))


def _cpu_quota(cgroup: Path) -> float:
    """How many cores' time a container may use, from version 2 or 1 of Linux's control groups."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with suppress(OSError, ValueError):  # not that version; or no limit: "max", -1
            quota, period = (int(number) for file in files for number in (cgroup / file).read_text().split())
            if quota > 0:
                return quota / period
    return math.inf


def _create(runtime: Any, graph: Path, options: Any, providers: Providers) -> Any:
    if providers == "auto":
        # The GPU wheel is a wish for the GPU, also where the CPU wheel has overwritten it.
        if CUDA in runtime.get_available_providers() or _installed("onnxruntime-gpu"):
            try:
                return _create(runtime, graph, options, "cuda")
            except ProviderError as error:
                warn(f"running on the CPU, because {error}")
        return _create(runtime, graph, options, "cpu")
    wanted = _wanted(providers)
    names = [name for name, _ in wanted]
    unloaded = _preload_cuda(runtime) if CUDA in names else ""
    available = list(runtime.get_available_providers())
    for name in names:
        if name not in available:
            raise ProviderError(_why_unavailable(name, available))
    session = _open(runtime, graph, options, wanted)
    # ONNX Runtime only logs when a provider's libraries cannot be loaded, and goes on without it.
    missing = [name for name in names if name not in session.get_providers()]
    if missing:
        cause = unloaded or "its libraries are missing or do not fit the driver"
        cure = CUDA_CURE if missing[0] == CUDA else "ONNX Runtime's log on standard error says more"
        raise ProviderError(f"{missing[0]} could not be started: {cause} ({cure})")
    return session


def _wanted(providers: Providers) -> list[Provider]:
    """The requested providers as (name, options), the CPU last for what the others cannot run."""
    if isinstance(providers, str):
        providers = [providers]
    if not isinstance(providers, Sequence):
        raise UsageError(f"providers is {providers!r}, not a name or a list of names")
    wanted: dict[str, dict[str, Any]] = {}
    for each in providers:
        match [each, {}] if isinstance(each, str) else each:
            case [str(name), Mapping() as options]:
                name = SHORT_NAMES.get(name, name)
            case _:
                raise UsageError(f"providers: {each!r} is neither a name nor a (name, options) pair")
        if name in wanted:
            raise UsageError(f"providers names {name} twice")
        wanted[name] = dict(options)
    if not wanted:
        raise UsageError('providers is empty; use "auto", "cpu", "cuda" or a list of names')
    wanted.setdefault(CPU, {})
    return list(wanted.items())


def _preload_cuda(runtime: Any) -> str:
    """Load the CUDA libraries of NVIDIA's wheels, which are on no loader path; returns what could not be loaded."""
    printed = io.StringIO()
    with redirect_stdout(printed):  # it prints its failures, where a program's own output goes
        runtime.preload_dlls()
    lines = printed.getvalue().splitlines()
    return "; ".join(line.partition(": ")[2] for line in lines if line.startswith("Failed to load"))


def _open(runtime: Any, graph: Path, options: Any, wanted: Sequence[Provider]) -> Any:
    names, provider_options = [name for name, _ in wanted], [options for _, options in wanted]
    try:
        # Without a fallback: ONNX Runtime's own goes to the CPU and says so on standard output only.
        return runtime.InferenceSession(
            str(graph),
            options,
            providers=names,
            provider_options=provider_options,
            enable_fallback=0,
            disabled_optimizers=SLOW_FUSIONS if names == [CPU] else [],
        )
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        if names == [CPU]:
            raise ModelFilesError(f"ONNX Runtime cannot open {graph}: {error}") from error
        _open(runtime, graph, options, [(CPU, {})])  # what the CPU cannot open either is the graph's fault
        asked = " and ".join(f"{name} {dict(options)}" for name, options in wanted if name != CPU)
        raise ProviderError(f"{graph} runs on the CPU, but not on {asked}: {error}") from error


def _why_unavailable(name: str, available: list[str]) -> str:
    """The cause and the cure when a provider is not in the installed ONNX Runtime."""
    if name != CUDA:
        return f"{name} is not in the installed onnxruntime, which has {', '.join(available)}"
    cpu_wheel, gpu_wheel = _installed("onnxruntime"), _installed("onnxruntime-gpu")
    if cpu_wheel and gpu_wheel:
        return (
            "onnxruntime and onnxruntime-gpu are both installed, and the CPU wheel overwrote the GPU wheel's files: "
            "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'onnxembed[gpu]'"
        )
    if cpu_wheel:
        return (
            "the installed onnxruntime is the CPU wheel: "
            "pip uninstall -y onnxruntime, then pip install 'onnxembed[gpu]'"
        )
    return f"the installed onnxruntime has no CUDA (only {', '.join(available)}): pip install 'onnxembed[gpu]'"


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
