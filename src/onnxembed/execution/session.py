"""One graph on one provider of ONNX Runtime."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxembed.errors import (
    DeviceMemoryError,
    ModelFilesError,
    OnnxEmbedError,
    ProviderError,
    TokenRowError,
    UsageError,
)
from onnxembed.execution import cuda
from onnxembed.execution.providers import (
    CPU,
    CUDA,
    GPU_PROVIDERS,
    Provider,
    Wanted,
    preload_cuda,
    why_unavailable,
)

# Fusions of ONNX Runtime that make graphs slower on the CPU; see Graph.add_pre_layer_norm.
SLOW_FUSIONS = ["SkipLayerNormFusion"]

# Threads that spin while they wait use up cores that other programs could use. A spin that is just long enough for the
# gap between two nodes costs nothing measurable, and a run does not have to wake the threads for every node. With
# `spin` they wait as long as ONNX Runtime lets them, so that the next run finds them awake, too.
SPIN_MICROSECONDS = "200"

FAST_MATH = "mlas.enable_gemm_fastmath_arm64_bfloat16"
"""The session option by which ARM64 processors compute matrix products of an fp32 graph in bf16."""

SHRINK = "memory.enable_memory_arena_shrinkage"
"""The run option that returns memory when the run ends; its value names the device, as in `gpu:0`."""

INPUT_TYPES: dict[str, Any] = {
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
}
"""What inputs are cast to: graphs from elsewhere may take token ids as int32, and masks as floats or booleans."""


class Session:
    """One graph on one provider. `run` may be called from many threads at once.

    Args:
        graph: the ONNX file.
        wanted: the providers to use, as `wanted_providers` gives them.
        threads: on the CPU, each run is computed by this many threads together.
        fast_math: on ARM64 under Linux, compute matrix products in bf16.
        spin: keep the threads busy while they wait for the next run, too.

    Raises:
        ModelFilesError: ONNX Runtime cannot open the graph.
        ProviderError: a provider cannot be used, or has no kernels for the graph.
        UsageError: the options of a provider are not possible.
    """

    def __init__(
        self, graph: Path, wanted: Wanted, threads: int, *, fast_math: bool = False, spin: bool = False
    ) -> None:
        runtime = wanted.runtime
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if not spin:
            options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_MICROSECONDS)
        if fast_math:
            options.add_session_config_entry(FAST_MATH, "1")
        # Otherwise it keeps a memory plan for every combination of shapes: they add up, and save no time.
        options.enable_mem_pattern = False
        # Otherwise it keeps what one layer has used for the same place in the next one, whatever comes between: a text
        # of 8,192 tokens needs a fifth more memory, and no length gets faster. (This was measured on a CPU alone.)
        options.enable_mem_reuse = wanted.providers[0][0] != CPU
        self._runtime = runtime
        self._session = _create(runtime, graph, options, wanted.providers)
        self.provider = str(self._session.get_providers()[0])
        """The provider that takes the graph's nodes first."""
        self.device_id = self._find_device()
        """The number of the GPU; None on the CPU."""
        inputs = self._session.get_inputs()
        self.inputs = frozenset(value.name for value in inputs)
        """The names of the graph's inputs."""
        self._outputs = [value.name for value in self._session.get_outputs()]
        self._dtypes = {value.name: INPUT_TYPES[value.type] for value in inputs if value.type in INPUT_TYPES}

    def _find_device(self) -> int | None:
        if self.provider not in GPU_PROVIDERS:
            return None
        return int(self._session.get_provider_options()[self.provider]["device_id"])

    def run(
        self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]], *, shrink: bool = False
    ) -> list[NDArray[np.float32]]:
        """Compute outputs by name, as float32; outputs that are not asked for are not copied.

        `shrink` returns memory, when the run ends, that later runs may not need. Raises DeviceMemoryError for a run
        that does not fit into the device's memory.
        """
        fed = {name: value.astype(self._dtypes.get(name, value.dtype), copy=False) for name, value in feeds.items()}
        try:
            if self.device_id is None:
                results = self._session.run(list(outputs), fed, self._run_options("cpu:0") if shrink else None)
            else:
                results = self._run_bound(outputs, fed, shrink=shrink)
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            if absent := [name for name in outputs if name not in self._outputs]:
                raise UsageError(
                    f"this model's graph has no output {', '.join(absent)}, only {', '.join(self._outputs)}"
                ) from error
            shape = next(iter(fed.values())).shape
            if not cuda.is_out_of_memory(error):
                if not type(error).__module__.startswith("onnxruntime"):
                    raise
                raise _run_error(error, fed) from error
            raise DeviceMemoryError(
                f"a run of shape {shape} does not fit into the memory of {self.provider}: {error} "
                "(a smaller max_length or fp16 needs less memory; gpu_mem_limit is the provider's own limit)"
            ) from error
        return [np.asarray(result, np.float32) for result in results]

    def _run_bound(
        self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]], *, shrink: bool
    ) -> list[NDArray[np.float32]]:
        """Run with outputs that stay on the GPU until the ones that were asked for are copied, once."""
        binding = self._session.io_binding()
        for name, value in feeds.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
        for name in outputs:
            binding.bind_output(name, "cuda", self.device_id)
        options = self._run_options(f"gpu:{self.device_id}" if shrink else "")
        options.log_severity_level = cuda.QUIET
        self._session.run_with_iobinding(binding, options)
        results: list[NDArray[np.float32]] = binding.copy_outputs_to_cpu()
        return results

    def _run_options(self, shrink: str) -> Any:
        """Options of one run; `shrink` names the device whose memory it returns when it ends."""
        options = self._runtime.RunOptions()
        if shrink:
            options.add_run_config_entry(SHRINK, shrink)
        return options


def _run_error(error: Exception, fed: Mapping[str, NDArray[Any]]) -> OnnxEmbedError:
    """What an error of ONNX Runtime says about a run: about its token ids, or about the graph."""
    cause = f"{error}".partition("\n")[0]
    ids = fed.get("input_ids")
    beyond = re.search(r"out of data bounds, idx=(\d+)", cause)
    if ids is not None and beyond and int(beyond[1]) in ids:
        return TokenRowError.of(int(beyond[1]))
    return ModelFilesError(f"the graph cannot compute a run of shape {next(iter(fed.values())).shape}: {cause}")


class OpenSession(Protocol):
    """What opens one graph, as `Session` does."""

    def __call__(self, graph: Path, wanted: Wanted, threads: int, *, spin: bool = False) -> Session:
        """Open a graph with these providers, on this many CPU threads."""


def _create(runtime: Any, graph: Path, options: Any, wanted: Sequence[Provider]) -> Any:
    """An InferenceSession that uses all wanted providers; ProviderError if it would do without one of them."""
    names = [name for name, _ in wanted]
    unloaded = preload_cuda(runtime) if CUDA in names else ""
    available = list(runtime.get_available_providers())
    for name in names:
        if name not in available:
            raise ProviderError(why_unavailable(name, available))
    if names[0] in GPU_PROVIDERS:
        options.add_session_config_entry(cuda.ASSIGNMENT, "1")
    session = _open(runtime, graph, options, wanted)
    # If a provider's libraries cannot be loaded, ONNX Runtime only logs it, and goes on without the provider.
    missing = [name for name in names if name not in session.get_providers()]
    if missing:
        driver = cuda.missing_driver() if missing[0] in GPU_PROVIDERS else ""
        because = "; ".join(filter(None, [driver, unloaded])) or "its libraries are missing or do not fit the driver"
        cure = cuda.CURES.get(missing[0], "ONNX Runtime's log on standard error says more")
        raise ProviderError(f"{missing[0]} could not be started: {because} ({cure})")
    _check_options(session.get_provider_options(), wanted)
    if names[0] in GPU_PROVIDERS:
        parts = session.get_provider_graph_assignment_info()
        if left := cuda.left_behind(node.op_type for part in parts if part.ep_name == CPU for node in part.get_nodes()):
            raise ProviderError(f"{graph} cannot run on {names[0]}: {left}")
    return session


def _check_options(reported: Mapping[str, Mapping[str, str]], wanted: Sequence[Provider]) -> None:
    """Raise UsageError for an option that a provider ignored. Providers that report no options are not checked.

    Providers for GPUs are not checked either: they refuse unknown options when they open a graph, and do not report
    all the options that they have.
    """
    for name, options in wanted:
        if name in GPU_PROVIDERS:
            continue
        own = reported.get(name, {})
        ignored = sorted(options.keys() - own.keys())
        if ignored and (own or name == CPU):
            raise UsageError(f"{name} has no option {', '.join(ignored)}; it has: {', '.join(sorted(own)) or 'none'}")


def _open(runtime: Any, graph: Path, options: Any, wanted: Sequence[Provider]) -> Any:
    """An InferenceSession of the graph.

    If it cannot be opened on a GPU, the graph is opened on the CPU to find whose fault that is: ModelFilesError if
    the CPU cannot open it either, otherwise UsageError or ProviderError.
    """
    names, provider_options = [name for name, _ in wanted], [options for _, options in wanted]
    try:
        # No fallback: ONNX Runtime would go to the CPU, and only print that.
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
        if "Unknown provider option" in str(error):
            raise UsageError(f"providers: {error}") from error
        _open(runtime, graph, options, [(CPU, {})])  # raises if the graph is at fault
        asked = " and ".join(f"{name} {dict(options)}" for name, options in wanted if name != CPU)
        meaning = cuda.cause(str(error))
        because = f"{meaning} ({error})" if meaning else str(error)
        raise ProviderError(f"{graph} runs on the CPU, but not on {asked}: {because}") from error
