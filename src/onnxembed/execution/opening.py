"""Which backend opens a graph."""

from __future__ import annotations

from collections.abc import Sequence

from onnxembed.errors import ProviderError
from onnxembed.execution.backend import Backend, GraphFiles, Placement
from onnxembed.execution.cpu import CpuBackend
from onnxembed.execution.gpu import GpuBackend
from onnxembed.execution.providers import GPU_PROVIDERS, Providers, wanted_providers, wants_cuda
from onnxembed.execution.session import OpenSession, Session
from onnxembed.warning import warn


def open_backend(graph: GraphFiles, placement: Placement, open_session: OpenSession = Session) -> Backend:
    """Open a graph on the GPUs that the placement names, on one GPU, or on the CPU.

    "auto" means CUDA if it can be used, else the CPU, with a warning that says why. If the placement names GPUs, or
    only a GPU can run the graph, it runs there or ProviderError is raised.
    """
    providers, devices = placement.providers, placement.device_ids
    if providers == "auto" and (devices or graph.cuda_only):
        providers = "cuda"
    if providers == "auto":
        if wants_cuda():
            try:
                return _open_on_gpus(graph, "cuda", placement, open_session)
            except ProviderError as error:
                warn(f"running on the CPU, because {error}")
        providers = "cpu"
    elif wanted_providers(providers, devices[0] if devices else None)[0][0] in GPU_PROVIDERS:
        return _open_on_gpus(graph, providers, placement, open_session)
    if graph.cuda_only:
        raise ProviderError(f"{graph.path} runs on CUDA only: the CPU has no kernels for its numbers")
    return CpuBackend(graph, providers, placement.cpu_threads, placement.tokens_per_run, open_session=open_session)


def _open_on_gpus(
    graph: GraphFiles, providers: Providers, placement: Placement, open_session: OpenSession
) -> GpuBackend:
    """A session on each GPU that the placement names, or on the first one; of the packed graph if there is one."""
    path = graph.packed or graph.path
    devices: Sequence[int | None] = placement.device_ids or (None,)
    sessions = [open_session(path, providers, placement.cpu_threads, device) for device in devices]
    packed = graph.packed is not None
    return GpuBackend(
        sessions, placement.tokens_per_run, packed=packed, quantized=graph.quantized, one_text=graph.one_text
    )
