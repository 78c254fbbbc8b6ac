"""Fixtures for the tests of the command line."""

from __future__ import annotations

import io
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_server import HubServer
from onnxembed import OnnxEmbedder
from onnxembed.cli import STOPPING, main
from running import Outcome, Run
from tiny import write_bert


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Runs the command line in this process, in an empty folder, with Python's usual warnings."""
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in STOPPING}

    def run(*arguments: object, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            with pytest.raises(SystemExit) as end:
                main([str(argument) for argument in arguments])
        assert isinstance(end.value.code, int)
        return Outcome(end.value.code, *capsys.readouterr())

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


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
