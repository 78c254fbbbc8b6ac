"""Fixtures for the tests of the hub."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_server import HubServer, ask
from onnxembed.hub.source import HubOptions


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cached(cache: Path) -> HubOptions:
    """The default revision of a hub model, in a cache that is empty at first."""
    return HubOptions(cache_dir=cache)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty hub that huggingface_hub asks, without a token; `push` fills it."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with HubServer({}) as server:
        server.answer(monkeypatch)
        yield server


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> str:
    """A hub that does not answer."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    ask(url, monkeypatch)
    return url
