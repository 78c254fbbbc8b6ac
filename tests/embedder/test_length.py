"""OnnxEmbedder's longest text: what is cut, and the one warning about it."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from onnxembed import OnnxEmbedder
from onnxembed.errors import UsageError
from onnxembed.runtime import streaming
from tiny_embedders import EDGE_TEXTS, LONG, METHODS, assert_vectors_equal


def test_max_length_cuts_texts(artifact: Path, model: OnnxEmbedder) -> None:
    with OnnxEmbedder(artifact, max_length=5) as short:
        assert short.max_length == 5
        with pytest.warns(UserWarning, match="1 of 1 text was longer than max_length=5 tokens and was cut"):
            vectors = short.encode("the of to in is it")
        assert_vectors_equal(vectors, model.encode("the of to"))


@pytest.mark.parametrize("max_length", [0, -1, 21, 5.0, "5", True])
def test_impossible_lengths_are_refused(artifact: Path, max_length: Any) -> None:
    with pytest.raises(UsageError, match=r"^max_length is .*, not a whole number from 1 to this model's 20$"):
        OnnxEmbedder(artifact, max_length=max_length)


def test_a_length_without_room_for_text_is_refused(artifact: Path) -> None:
    with pytest.raises(UsageError, match="max_length is 2, but 2 special tokens are added to every text"):
        OnnxEmbedder(artifact, max_length=2)


def test_the_models_own_length_is_the_default(model: OnnxEmbedder) -> None:
    assert model.max_length == 20
    assert repr(model).endswith("dimension=32, max_length=20)")


def test_truncation_warns_once_with_the_number_of_texts(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 4)  # two in the first, equal ones
    with OnnxEmbedder(artifact) as model:
        with pytest.warns(UserWarning, match="were cut") as caught:
            model.encode(["the", LONG, "a", LONG, "of", LONG + "a", "in"])
        message = "3 of 7 texts were longer than max_length=20 tokens and were cut (shown once)"
        assert [str(warning.message) for warning in caught] == [message]
        model.encode([LONG])  # a second warning would be an error


@pytest.mark.parametrize("method", METHODS)
def test_the_warning_points_at_the_callers_line(artifact: Path, method: str) -> None:
    with OnnxEmbedder(artifact) as model, pytest.warns(UserWarning, match="1 of 1 text was") as caught:
        list(getattr(model, method)(LONG))
    assert caught[0].filename == __file__


def test_there_is_no_warning_when_nothing_is_cut(artifact: Path) -> None:
    with OnnxEmbedder(artifact) as model:
        model.encode(["the " * 18, "", "a"])
        with pytest.warns(UserWarning, match="1 of 1 text was"):  # what was not cut has not spent the warning
            model.encode("the " * 19)


def test_the_prompt_counts_towards_the_length(artifact: Path) -> None:
    with OnnxEmbedder(artifact) as model:
        model.encode("the " * 18)
        with pytest.warns(UserWarning, match="1 of 1 text was"):
            model.encode("the " * 18, prompt="a ")


def test_a_stream_that_is_left_warns_of_the_texts_cut_so_far(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 2)
    with OnnxEmbedder(artifact) as model:
        stream = model.embed(cycle([LONG, "the"]))
        assert len(list(islice(stream, 4))) == 4
        with pytest.warns(UserWarning, match="2 of 4 texts"):
            stream.close()


def test_an_error_is_not_hidden_by_the_warning(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 1)
    with OnnxEmbedder(artifact) as model, pytest.raises(UsageError, match=r"texts\[2\] is NoneType"):
        model.encode([LONG, LONG, None])  # type: ignore[list-item]


def test_truncation_warns_once_among_many_threads(artifact: Path) -> None:
    with OnnxEmbedder(artifact) as model, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(model.encode, [LONG] * 40))
    assert len(caught) == 1


def test_token_count_is_what_the_model_reads(model: OnnxEmbedder) -> None:
    assert model.token_count("the of") == 4
    assert model.token_count(["", "the", LONG]) == 2 + 3 + 20
    assert model.token_count([]) == 0
    assert model.token_count(text for text in ["the", "of"]) == 6
    with pytest.raises(UsageError, match=r"texts\[1\] is NoneType"):
        model.token_count(["the", None])  # type: ignore[list-item]


def test_tokens_are_those_of_the_tokenizer_file(model: OnnxEmbedder, artifact: Path) -> None:
    library = Tokenizer.from_file(str(artifact / "tokenizer.json"))
    tokens = model.tokenize([*EDGE_TEXTS, LONG])
    assert [list(text.ids) for text in tokens] == [library.encode(text).ids for text in [*EDGE_TEXTS, LONG]]
    assert [text.truncated for text in tokens] == [False] * len(EDGE_TEXTS) + [True]
    assert len(model.tokenize("the")) == 3
