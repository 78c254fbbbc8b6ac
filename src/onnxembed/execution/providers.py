"""Where a graph can run, and where it will: ONNX Runtime's execution providers, and what a placement makes of them.

First their names and options; then what a caller asks for, and what is decided; then whether they can be used.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from onnxembed.arguments import whole_number
from onnxembed.errors import MissingExtraError, UsageError
from onnxembed.execution.cores import available_threads

Provider = tuple[str, dict[str, Any]]
"""The name of one of ONNX Runtime's execution providers, and its options."""

Providers = str | Sequence[str | tuple[str, Mapping[str, Any]]]
"""Providers as a caller names them: "auto", "cpu", "cuda", "tensorrt", or a list of ONNX Runtime's provider names or
(name, options) pairs, in order of preference."""

CPU = "CPUExecutionProvider"

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"

OPENVINO = "OpenVINO"
"""Not one of ONNX Runtime's: what computes in bf16 on x86."""

Device = Literal["cpu", "gpu"]
"""What runs a graph, as far as it matters which of an artifact's files are read."""

GPU_PROVIDERS = (CUDA, TENSORRT)
"""Providers whose option `device_id` says which GPU they run on."""

CUDA_OPTIONS: Mapping[str, Any] = MappingProxyType(
    {
        # Vectors should be the model's own: TF32 keeps 10 of the 23 bits of a factor, and a LayerNormalization that
        # is fused with a sum would add in fp16.
        "use_tf32": 0,
        "enable_skip_layer_norm_strict_mode": 1,
        # Runs have many sizes, and doubling the memory for a larger one takes up to twice what is needed.
        "arena_extend_strategy": "kSameAsRequested",
        # Attention by kernels that take any shape: flash (1), memory-efficient (2), TensorRT's (4, 32, 64), unfused
        # (16). Not by cuDNN's (8), which ONNX Runtime otherwise prefers from compute capability 9 on: it compiles a
        # plan for each shape, and keeps all of them for each thread, and runs have many shapes.
        "sdpa_kernel": 1 | 2 | 4 | 16 | 32 | 64,
    }
)
"""The CUDA provider's options unless the caller sets them."""

SHORT_NAMES = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}

MOST_THREADS = 1024
"""More than that no machine has cores for; tens of thousands stop it."""


def load_onnxruntime() -> Any:
    """The onnxruntime module; MissingExtraError, which names the extras that install it, if there is none."""
    # Its wheels send telemetry to their maker unless this is set before the import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            f"onnxruntime cannot be imported ({error}): pip install 'onnxembed[cpu]', "
            "or 'onnxembed[gpu]' on a machine with an NVIDIA GPU"
        ) from error
    return onnxruntime


def wants_cuda() -> bool:
    """Whether "auto" should try the GPU: an installed GPU wheel asks for it, even if the CPU wheel overwrote it."""
    return CUDA in load_onnxruntime().get_available_providers() or is_installed("onnxruntime-gpu")


@dataclass(frozen=True)
class Placement:
    """Where and how a caller wants a graph to run; `decide` checks the values and settles what they leave open."""

    providers: Providers = "auto"
    """The providers to use; "auto" is CUDA if it can be used, else the CPU."""
    threads: int | None = None
    """Threads of the CPU to use; as many as the process may use if None."""
    device_id: int | None = None
    """The number of one GPU, instead of `device_ids`."""
    device_ids: Sequence[int] | None = None
    """The numbers of the GPUs to share the work among; the first one if None."""
    tokens_per_run: int | None = None
    """The most slots of a run, padding included; what suits the device if None."""
    spin: bool = False
    """Whether threads that compute a run together keep their cores busy until the next one."""


class Wanted(NamedTuple):
    """ONNX Runtime, and the providers that a graph is wanted on, in order of preference; the CPU is among them."""

    runtime: Any
    providers: tuple[Provider, ...]
    device: Device | None
    """What the first of the providers runs on; None for neither."""


class Place(NamedTuple):
    """Where and how a graph will run: a placement of which everything is decided."""

    wanted: tuple[Wanted, ...]
    """The providers to use; of several GPUs that share the work, those of each."""
    automatic: bool
    """Whether nobody asked for these providers, so that another one may take their place."""
    threads: int
    tokens_per_run: int | None
    spin: bool


def decide(placement: Placement) -> Place:
    """Decide what a placement leaves open: the threads, and the providers of "auto".

    "auto" means CUDA if GPUs are named or it seems usable, else the CPU. Raises UsageError for an impossible value.
    """
    threads = available_threads() if placement.threads is None else whole_number("threads", placement.threads)
    if threads > MOST_THREADS:
        raise UsageError(f"threads is {threads}; more than {MOST_THREADS} would only wait for each other")
    if placement.tokens_per_run is not None:
        whole_number("tokens_per_run", placement.tokens_per_run)
    if not isinstance(placement.spin, bool):
        raise UsageError(f"spin is {placement.spin!r}, not True or False")
    devices = _devices(placement)
    automatic = placement.providers == "auto" and not devices
    providers: Providers = "cuda" if placement.providers == "auto" and devices else placement.providers
    wanted = tuple(wanted_providers(providers, device) for device in devices or (None,))
    return Place(wanted, automatic, threads, placement.tokens_per_run, placement.spin)


def _devices(placement: Placement) -> tuple[int, ...]:
    """The numbers of the GPUs that a placement names; none if it names none."""
    if placement.device_id is None:
        return () if placement.device_ids is None else check_device_ids(placement.device_ids)
    if placement.device_ids is not None:
        raise UsageError("give device_id or device_ids, not both")
    return check_device_ids((placement.device_id,))


def wanted_providers(providers: Providers, device_id: int | None = None) -> Wanted:
    """The requested providers as (name, options), on this GPU; the CPU is last, for what the others cannot run.

    "auto" is CUDA where an installed wheel asks for it, else the CPU. Raises UsageError for providers that are not
    possible, and MissingExtraError without ONNX Runtime.
    """
    runtime = load_onnxruntime()
    if providers == "auto":
        providers = "cuda" if wants_cuda() else "cpu"
    if isinstance(providers, str):
        providers = [providers]
    if not isinstance(providers, Sequence):
        raise UsageError(f"providers is {providers!r}, not a name or a list of names")
    wanted: dict[str, dict[str, Any]] = {}
    for provider in providers:
        match [provider, {}] if isinstance(provider, str) else provider:
            case [str(name), Mapping() as options]:
                name = SHORT_NAMES.get(name, name)
            case _:
                raise UsageError(f"providers: {provider!r} is neither a name nor a (name, options) pair")
        if name in wanted:
            raise UsageError(f"providers names {name} twice")
        wanted[name] = dict(options)
    if not wanted:
        raise UsageError('providers is empty; use "auto", "cpu", "cuda", "tensorrt" or a list of names')
    if TENSORRT in wanted:
        wanted.setdefault(CUDA, {})  # TensorRT has none of ONNX Runtime's fused operators
    wanted.setdefault(CPU, {})
    if CUDA in wanted:
        wanted[CUDA] = {**CUDA_OPTIONS, **wanted[CUDA]}
    placed = tuple(wanted.items() if device_id is None else _on_device(wanted, device_id))
    first, _ = placed[0]
    return Wanted(runtime, placed, "cpu" if first == CPU else "gpu" if first in GPU_PROVIDERS else None)


def _on_device(wanted: Mapping[str, Mapping[str, Any]], device_id: int) -> list[Provider]:
    """The providers with the option that names this GPU."""
    if not any(name in GPU_PROVIDERS for name in wanted):
        raise UsageError(f"device_id is for {' and '.join(GPU_PROVIDERS)}, not for {', '.join(wanted)}")
    placed: list[Provider] = []
    for name, options in wanted.items():
        if str(option := options.get("device_id", device_id)) != str(device_id):
            raise UsageError(f"{name} has the option device_id={option}, but device_id is {device_id}")
        placed.append((name, {**options, "device_id": device_id} if name in GPU_PROVIDERS else {**options}))
    return placed


def check_device_ids(device_ids: Sequence[int]) -> tuple[int, ...]:
    """The numbers of GPUs; UsageError unless they are a non-empty list of distinct integers from 0."""
    if not isinstance(device_ids, list | tuple | range) or not device_ids or len({*device_ids}) < len(device_ids):
        raise UsageError(f"device_ids is {device_ids!r}, not a list that names at least one GPU, and each once")
    for number in device_ids:
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise UsageError(f"{number!r} is not a GPU number (they count from 0)")
    return tuple(device_ids)


def preload_cuda(runtime: Any) -> str:
    """Load the CUDA libraries from NVIDIA's wheels, where no loader looks; returns what could not be loaded."""
    printed = io.StringIO()
    with redirect_stdout(printed):  # it prints failures to standard output
        runtime.preload_dlls()
    lines = printed.getvalue().splitlines()
    return "; ".join(line.partition(": ")[2] for line in lines if line.startswith("Failed to load"))


def why_unavailable(name: str, available: list[str]) -> str:
    """Why a provider is not in the installed ONNX Runtime, and what to do about it."""
    if name not in GPU_PROVIDERS:
        return (
            f"{name} is not in the installed onnxruntime, which has {', '.join(available)} "
            f"(short names: {', '.join(SHORT_NAMES)})"
        )
    cpu_wheel, gpu_wheel = is_installed("onnxruntime"), is_installed("onnxruntime-gpu")
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
    return f"the installed onnxruntime has no {name} (only {', '.join(available)}): pip install 'onnxembed[gpu]'"


def is_installed(name: str) -> bool:
    """Whether a distribution of this name is installed, even if its files were overwritten.

    Installers leave a folder NAME-VERSION.dist-info beside the packages. importlib.metadata would find it, too, but it
    imports email, csv and zipfile, and every model that is opened would wait for them.
    """
    wanted = _normalized(name)
    return any(_distribution(entry) == wanted for place in sys.path for entry in _entries(place))


def _entries(place: str) -> list[str]:
    with suppress(OSError):  # a place that modules are imported from may be an archive, or missing
        return os.listdir(place or ".")
    return []


def _distribution(entry: str) -> str | None:
    """The name of the distribution that a folder describes; None for other folders and files."""
    stem, kind = os.path.splitext(entry)
    return _normalized(stem.partition("-")[0]) if kind in (".dist-info", ".egg-info") else None


def _normalized(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")
