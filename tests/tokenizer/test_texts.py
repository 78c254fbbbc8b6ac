"""Texts -> ids: those of the tokenizers library, cut to length with the special tokens kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from tokenizers import Tokenizer

from onnxembed import OnnxEmbedder
from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.manifest import Decision, Tokenization
from onnxembed.tokenizer.texts import BATCH, TextTokenizer
from tiny import TEXTS, VOCAB, write_tokenizer

CLS, SEP, THE, OF = map(VOCAB.index, ("[CLS]", "[SEP]", "the", "of"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return folder


def tokenizer(folder: Path, max_length: int = 20, side: Literal["left", "right"] = "right") -> TextTokenizer:
    tokenization = Tokenization(
        max_length=Decision(max_length, "flag", ""),
        truncation_side=Decision(side, "flag", ""),
        pad_token_id=Decision(0, "flag", ""),
        changes=(),
    )
    return TextTokenizer(folder, tokenization, max_length)


def ids(tokenizer: TextTokenizer, text: str) -> list[int]:
    return list(tokenizer.tokenize([text])[0].ids)


def test_ids_are_those_of_the_tokenizers_library(folder: Path) -> None:
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [*TEXTS, "It Was THE one", "a\u0301 \u00e9 \u6587\u66f8 \U0001f600", "\x00\n\t ", "[SEP] the [MASK]"]
    for text, tokens in zip(texts, tokenizer(folder, 64).tokenize(texts), strict=True):
        expected = library.encode(text)
        assert list(tokens.ids) == expected.ids
        assert list(tokens.type_ids) == expected.type_ids
        assert tokens.ids.dtype == tokens.type_ids.dtype == np.int64
        assert len(tokens) == len(expected.ids)
        assert not tokens.truncated


def test_more_texts_than_a_batch_keep_their_order(folder: Path) -> None:
    words = [VOCAB[5 + i % 30] for i in range(2 * BATCH + 3)]
    tokens = tokenizer(folder).tokenize(words)
    assert [VOCAB[text_tokens.ids[1]] for text_tokens in tokens] == words


class Recorder:
    """A stand-in for the library's Tokenizer that records how many texts it is given at once."""

    counts: ClassVar[list[int]] = []

    def __init__(self, library: Tokenizer) -> None:
        self.library = library

    @classmethod
    def from_file(cls, path: str) -> Recorder:
        return cls(Tokenizer.from_file(path))

    @classmethod
    def from_str(cls, text: str) -> Recorder:
        return cls(Tokenizer.from_str(text))

    def encode_batch_fast(self, texts: list[str]) -> object:
        self.counts.append(len(texts))
        return self.library.encode_batch_fast(texts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.library, name)


@pytest.mark.parametrize("threads", [1, 2, 1000])
def test_the_library_gets_no_more_texts_at_once_than_it_may_use_threads(
    artifact: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [VOCAB[5 + i % 30] for i in range(2 * BATCH + 3)]
    monkeypatch.setattr("tokenizers.Tokenizer", Recorder)
    monkeypatch.setattr(Recorder, "counts", [])
    with OnnxEmbedder(artifact, threads=threads) as model:
        assert [VOCAB[tokens.ids[1]] for tokens in model.tokenize(texts)] == texts
        assert max(Recorder.counts) == min(threads, BATCH)
        assert model.model.tokenizer.shortened(artifact, 8).at_once == min(threads, BATCH)


def test_all_threads_are_the_librarys_own_number(artifact: Path) -> None:
    with OnnxEmbedder(artifact) as model:
        assert model.model.tokenizer.at_once == BATCH


def test_no_texts_have_no_tokens(folder: Path) -> None:
    assert tokenizer(folder).tokenize([]) == []


def test_an_empty_text_is_its_special_tokens(folder: Path) -> None:
    assert ids(tokenizer(folder), "") == [CLS, SEP]


@pytest.mark.parametrize(("side", "expected"), [("right", [CLS, OF, OF, THE, SEP]), ("left", [CLS, THE, OF, OF, SEP])])
def test_truncation_keeps_the_special_tokens(folder: Path, side: Literal["left", "right"], expected: list[int]) -> None:
    text = "of of the the of of"
    tokens = tokenizer(folder, 5, side).tokenize([text])[0]
    assert list(tokens.ids) == expected
    assert tokens.truncated


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_text_of_exactly_the_limit_is_not_truncated(folder: Path, side: Literal["left", "right"]) -> None:
    shorter, exact, longer = tokenizer(folder, 20, side).tokenize(["the " * count for count in (17, 18, 19)])
    assert [(len(text_tokens), text_tokens.truncated) for text_tokens in (shorter, exact, longer)] == [
        (19, False),
        (20, False),
        (20, True),
    ]


def test_padding_and_truncation_of_the_file_do_not_count(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    library = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    library.enable_padding(length=40)
    library.enable_truncation(4)
    library.save(str(tmp_path / "tokenizer.json"))
    assert ids(tokenizer(tmp_path), "the the the the the") == [CLS, *[THE] * 5, SEP]


@pytest.mark.parametrize("max_length", [1, 2])
def test_a_limit_that_leaves_no_room_for_text_is_refused(folder: Path, max_length: int) -> None:
    with pytest.raises(UsageError, match=f"max_length is {max_length}, but 2 special tokens are added to every text"):
        tokenizer(folder, max_length)


def test_the_smallest_limit_leaves_one_token_of_text(folder: Path) -> None:
    assert ids(tokenizer(folder, 3), "the of") == [CLS, THE, SEP]


def test_a_text_of_a_megabyte_is_cut(folder: Path) -> None:
    words, letters = tokenizer(folder).tokenize(["the " * 250_000, "x" * 1_000_000])
    assert list(words.ids) == [CLS, *[THE] * 18, SEP]
    assert words.truncated
    assert list(letters.ids) == [CLS, VOCAB.index("[UNK]"), SEP]
    assert not letters.truncated


def test_many_threads_may_share_a_tokenizer(folder: Path) -> None:
    shared = tokenizer(folder)
    expected = [list(text_tokens.ids) for text_tokens in shared.tokenize(TEXTS)]
    with ThreadPoolExecutor(8) as threads:
        for tokens in threads.map(lambda _: shared.tokenize(TEXTS), range(40)):
            assert [list(text_tokens.ids) for text_tokens in tokens] == expected


@pytest.mark.parametrize("content", [None, "", "{}", "not json"])
def test_a_file_that_is_not_a_tokenizer_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelFilesError, match=r"tokenizer\.json is not a tokenizer .* can use: "):
        tokenizer(tmp_path)


def test_another_side_and_length_can_be_had_from_the_same_tokenizer(folder: Path) -> None:
    right = tokenizer(folder, 20)
    assert ids(right.shortened(folder, 3, "left"), "the of") == [CLS, OF, SEP]
    assert ids(right.shortened(folder, 3), "the of") == [CLS, THE, SEP]


def test_the_whole_tokenizer_never_cuts(folder: Path) -> None:
    limited = tokenizer(folder, 3)
    assert limited.whole().encode("the of the").ids == [CLS, THE, OF, THE, SEP]
    assert ids(limited, "the of the") == [CLS, THE, SEP]
