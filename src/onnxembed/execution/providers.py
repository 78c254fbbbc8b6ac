"""The providers of ONNX Runtime: names, options, and whether they can be used."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

from onnxembed.errors import MissingExtraError, UsageError
from onnxembed.execution import cuda
from onnxembed.execution.cuda import CUDA, GPU_PROVIDERS, TENSORRT

Provider = tuple[str, dict[str, Any]]


Providers = str | Sequence[str | tuple[str, Mapping[str, Any]]]


CPU = "CPUExecutionProvider"


SHORT_NAMES = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}


def load_onnxruntime() -> Any:
    """The onnxruntime module, or an error that names the extras that bring it."""
    # Its wheels report to their maker what is run, unless this is set before they are imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            f"onnxruntime cannot be imported ({error}): pip install 'onnxembed[cpu]', "
            "or 'onnxembed[gpu]' on a machine with an NVIDIA GPU"
        ) from error
    return onnxruntime


def wants_cuda(providers: Providers) -> bool:
    """Whether "auto" should try the GPU: its wheel is a wish for it, also where the CPU wheel has overwritten it."""
    if providers != "auto":
        return False
    return CUDA in load_onnxruntime().get_available_providers() or is_installed("onnxruntime-gpu")


def wanted_providers(providers: Providers, device_id: int | None = None) -> list[Provider]:
    """The requested providers as (name, options), on this GPU, the CPU last for what the others cannot run."""
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
        raise UsageError('providers is empty; use "auto", "cpu", "cuda", "tensorrt" or a list of names')
    if TENSORRT in wanted:
        wanted.setdefault(CUDA, {})  # it has none of ONNX Runtime's fused operators
    wanted.setdefault(CPU, {})
    if CUDA in wanted:
        wanted[CUDA] = {**cuda.OPTIONS, **wanted[CUDA]}
    return list(wanted.items()) if device_id is None else _on_device(wanted, device_id)


def _on_device(wanted: Mapping[str, Mapping[str, Any]], device_id: int) -> list[Provider]:
    """The providers, those for GPUs on this one."""
    if not any(name in cuda.GPU_PROVIDERS for name in wanted):
        raise UsageError(f"device_id names a GPU of {' or '.join(cuda.GPU_PROVIDERS)}, not of {', '.join(wanted)}")
    for name, options in wanted.items():
        if str(named := options.get("device_id", device_id)) != str(device_id):
            raise UsageError(f"{name} has the option device_id={named}, but device_id is {device_id}")
    own = {"device_id": device_id}
    return [(name, {**options, **(own if name in cuda.GPU_PROVIDERS else {})}) for name, options in wanted.items()]


def preload_cuda(runtime: Any) -> str:
    """Load the CUDA libraries of NVIDIA's wheels, which are on no loader path; returns what could not be loaded."""
    printed = io.StringIO()
    with redirect_stdout(printed):  # it prints its failures, where a program's own output goes
        runtime.preload_dlls()
    lines = printed.getvalue().splitlines()
    return "; ".join(line.partition(": ")[2] for line in lines if line.startswith("Failed to load"))


def why_unavailable(name: str, available: list[str]) -> str:
    """The cause and the cure when a provider is not in the installed ONNX Runtime."""
    if name not in cuda.GPU_PROVIDERS:
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
    """Whether there is a distribution of this name, whatever became of its files."""
    from importlib.metadata import PackageNotFoundError, distribution  # it brings email, csv and zipfile

    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def may_use_gpu(providers: Providers, device_ids: Sequence[int] | None) -> bool:
    """Whether `open_graph` would try a GPU."""
    if providers == "auto":
        return bool(device_ids) or wants_cuda(providers)
    return wanted_providers(providers)[0][0] in GPU_PROVIDERS


def check_device_ids(device_id: int | None, device_ids: Sequence[int] | None) -> tuple[int, ...] | None:
    """The numbers of the GPUs to use; None for whichever is first. Raises UsageError for what is no such list."""
    if device_id is not None and device_ids is not None:
        raise UsageError("give device_id or device_ids, not both")
    if device_id is None and device_ids is None:
        return None
    if device_ids is None:
        named: tuple[Any, ...] = (device_id,)
    elif isinstance(device_ids, list | tuple | range) and device_ids and len({*device_ids}) == len(device_ids):
        named = tuple(device_ids)
    else:
        raise UsageError(f"device_ids is {device_ids!r}, not a list that names at least one GPU, and each once")
    for each in named:
        if not isinstance(each, int) or isinstance(each, bool) or each < 0:
            raise UsageError(f"{each!r} is no number of a GPU, which is 0, 1, ...")
    return named
