"""Fixtures for the tests of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_server import HubServer
from onnxembed import OnnxEmbedder
from tiny import write_bert


@pytest.fixture(scope="module")
def model(artifact: Path) -> Iterator[OnnxEmbedder]:
    with OnnxEmbedder(artifact) as model:
        yield model


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain checkpoint that states neither a pooling mode nor whether to normalize."""
    return write_bert(tmp_path_factory.mktemp("raw") / "raw-bert")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer({}) as hub:
        hub.answer(monkeypatch)
        yield hub
