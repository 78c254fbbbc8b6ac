"""A reader of sentencepiece models: protobuf's wire format, of which only what tokenization needs.

Fields as in sentencepiece_model.proto (google/sentencepiece). The file may be anything: every length is checked
against what is left of it, and nothing is reserved for what is not there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from onnxembed.errors import ModelFilesError

UNIGRAM, BPE = 1, 2  # TrainerSpec.ModelType
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # SentencePiece.Type
MODEL_KINDS = {UNIGRAM: "Unigram", BPE: "BPE", 3: "word", 4: "character"}

# Characters of a piece: trained ones have tens, and the ways to cut one in two are counted out.
LONGEST = 1000

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5  # wire types
Value = int | bytes


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary, in the order of ids; `score` is a log probability, or minus a merge's rank."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class Pieces:
    """A sentencepiece model: its vocabulary, and how it prepares a text."""

    file: Path
    pieces: tuple[Piece, ...]
    kind: int
    unk_id: int
    charsmap: bytes
    add_dummy_prefix: bool

    def expect(self, kind: int, *first: int) -> None:
        """Refuse a model of another kind, or whose vocabulary begins with other types of piece than `first`."""
        if self.kind != kind:
            known = MODEL_KINDS.get(self.kind, f"number {self.kind}")
            raise ModelFilesError(
                f"{self.file} is a {known} model; its tokenizer's class reads {MODEL_KINDS[kind]} models"
            )
        if tuple(piece.kind for piece in self.pieces[: len(first)]) != first:
            begins = ", ".join(piece.text for piece in self.pieces[: len(first)])
            raise ModelFilesError(
                f"{self.file} begins with {begins}: not the pieces that its tokenizer's class replaces"
            )


def read_pieces(file: Path) -> Pieces:
    """Read a sentencepiece model; ModelFilesError for a file that is none, or that prepares texts unusually."""
    try:
        return _model(file, memoryview(file.read_bytes()))
    except (ValueError, IndexError, struct.error) as error:
        raise ModelFilesError(f"{file} is not a sentencepiece model: {error}") from error


def _model(file: Path, data: memoryview) -> Pieces:
    pieces: list[Piece] = []
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    for number, value in _fields(data):
        if number == 1:
            pieces.append(_piece(dict(_fields(_message(value)))))
        elif number == 2:
            trainer |= _fields(_message(value))
        elif number == 3:
            normalizer |= _fields(_message(value))
    if not pieces:
        raise ValueError("it has no vocabulary")
    if len({piece.text for piece in pieces}) != len(pieces):
        raise ValueError("a piece stands in its vocabulary twice")
    if _number(trainer.get(24, 0)):
        raise ModelFilesError(f"{file} puts the mark of a space after words (treat_whitespace_as_suffix)")
    if not _number(normalizer.get(5, 1)):
        raise ModelFilesError(f"{file} leaves spaces as they are (escape_whitespaces is false)")
    return Pieces(
        file=file,
        pieces=tuple(pieces),
        kind=_number(trainer.get(3, UNIGRAM)),
        unk_id=_number(trainer.get(40, 0)),
        charsmap=_charsmap(_message(normalizer.get(2, b"")).tobytes()),
        add_dummy_prefix=bool(_number(normalizer.get(3, 1))),
    )


def _piece(fields: dict[int, Value]) -> Piece:
    text = _message(fields.get(1, b"")).tobytes().decode("utf-8")
    (score,) = struct.unpack("<f", _message(fields.get(2, bytes(4))))
    if not text or len(text) > LONGEST or not isfinite(score):
        raise ValueError(f"{text[:LONGEST]!r} with the score {score} is no piece")
    return Piece(text, score, _number(fields.get(3, NORMAL)))


def _charsmap(data: bytes) -> bytes:
    """A normalization table: the size of its trie, the trie, and the texts that it leads to."""
    if data:
        (size,) = struct.unpack_from("<I", data)
        if size % 4 or size == 0 or size > len(data) - 4:
            raise ValueError(f"a normalization table of {len(data)} bytes with a trie of {size}")
        data[4 + size :].decode("utf-8")
    return data


def _fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """Field numbers and values of one message; a number, or bytes of whatever type the field has."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == LENGTH_DELIMITED:
            size, at = _varint(data, at)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if size > len(data) - at:
            raise ValueError(f"it is cut off in field {number}")
        yield number, data[at : at + size].tobytes()
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number of more than ten bytes ends at byte {at}")


def _message(value: Value) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where bytes belong")
    return memoryview(value)


def _number(value: Value) -> int:
    if not isinstance(value, int):
        raise ValueError("bytes where a number belongs")
    return value
