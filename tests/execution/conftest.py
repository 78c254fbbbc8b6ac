"""Fixtures of the tests of execution."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxembed.execution.providers import CPU, CUDA
from stand_in_runtime import Runtime, install


@pytest.fixture
def graph(artifact: Path) -> Path:
    """A tiny graph."""
    return artifact / "onnx/model.onnx"


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """The CPU wheel; the fixture `gpu` turns it into the GPU wheel."""
    install(monkeypatch, "onnxruntime")
    return Runtime(monkeypatch)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, runtime: Runtime) -> Runtime:
    """The GPU wheel on a machine where CUDA works."""
    install(monkeypatch, "onnxruntime-gpu")
    runtime.available = [CUDA, CPU]
    runtime.starts = [CUDA, CPU]
    return runtime


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, empty: nothing is remembered from other tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"
