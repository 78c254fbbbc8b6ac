"""A stand-in for ONNX Runtime with GPUs, for machines without one.

Its functions do what those of the GPU wheel (onnxruntime-gpu 1.31.1) were seen to do: it lists CUDA whatever the
machine, prints the libraries that it cannot load on standard output, and opens the session without CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from onnxembed.execution import cuda
from onnxembed.execution.providers import CPU, CUDA, CUDA_OPTIONS, TENSORRT

ON_CUDA = dict(CUDA_OPTIONS)
KNOWN = {
    CUDA: {
        "device_id": "0",
        "gpu_mem_limit": "18446744073709551615",
        **{name: value for name, value in CUDA_OPTIONS.items() if name != "enable_skip_layer_norm_strict_mode"},
    },
    TENSORRT: {"device_id": "0"},
}
"""The default options that the stand-in's providers report. CUDA does not report all of its options."""


class Opened:
    """A stand-in for an InferenceSession."""

    def __init__(self, started: list[str], reported: dict[str, dict[str, str]], parts: list[SimpleNamespace]) -> None:
        self._started, self._reported, self._parts = started, reported, parts

    def get_providers(self) -> list[str]:
        return self._started

    def get_inputs(self) -> list[Any]:
        return []

    def get_outputs(self) -> list[Any]:
        return []

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return self._reported

    def get_provider_graph_assignment_info(self) -> list[SimpleNamespace]:
        return self._parts


class Runtime:
    """A stand-in for ONNX Runtime: what it provides, and the calls it received."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.available = [CPU]
        self.starts = [CPU]
        self.unloadable: list[str] = []
        self.fails: Callable[[dict[str, Any]], str | None] = lambda options: None
        self.recorded = self.reuses = False
        self.assigned = [(CUDA, "MatMul"), (CPU, "Gather")]
        self.opened: list[list[tuple[str, dict[str, Any]]]] = []
        self.preloaded = 0
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: self.available)
        monkeypatch.setattr(onnxruntime, "InferenceSession", self.open)
        monkeypatch.setattr(onnxruntime, "preload_dlls", self.preload)
        monkeypatch.setattr(cuda, "missing_driver", lambda: "")

    def open(
        self,
        graph: str,
        options: Any,
        *,
        providers: list[str],
        provider_options: list[Any],
        enable_fallback: int,
        disabled_optimizers: list[str],
    ) -> Any:
        assert enable_fallback == 0
        assert bool(disabled_optimizers) is (providers == [CPU])  # the GPU is faster with them
        self.reuses = options.enable_mem_reuse
        self.opened.append(list(zip(providers, provider_options, strict=True)))
        with suppress(RuntimeError):  # it has no such entry
            self.recorded = options.get_session_config_entry(cuda.ASSIGNMENT) == "1"
        for name, values in self.opened[-1]:
            if name == CUDA and (reason := self.fails(values)):
                raise RuntimeError(reason)
        started = [name for name in providers if name in self.starts]
        options = {name: {**KNOWN.get(name, {}), **self.unreported(values)} for name, values in self.opened[-1]}
        reported = {name: {key: str(value) for key, value in values.items()} for name, values in options.items()}
        parts = [
            SimpleNamespace(ep_name=name, get_nodes=lambda operator=operator: [SimpleNamespace(op_type=operator)])
            for name, operator in self.assigned
        ]
        return Opened(started, reported, parts)

    def unreported(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options that a session reports: not all those that its provider knows."""
        return {key: value for key, value in options.items() if key in KNOWN[CUDA]}

    def preload(self) -> None:
        self.preloaded += 1
        for library in self.unloadable:
            print(f"Failed to load {library}: {library}: cannot open shared object file")
        print("Please follow https://onnxruntime.ai/docs/install/#cuda-and-cudnn to install CUDA.")


def install(monkeypatch: pytest.MonkeyPatch, *wheels: str) -> None:
    """Make these the distributions that are installed, as far as providers ask for them."""
    monkeypatch.setattr("onnxembed.execution.providers.is_installed", lambda name: name in wheels)
