"""Where runs are computed: the protocol of backends, and which one opens a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxembed.errors import ProviderError
from onnxembed.execution.cpu import CpuBackend
from onnxembed.execution.cuda import GPU_PROVIDERS
from onnxembed.execution.gpu import GpuBackend
from onnxembed.execution.providers import Providers, wanted_providers, wants_cuda
from onnxembed.execution.scheduling import SMALL_RUN
from onnxembed.execution.session import Session
from onnxembed.warning import warn


@dataclass(frozen=True)
class GraphFiles:
    """One graph: its file, its bytes with its weights, and whether the CPU has no kernels for it.

    `packed` is its form for CUDA, whose runs have no padding, where there is one.
    """

    path: Path
    size: int
    cuda_only: bool = False
    packed: Path | None = None
    quantized: bool = False
    """Whether runs must be of texts of one length, because padding would change how values are rounded."""


def open_graph(
    graph: GraphFiles, providers: Providers, threads: int, device_ids: Sequence[int] | None = None
) -> CpuBackend | GpuBackend:
    """Open a graph where the caller wants it: on these GPUs, on one, or on the CPU.

    `providers` are those of `Session`, or "auto": CUDA where it can be used, else the CPU, which is then said.
    Who names GPUs, or a graph that only they run, gets them or a ProviderError.
    """
    if providers == "auto" and (device_ids or graph.cuda_only):
        providers = "cuda"
    if wants_cuda(providers):
        try:
            return open_graph(graph, "cuda", threads)
        except ProviderError as error:
            warn(f"running on the CPU, because {error}")
    if providers == "auto":
        providers = "cpu"
    devices = list(device_ids) if device_ids else [None]
    if wanted_providers(providers, devices[0])[0][0] not in GPU_PROVIDERS:
        if graph.cuda_only:
            raise ProviderError(f"{graph.path} runs on CUDA only: the CPU has no kernels for its numbers")
        return CpuBackend(graph.path, graph.size, providers, threads, 0 if graph.quantized else SMALL_RUN)
    path = graph.packed or graph.path
    sessions = [Session(path, providers, threads, device) for device in devices]
    return GpuBackend(sessions, packed=graph.packed is not None, quantized=graph.quantized)
