"""A closed OnnxEmbedder: it frees what it holds, and ends what is under way."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from held_runs import Gate, numbered, one_text_each
from onnxembed import OnnxEmbedder
from onnxembed.errors import UsageError
from onnxembed.runtime import streaming
from tiny_embedders import METHODS, D, texts_of_many_lengths


@pytest.mark.parametrize("method", [*METHODS, "token_count", "tokenize"])
def test_a_closed_embedder_says_so_at_once(artifact: Path, method: str) -> None:
    model = OnnxEmbedder(artifact)
    model.close()
    model.close()
    with pytest.raises(UsageError, match="this model is closed"):
        getattr(model, method)("the")


def test_a_closed_embedder_takes_no_ids(artifact: Path) -> None:
    with OnnxEmbedder(artifact) as model:
        feeds = {name: np.ones((1, 3), np.int64) for name in model.manifest.model.inputs}
    with pytest.raises(UsageError, match="this model is closed"):
        model.forward(feeds)


def test_a_closed_embedder_still_describes_itself(artifact: Path) -> None:
    with OnnxEmbedder(artifact, providers="cpu") as model:
        pass
    assert (model.dimension, model.max_length, model.provider) == (D, 20, "CPUExecutionProvider")


def test_closing_frees_the_session_and_the_threads(artifact: Path) -> None:
    before = threading.active_count()
    with OnnxEmbedder(artifact, threads=2) as model:
        session = weakref.ref(model._runner.session)
        model.encode(texts_of_many_lengths(200))
        assert threading.active_count() > before
    assert threading.active_count() == before
    gc.collect()
    assert session() is None


def test_closing_waits_for_no_run_that_has_not_begun(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_text_each(monkeypatch)
    gate = Gate(monkeypatch, passing=4)
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 4)
    with OnnxEmbedder(artifact, threads=1) as model:
        stream = model.embed(numbered())
        next(stream)
        assert gate.held.wait(60)
        shutdown = model._runner.session._workers.shutdown

        def and_open_the_gate() -> None:
            gate.opened.set()
            shutdown()

        monkeypatch.setattr(model._runner.session._workers, "shutdown", and_open_the_gate)
        model.close()  # while the stream has three runs waiting
    assert gate.runs == 5


def test_the_block_closes_when_it_is_left_by_an_error(artifact: Path) -> None:
    with pytest.raises(KeyError), OnnxEmbedder(artifact) as model:
        raise KeyError
    with pytest.raises(UsageError, match="closed"):
        model.encode("the")


def test_a_stream_ends_with_an_error_when_its_embedder_is_closed(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 4)
    with OnnxEmbedder(artifact) as model:
        stream = model.embed(numbered())
        next(stream)
    assert len(list(islice(stream, 3))) == 3  # the rest of the window that it has
    with pytest.raises(UsageError, match="this model is closed"):
        next(stream)


def test_closing_ends_a_stream_in_another_thread(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_text_each(monkeypatch)
    gate = Gate(monkeypatch, passing=5)
    model = OnnxEmbedder(artifact, threads=1)
    shutdown = model._runner.session._workers.shutdown

    def and_wait_for_the_stream() -> None:
        shutdown()
        encoding.exception(60)

    monkeypatch.setattr(model._runner.session._workers, "shutdown", and_wait_for_the_stream)
    with ThreadPoolExecutor(2) as threads:
        encoding = threads.submit(model.encode, numbered())
        assert gate.held.wait(60)
        closing = threads.submit(model.close)
        # The others of its window find the session gone; should closing begin late, they are followed by
        # windows that the closed workers refuse.
        gate.opened.set()
        with pytest.raises(UsageError, match="this model is closed"):
            encoding.result(60)
        closing.result(60)
