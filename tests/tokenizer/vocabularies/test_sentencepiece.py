"""The reader of sentencepiece models: what it takes from a file, and that any bytes are read or refused."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxembed.errors import ModelFilesError
from onnxembed.tokenizer.vocabularies.sentencepiece import (
    CONTROL,
    LONGEST,
    UNIGRAM,
    UNKNOWN,
    Pieces,
    read_pieces,
)
from sentencepiece_files import BPE, FIRST, USER_DEFINED, message, model, number, piece, varint

TABLE = b"\x04\x00\x00\x00trieA\x00"
VOCABULARY = [*FIRST, ("▁a", -1.5, 1), ("é", -2.25, 1), ("@", 0.0, USER_DEFINED)]


def read(tmp_path: Path, content: bytes) -> Pieces:
    (tmp_path / "spiece.model").write_bytes(content)
    return read_pieces(tmp_path / "spiece.model")


def test_the_vocabulary_and_the_settings_are_read(tmp_path: Path) -> None:
    read_back = read(tmp_path, model(VOCABULARY, BPE, unk_id=7, charsmap=TABLE, add_dummy_prefix=False))
    assert [(piece.text, piece.score, piece.piece_type) for piece in read_back.pieces] == VOCABULARY
    assert (read_back.model_type, read_back.unk_id) == (BPE, 7)
    assert (read_back.charsmap, read_back.add_dummy_prefix) == (TABLE, False)


def test_absent_fields_have_the_defaults_of_the_format(tmp_path: Path) -> None:
    """sentencepiece_model.proto: unigram, unk_id 0, add_dummy_prefix true, type NORMAL, and no score is 0."""
    read_back = read(tmp_path, message(1, message(1, b"a")))
    assert (read_back.model_type, read_back.unk_id, read_back.add_dummy_prefix, read_back.charsmap) == (
        UNIGRAM,
        0,
        True,
        b"",
    )
    assert [(piece.text, piece.score, piece.piece_type) for piece in read_back.pieces] == [("a", 0.0, 1)]


def test_fields_that_tokenization_does_not_need_are_passed_over(tmp_path: Path) -> None:
    others = number(9, 2**64 - 1) + varint(10 << 3 | 1) + bytes(8) + varint(11 << 3 | 5) + bytes(4) + message(5, b"x")
    assert read(tmp_path, model(VOCABULARY, more=others)) == read(tmp_path, model(VOCABULARY))


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "it has no vocabulary"),
        (b"\x0a", "cut off in the integer"),
        (message(1, message(1, b"abc"))[:-1], "cut off in field 1"),
        (b"\x0a\xff\xff\xff\xff\x7f", "cut off in field 1"),
        (b"\xff" * 11, "more than ten bytes"),
        (b"\x0b\x0c", "wire type 3"),
        (number(1, 5), "an integer where bytes belong"),
        (message(1, number(1, 5)), "an integer where bytes belong"),
        (message(1, message(1, b"a") + message(3, b"x")), "bytes where an integer belongs"),
        (message(1, message(1, b"a") + message(2, b"x")), "requires a buffer of 4 bytes"),
        (message(1, message(1, b"\xff")), "can't decode byte"),
        (message(1, b""), "is not a valid piece"),
        (piece("a" * (LONGEST + 1)), "is not a valid piece"),
        (piece("a", float("nan")), "is not a valid piece"),
        (piece("a") + piece("a"), "twice"),
        (piece("a") + message(2, number(24, 1)), "treat_whitespace_as_suffix"),
        (piece("a") + message(3, message(2, b"\x04\x00\x00\x00tri")), "table of 7 bytes with a trie of 4"),
        (piece("a") + message(3, number(5, 0)), "escape_whitespaces"),
    ],
)
def test_a_file_that_is_not_a_model_is_named_with_the_cause(tmp_path: Path, content: bytes, cause: str) -> None:
    with pytest.raises(ModelFilesError, match=cause) as caught:
        read(tmp_path, content)
    assert str(tmp_path / "spiece.model") in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200), st.integers(0, 200), st.integers(0, 200))
def test_any_bytes_are_read_or_refused(tmp_path: Path, noise: bytes, start: int, stop: int) -> None:
    good = model(VOCABULARY, charsmap=TABLE)
    for content in (noise, good[:start] + noise + good[stop:]):
        with contextlib.suppress(ModelFilesError):
            assert read(tmp_path, content).pieces


def test_a_model_of_another_kind_or_order_is_refused(tmp_path: Path) -> None:
    unigram = read(tmp_path, model(VOCABULARY))
    unigram.expect(UNIGRAM, UNKNOWN, CONTROL, CONTROL)
    with pytest.raises(ModelFilesError, match="is a Unigram model; its tokenizer's class reads BPE models"):
        unigram.expect(BPE)
    with pytest.raises(ModelFilesError, match="begins with <unk>, <s>"):
        unigram.expect(UNIGRAM, UNKNOWN, UNKNOWN)


@pytest.mark.torch
def test_a_trained_model_is_read_as_the_sentencepiece_library_reads_it(tmp_path: Path) -> None:
    spm = pytest.importorskip("sentencepiece", reason="needs the sentencepiece package to train a model")
    lines = [f"the cat {i} sat on mat {i * 7} and naïve ﬁsh" for i in range(200)]
    (tmp_path / "text").write_text("\n".join(lines))
    options = {"vocab_size": 60, "minloglevel": 2, "hard_vocab_limit": False}
    spm.SentencePieceTrainer.train(input=str(tmp_path / "text"), model_prefix=str(tmp_path / "spiece"), **options)
    read_back, library = read_pieces(tmp_path / "spiece.model"), spm.SentencePieceProcessor()
    library.load(str(tmp_path / "spiece.model"))
    size = library.get_piece_size()
    assert len(read_back.pieces) == size
    assert [piece.text for piece in read_back.pieces] == [library.id_to_piece(i) for i in range(size)]
    assert [piece.score for piece in read_back.pieces] == [library.get_score(i) for i in range(size)]
    assert [piece.piece_type == CONTROL for piece in read_back.pieces] == [library.is_control(i) for i in range(size)]
    assert read_back.unk_id == library.unk_id()
    assert struct.unpack_from("<I", read_back.charsmap)[0] < len(read_back.charsmap)  # the size of its trie
