"""Opens a graph where it is decided to run: on the CPU, in bf16 with what computes it there, or on GPUs."""

from __future__ import annotations

from functools import partial

from onnxembed.errors import MissingExtraError, ProviderError, UnsupportedError, UsageError
from onnxembed.execution.backend import Backend, Bf16Way, GraphFiles
from onnxembed.execution.cpu import CpuBackend, OpenCpuSession
from onnxembed.execution.providers import Place, wanted_providers
from onnxembed.execution.session import OpenSession, Session
from onnxembed.warning import warn

LONGEST_SUM = 256
"""The most tokens of a text in bf16 on ARM64.

ONNX Runtime 1.31 and 1.32 compute products of two results wrongly there if their sums are longer and a thread has at
most 64 columns: MlasSBGemmNonPackedOperation (core/mlas/lib/sbgemm.h) makes blocks of more than 256, which
MlasSBGemmConvertPackB packs as several, and the kernel reads as one. Pooling and some attention are such products. How
columns are divided depends on the threads, and on the texts of a run, so that the proof may not find it.
"""


def bf16_way() -> Bf16Way:
    """How this machine's CPU computes in bf16; ProviderError if it does not."""
    import platform

    from onnxembed.execution.processor import read_processor  # for bf16 alone

    processor = read_processor()
    way = processor.bf16_way(platform.system())
    if way is None:
        raise ProviderError(
            f"precision bf16 on a CPU needs Linux and the instructions AVX-512 BF16 or AMX BF16 (x86), or BF16 "
            f"(ARM64), which {processor.name} is not known to have: use precision fp32 or an integer one, or a GPU"
        )
    return way


def why_no_bf16() -> str:
    """Why this CPU, with what is installed, computes nothing in bf16; empty where it does."""
    try:
        if bf16_way() == "openvino":
            from onnxembed.execution.openvino import load_openvino  # for bf16 on x86 alone

            load_openvino()
    except (ProviderError, MissingExtraError) as error:
        return str(error)
    return ""


def check_length(way: Bf16Way | None, tokens: int) -> None:
    """Raise UnsupportedError if texts of so many tokens are not computed correctly this way."""
    if way == "fast_math" and tokens > LONGEST_SUM:
        raise UnsupportedError(
            f"precision bf16 on ARM64 is for texts of at most {LONGEST_SUM} tokens, and this model is opened for "
            f"{tokens}: ONNX Runtime computes longer sums wrongly; open it with max_length={LONGEST_SUM}, or use "
            "precision fp32"
        )


def open_backend(graph: GraphFiles, place: Place, open_session: OpenSession = Session) -> Backend:
    """Open a graph on the GPUs of a place, or on the CPU; in bf16 on the CPU, with what computes it there.

    Where nobody asked for a GPU and it cannot be used, the CPU takes its place, with a warning that says why. A graph
    that only a GPU can run never goes to the CPU: ProviderError says why not. UsageError for options that what computes
    the graph does not have.
    """
    if place.spin:
        open_session = partial(open_session, spin=True)
    if graph.cuda_only and place.automatic:
        place = place._replace(wanted=(wanted_providers("cuda"),), automatic=False)
    if place.wanted[0].device == "gpu":
        try:
            return _open_on_gpus(graph, place, open_session)
        except ProviderError as error:
            if not place.automatic:
                raise
            warn(f"running on the CPU, because {error}")
            place = place._replace(wanted=(wanted_providers("cpu"),))
    elif graph.cuda_only:
        raise ProviderError(f"{graph.path} runs on CUDA only: the CPU has no kernels for its numbers")
    on_cpu = open_session if graph.bf16 is None else _bf16_session(graph.bf16, graph, place)
    return CpuBackend(graph, place.wanted[0], place.threads, place.tokens_per_run, open_session=on_cpu)


def _bf16_session(way: Bf16Way, graph: GraphFiles, place: Place) -> OpenCpuSession:
    """What opens an fp32 graph for runs in bf16 on the CPU."""
    if way == "fast_math":
        return partial(Session, fast_math=True, spin=place.spin)
    if place.spin:
        raise UsageError("spin is for ONNX Runtime's threads: leave it out, since OpenVINO computes bf16 here")
    from onnxembed.execution.openvino import OpenVinoSession  # for bf16 on x86 alone

    return partial(OpenVinoSession, streams=place.threads, built=graph.built)


def _open_on_gpus(graph: GraphFiles, place: Place, open_session: OpenSession) -> Backend:
    """A session on each GPU of the place; of the packed graph if there is one."""
    from onnxembed.execution.gpu import GpuBackend  # not needed on the CPU

    path = graph.packed or graph.path
    sessions = [open_session(path, wanted, place.threads) for wanted in place.wanted]
    packed = graph.packed is not None
    return GpuBackend(sessions, place.tokens_per_run, packed=packed, quantized=graph.quantized, one_text=graph.one_text)
