"""ONNX Runtime: which provider, how many threads, and one graph ready to run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxembed.errors import MissingExtraError, ModelFilesError, ProviderError, UsageError

Provider = tuple[str, dict[str, Any]]
Providers = str | Sequence[str | tuple[str, Mapping[str, Any]]]

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
SHORT_NAMES = {"cpu": CPU, "cuda": CUDA}


class Session:
    """One graph on one provider. `run` may be called from many threads at once.

    `providers`: "auto" (CUDA where it can be used, else the CPU), "cpu", "cuda", or a list of ONNX
    Runtime's provider names or (name, options) pairs, in order of preference. What is asked for by name
    is used or is a ProviderError; only "auto" falls back, and says so.
    """

    def __init__(self, graph: Path, providers: Providers, threads: int) -> None:
        runtime = load_onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Spinning threads burn the cores that neighbours, and our own tokenizer, could use.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = _create(runtime, graph, options, providers)
        self.inputs: tuple[str, ...] = tuple(value.name for value in self._session.get_inputs())

    @property
    def provider(self) -> str:
        """The provider that takes the graph's nodes first."""
        return str(self._session.get_providers()[0])

    def run(self, output: str, feeds: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """Compute one output by name; outputs that are not asked for are not copied."""
        result: NDArray[np.float32] = self._session.run([output], dict(feeds))[0]
        return result


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


def available_threads() -> int:
    """The number of cores this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _create(runtime: Any, graph: Path, options: Any, providers: Providers) -> Any:
    available = list(runtime.get_available_providers())
    if providers == "auto":
        if CUDA not in available:
            return _open(runtime, graph, options, [(CPU, {})])
        try:
            return _create(runtime, graph, options, "cuda")
        except ProviderError as error:
            warnings.warn(f"running on the CPU, because {error}", stacklevel=5)
            return _open(runtime, graph, options, [(CPU, {})])
    wanted = _wanted(providers)
    for name, _ in wanted:
        if name not in available:
            raise ProviderError(_why_unavailable(name, available))
    if wanted[0][0] == CUDA and hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()  # finds the CUDA libraries of NVIDIA's wheels, which no loader path names
    session = _open(runtime, graph, options, wanted)
    # ONNX Runtime only logs when a provider fails to load, and goes on without it.
    missing = [name for name, _ in wanted if name not in session.get_providers()]
    if missing:
        raise ProviderError(
            f"{missing[0]} could not be started: its libraries are missing or do not fit the driver "
            "(onnxruntime-gpu needs CUDA, cuBLAS and cuDNN 9: pip install 'onnxembed[gpu]' brings them; "
            "`nvidia-smi` shows the driver)"
        )
    return session


def _wanted(providers: Providers) -> list[Provider]:
    """The requested providers as (name, options), the CPU last for what the others cannot run."""
    listed = [providers] if isinstance(providers, str) else list(providers)
    wanted: list[Provider] = []
    for each in listed:
        name, options = (each, {}) if isinstance(each, str) else each
        if not isinstance(name, str) or not isinstance(options, Mapping):
            raise UsageError(f"providers: {each!r} is neither a name nor a (name, options) pair")
        wanted.append((SHORT_NAMES.get(name, name), dict(options)))
    if not wanted:
        raise UsageError('providers is empty; use "auto", "cpu", "cuda" or a list of names')
    return wanted if any(name == CPU for name, _ in wanted) else [*wanted, (CPU, {})]


def _open(runtime: Any, graph: Path, options: Any, wanted: list[Provider]) -> Any:
    names, provider_options = [name for name, _ in wanted], [options for _, options in wanted]
    try:
        return runtime.InferenceSession(
            str(graph), options, providers=names, provider_options=provider_options, enable_fallback=0
        )
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        if names[0] != CPU:
            raise ProviderError(f"{names[0]} could not open {graph}: {error}") from error
        raise ModelFilesError(f"ONNX Runtime cannot open {graph}: {error}") from error


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
