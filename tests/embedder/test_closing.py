"""A closed OnnxEmbedder frees its resources and ends the work in progress."""

from __future__ import annotations

import gc
import threading
import time
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
        backend = weakref.ref(model.model.backend)
        model.encode(texts_of_many_lengths(200))
        assert threading.active_count() > before
    assert threading.active_count() == before
    gc.collect()
    assert backend() is None


def test_closing_does_not_wait_for_runs_that_have_not_begun(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(passing=4)
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 4)
    model = one_text_each(artifact, gate, threads=1)
    backend = model.model.backend
    stream = model.embed(numbered())
    next(stream)
    assert gate.held.wait(60)
    with ThreadPoolExecutor(1) as thread:
        closing = thread.submit(model.close)  # while the stream has three runs waiting
        while not backend.closed:
            time.sleep(0.001)
        gate.opened.set()
        closing.result(60)
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


def test_closing_ends_a_stream_in_another_thread(artifact: Path) -> None:
    gate = Gate(passing=5)
    model = one_text_each(artifact, gate, threads=1)
    with ThreadPoolExecutor(2) as threads:
        encoding = threads.submit(model.encode, numbered())
        assert gate.held.wait(60)
        closing = threads.submit(model.close)
        # The other runs of its window are refused; if closing begins late, the next windows are.
        gate.opened.set()
        with pytest.raises(UsageError, match="this model is closed"):
            encoding.result(60)
        closing.result(60)
