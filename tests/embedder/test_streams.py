"""OnnxEmbedder's streams: bounded memory, work ahead, errors, and any number of threads."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from held_runs import Gate, numbered, one_text_each
from onnxembed import OnnxEmbedder
from onnxembed.errors import UsageError
from onnxembed.runtime import streaming
from tiny_embedders import EDGE_TEXTS, D, assert_vectors_equal, one_by_one, texts_of_many_lengths

# ---- windows


def test_streaming_gives_the_vectors_of_encoding(model: OnnxEmbedder) -> None:
    stream = list(model.embed(EDGE_TEXTS))
    assert {vector.shape for vector in stream} == {(D,)}
    assert {vector.dtype for vector in stream} == {np.dtype(np.float32)}
    assert_vectors_equal(np.stack(stream), model.encode(EDGE_TEXTS))


def test_windows_give_the_vectors_of_one_window(model: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_of_many_lengths(50)
    expected = model.encode(texts)
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 7)
    assert_vectors_equal(model.encode(texts), expected)


def test_long_texts_make_small_windows(model: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_CHARACTERS", 10)
    assert [len(window) for window in streaming.windows(["a" * 9, "b", "c" * 30, "d"])] == [2, 1, 1]
    assert [len(window) for window in streaming.windows(["a"] * 5, prefix="12345: ")] == [2, 2, 1]
    assert_vectors_equal(model.encode(EDGE_TEXTS), one_by_one(model, EDGE_TEXTS))


def test_many_runs_in_one_window(artifact: Path, model: OnnxEmbedder) -> None:
    with one_text_each(artifact) as other:
        assert_vectors_equal(other.encode(EDGE_TEXTS), model.encode(EDGE_TEXTS))


# ---- streams


def counted(texts: Iterator[str], pulled: list[str]) -> Iterator[str]:
    for text in texts:
        pulled.append(text)
        yield text


def test_texts_are_read_two_windows_ahead_at_most(model: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 8)
    pulled: list[str] = []
    stream = model.embed(counted(numbered(), pulled))
    assert pulled == []
    for taken in range(1, 60):
        next(stream)
        assert len(pulled) <= taken + 2 * 8 - 1
    stream.close()


def test_the_windows_are_bounded_as_documented() -> None:
    assert streaming.WINDOW_TEXTS == 1024  # "about two thousand texts are read ahead"
    assert streaming.WINDOW_CHARACTERS == 2**20


def test_an_endless_iterable_streams(model: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 16)
    vectors = np.stack(list(islice(model.embed(numbered()), 50)))
    assert_vectors_equal(vectors, model.encode(list(islice(numbered(), 50))))


def test_a_window_is_computed_while_the_one_before_is_handed_out(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 4)
    gate = Gate(passing=4)
    with one_text_each(artifact, gate, threads=1) as model:
        stream = model.embed(islice(numbered(), 8))
        next(stream)
        assert gate.held.wait(60)  # the fifth text is being computed, and nobody has asked for it
        gate.opened.set()
        assert len(list(stream)) == 7


@pytest.mark.parametrize("leave", [lambda stream: stream.close(), lambda stream: None], ids=["closed", "dropped"])
def test_a_stream_that_is_left_drops_the_work_that_has_not_begun(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, leave: Callable[[Any], None]
) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 8)
    gate = Gate(passing=8)
    with one_text_each(artifact, gate, threads=1) as model:
        stream = model.embed(numbered())
        next(stream)
        assert gate.held.wait(60)
        leave(stream)
        del stream
        gc.collect()
        gate.opened.set()
    assert gate.runs == 9  # the first window, and the run that had begun


def test_an_error_in_a_run_surfaces_as_it_is_and_drops_the_others(artifact: Path) -> None:
    gate = Gate(passing=2, failing=1)
    with one_text_each(artifact, gate, threads=1) as model:
        with pytest.raises(ZeroDivisionError, match="in run 3"):
            model.encode(list(islice(numbered(), 100)))
        gate.opened.set()
        assert model.encode("the").shape == (D,)  # it can still be used
    assert gate.runs in (4, 5)  # the fourth had begun, or not yet; and the one text afterwards


def test_an_error_in_the_only_run_surfaces_as_it_is(artifact: Path) -> None:
    gate = Gate(passing=0, failing=1)
    with one_text_each(artifact, gate) as model, pytest.raises(ZeroDivisionError, match="in run 1"):
        model.encode("the")


# ---- threads


def test_many_threads_get_the_same_vectors(model: OnnxEmbedder) -> None:
    texts = texts_of_many_lengths(60)
    expected = model.encode(texts)
    with ThreadPoolExecutor(8) as threads:
        for vectors in threads.map(lambda _: model.encode(texts), range(24)):
            assert_vectors_equal(vectors, expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_does_not_change_vectors(artifact: Path, model: OnnxEmbedder, threads: int) -> None:
    texts = texts_of_many_lengths(60)
    with OnnxEmbedder(artifact, threads=threads) as other:
        assert other.threads == threads
        assert_vectors_equal(other.encode(texts), model.encode(texts))


def test_runs_go_on_as_many_threads_as_told(artifact: Path) -> None:
    together = threading.Barrier(3)  # broken unless three runs are under way at once
    with one_text_each(artifact, lambda: together.wait(60), threads=3) as model:
        model.encode(list(islice(numbered(), 9)))


@pytest.mark.parametrize("threads", [0, -1, True, "2", 1.5])
def test_impossible_numbers_of_threads_are_refused(artifact: Path, threads: Any) -> None:
    with pytest.raises(UsageError, match=r"^threads is .*, not a positive whole number$"):
        OnnxEmbedder(artifact, threads=threads)
