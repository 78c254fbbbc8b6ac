"""Served models for the tests of the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onnxembed.export.pipeline import export
from tiny_rerankers import write_cross_encoder


@pytest.fixture(scope="session")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny reranker of one label."""
    folder = tmp_path_factory.mktemp("served")
    write_cross_encoder(folder / "checkpoint")
    export(folder / "checkpoint", folder / "ranker-onnx")
    return folder / "ranker-onnx"


@pytest.fixture(scope="session")
def client(artifact: Path, reranker: Path) -> Iterator[Any]:
    """A client of the tiny embedder and the tiny reranker in one process."""
    from starlette.testclient import TestClient

    from onnxembed.serve import app

    with TestClient(app(f"tiny={artifact}", f"ranker={reranker}"), raise_server_exceptions=False) as client:
        yield client
