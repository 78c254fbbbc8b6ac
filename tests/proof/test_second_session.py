"""The proof of the session that a CPU opens later: for single texts, or for many if the first one was for those."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed import OnnxEmbedder
from onnxembed.execution.cpu import CpuBackend
from onnxembed.execution.session import Session
from onnxembed.proof.compare import compare
from onnxembed.proof.record import read_proof
from onnxembed.runtime.open_model import OpenModel


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of passed proofs for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/onnxembed/proofs"


def backend_of(model: OpenModel) -> CpuBackend:
    assert isinstance(model.backend, CpuBackend)
    return model.backend


def open_second(model: OnnxEmbedder) -> None:
    """Embed single texts until the session for those was opened, or could not be."""
    backend = backend_of(model.model)
    while backend.opening is None:
        model.encode("hello")
    backend.opening.result()


@pytest.mark.parametrize("prove", [None, True])
def test_it_is_checked_when_it_is_opened(
    artifact: Path, cache: Path, caplog: pytest.LogCaptureFixture, prove: bool | None
) -> None:
    caplog.set_level(logging.INFO, "onnxembed.proof")
    for _ in range(2):
        with OnnxEmbedder(artifact, precision="fp16", threads=2, prove=prove) as model:
            open_second(model)
            assert len(backend_of(model.model).open_sessions) == 2
    assert caplog.text.count("proved the session all_threads") == (2 if prove else 1)
    assert len([*cache.iterdir()]) == 2


@pytest.mark.parametrize("options", [{}, {"precision": "fp16", "prove": False}])
def test_it_is_not_checked_where_the_first_one_is_not(
    artifact: Path, caplog: pytest.LogCaptureFixture, options: Any
) -> None:
    caplog.set_level(logging.INFO, "onnxembed.proof")
    with OnnxEmbedder(artifact, threads=2, **options) as model:
        open_second(model)
    assert caplog.text == ""


def test_where_it_is_wrong_it_is_not_used(artifact: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads divide products among them, and where they do decides which kernels compute them."""
    made, run = Session.__init__, Session.run

    def making(self: Any, graph: Path, wanted: Any, threads: int, **options: Any) -> None:
        made(self, graph, wanted, threads, **options)
        self.wrong = threads > 1

    def running(self: Any, *given: Any, **options: Any) -> Any:
        return [each[..., ::-1] if self.wrong else each for each in run(self, *given, **options)]

    monkeypatch.setattr(Session, "__init__", making)
    monkeypatch.setattr(Session, "run", running)
    with OnnxEmbedder(artifact, threads=1) as plain, OnnxEmbedder(artifact, precision="fp16", threads=2) as model:
        open_second(model)
        with pytest.warns(UserWarning, match=r"run side by side, because .* does not give the model's own vectors"):
            model.encode("hello")
        np.testing.assert_allclose(model.encode("hello"), plain.encode("hello"), atol=1e-2)
    assert len([*cache.iterdir()]) == 1  # that the first session passed


def test_it_is_not_opened_while_the_first_one_is_compared(artifact: Path) -> None:
    """Otherwise the figures would be those of both."""
    proof = read_proof(artifact)
    assert proof is not None
    with OnnxEmbedder(artifact, threads=2) as model:
        assert len([*compare(model.model, proof, ("alone",) * 200)]) == 200
        assert backend_of(model.model).opening is None
        open_second(model)
