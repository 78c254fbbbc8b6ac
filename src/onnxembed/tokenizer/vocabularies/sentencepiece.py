"""A reader of sentencepiece models: what tokenization needs of sentencepiece_model.proto (google/sentencepiece)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from onnxembed.errors import ModelFilesError
from onnxembed.protobuf import Field, Message

UNIGRAM, BPE = 1, 2  # TrainerSpec.ModelType
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # SentencePiece.Type
MODEL_TYPES = {UNIGRAM: "Unigram", BPE: "BPE", 3: "word", 4: "character"}

# Characters of the longest piece: trained ones have tens, and every way to cut a piece in two is tried.
LONGEST = 1000


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary, in the order of ids; `score` is a log probability, or minus a merge's rank."""

    text: str
    score: float
    piece_type: int


@dataclass(frozen=True)
class Pieces:
    """A sentencepiece model: its vocabulary, and how it prepares a text."""

    file: Path
    pieces: tuple[Piece, ...]
    model_type: int
    unk_id: int
    charsmap: bytes
    add_dummy_prefix: bool

    def expect(self, model_type: int, *first: int) -> None:
        """Refuse a model of another type, or whose vocabulary begins with other types of piece than `first`."""
        if self.model_type != model_type:
            named = MODEL_TYPES.get(self.model_type, f"number {self.model_type}")
            raise ModelFilesError(
                f"{self.file} is a {named} model; its tokenizer's class reads {MODEL_TYPES[model_type]} models"
            )
        if tuple(piece.piece_type for piece in self.pieces[: len(first)]) != first:
            begins = ", ".join(piece.text for piece in self.pieces[: len(first)])
            raise ModelFilesError(
                f"{self.file} begins with {begins}: not the pieces that its tokenizer's class replaces"
            )


def read_pieces(file: Path) -> Pieces:
    """Read a sentencepiece model; ModelFilesError for another file, or unusual text preparation."""
    try:
        return _model(file, Message.of(file.read_bytes()))
    except (ValueError, struct.error) as error:
        raise ModelFilesError(f"{file} is not a sentencepiece model: {error}") from error


def _model(file: Path, model: Message) -> Pieces:
    pieces: list[Piece] = []
    trainer: dict[int, Field] = {}
    normalizer: dict[int, Field] = {}
    for field in model.fields():
        if field.number == 1:
            pieces.append(_piece(_by_number(field)))
        elif field.number == 2:
            trainer |= _by_number(field)
        elif field.number == 3:
            normalizer |= _by_number(field)
    if not pieces:
        raise ValueError("it has no vocabulary")
    if len({piece.text for piece in pieces}) != len(pieces):
        raise ValueError("a piece stands in its vocabulary twice")
    if _integer(trainer, 24, 0):
        raise ModelFilesError(f"{file} puts the mark of a space after words (treat_whitespace_as_suffix)")
    if not _integer(normalizer, 5, 1):
        raise ModelFilesError(f"{file} leaves spaces as they are (escape_whitespaces is false)")
    return Pieces(
        file=file,
        pieces=tuple(pieces),
        model_type=_integer(trainer, 3, UNIGRAM),
        unk_id=_integer(trainer, 40, 0),
        charsmap=_charsmap(_bytes(normalizer, 2, b"")),
        add_dummy_prefix=bool(_integer(normalizer, 3, 1)),
    )


def _piece(fields: dict[int, Field]) -> Piece:
    text = _bytes(fields, 1, b"").decode("utf-8")
    (score,) = struct.unpack("<f", _bytes(fields, 2, bytes(4)))
    if not text or len(text) > LONGEST or not isfinite(score):
        raise ValueError(f"{text[:LONGEST]!r} with the score {score} is not a valid piece")
    return Piece(text, score, _integer(fields, 3, NORMAL))


def _charsmap(data: bytes) -> bytes:
    """A normalization table: the size of its trie, the trie, and the texts that it leads to."""
    if data:
        (size,) = struct.unpack_from("<I", data)
        if size % 4 or size == 0 or size > len(data) - 4:
            raise ValueError(f"a normalization table of {len(data)} bytes with a trie of {size}")
        data[4 + size :].decode("utf-8")
    return data


def _by_number(field: Field) -> dict[int, Field]:
    """The fields of the message in a field; of several with one number, the last."""
    return {part.number: part for part in field.message().fields()}


def _integer(fields: dict[int, Field], number: int, default: int) -> int:
    return fields[number].integer() if number in fields else default


def _bytes(fields: dict[int, Field], number: int, default: bytes) -> bytes:
    return fields[number].message().raw() if number in fields else default
