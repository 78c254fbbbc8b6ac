"""Which proofs were passed on this machine: a small file for each, in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import tokenizers

from onnxembed.execution.openvino import load_openvino
from onnxembed.execution.providers import CPU, OPENVINO, Placement, load_onnxruntime
from onnxembed.runtime.open_model import OpenModel
from onnxembed.user_cache import user_cache

CPUINFO = Path("/proc/cpuinfo")

# More characters than /proc/cpuinfo has for one core.
_ONE_CORE = 2**14

NVIDIA = Path("/proc/driver/nvidia")
"""Where NVIDIA's driver says its version, and the name of each GPU."""


CUDA_NUMBERS = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
"""The environment variables that decide which GPU has which number."""


def cache_folder() -> Path:
    """The folder of passed proofs."""
    return user_cache() / "proofs"


def key(opened: OpenModel, placement: Placement, ways: Sequence[str], *, tokens: bool) -> str:
    """What a passed proof holds for: this machine, provider with its options, versions, and the artifact's files.

    Of several GPUs it holds for those that were named, by the numbers that CUDA gives them. A shorter `max_length`
    leaves items out, and without `tokens` the tokenizer was not compared: what passed so has not passed as a whole.
    On a CPU, threads divide products among them, and where they do decides which kernels compute them.
    """
    from onnxembed import __version__  # the package imports this module

    document = {
        "machine": [*_machine()],
        "provider": [opened.provider, repr(placement.providers)],
        "devices": [placement.device_id, repr(placement.device_ids), *map(os.environ.get, CUDA_NUMBERS)],
        "versions": [__version__, load_onnxruntime().__version__, tokenizers.__version__],
        "engine": load_openvino().__version__ if opened.provider == OPENVINO else None,
        "precision": [opened.precision, opened.variant],
        "compared": [opened.max_length, tokens, *ways],
        "threads": opened.threads if opened.provider in (CPU, OPENVINO) else None,
        "artifact": opened.manifest.to_json(),  # with the hash of each of its files
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def passed(name: str) -> dict[str, Any] | None:
    """The figures of a proof that was passed; None if there is no such file, or it cannot be read."""
    try:
        figures = json.loads((cache_folder() / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # RuntimeError: there is no home
        return None
    return figures if isinstance(figures, dict) else None


def remember(name: str, figures: dict[str, Any]) -> None:
    """Write down that a proof was passed. Where nothing can be written, it is run again next time."""
    with suppress(OSError, RuntimeError):
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{name}.{os.getpid()}"
        draft.write_text(json.dumps(figures), encoding="utf-8")
        draft.replace(folder / f"{name}.json")


def forget(name: str) -> None:
    """Take back that a proof was passed."""
    with suppress(OSError, RuntimeError):
        (cache_folder() / f"{name}.json").unlink(missing_ok=True)


def _machine() -> Iterator[str]:
    """What decides how this machine computes: its processor with its instructions, its GPUs and their driver."""
    yield f"{platform.system()} {platform.machine()} {platform.processor()}"
    with suppress(OSError):
        with CPUINFO.open(encoding="utf-8", errors="replace") as file:  # a processor of many cores has a long one
            text = file.read(_ONE_CORE).partition("\n\n")[0]
        for line in text.splitlines():
            if re.match(r"(model name|flags|Features|CPU (part|implementer|variant))\s*:", line):
                yield line
    with suppress(OSError):
        yield (NVIDIA / "version").read_text(encoding="utf-8", errors="replace")
        for gpu in sorted((NVIDIA / "gpus").glob("*/information")):
            yield from (line for line in gpu.read_text(errors="replace").splitlines() if line.startswith("Model"))
