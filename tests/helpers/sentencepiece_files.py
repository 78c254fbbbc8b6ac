"""Sentencepiece models of a few pieces, written in protobuf's wire format by hand."""

from __future__ import annotations

import struct
from collections.abc import Iterable

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
UNIGRAM, BPE = 1, 2

FIRST = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
BYTES = [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]


def varint(value: int) -> bytes:
    head = b""
    while value > 0x7F:
        head += bytes([value & 0x7F | 0x80])
        value >>= 7
    return head + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def piece(text: str, score: float = 0.0, piece_type: int = NORMAL) -> bytes:
    fields = message(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score)
    return message(1, fields + (number(3, piece_type) if piece_type != NORMAL else b""))


def model(
    pieces: Iterable[tuple[str, float, int]],
    model_type: int = UNIGRAM,
    *,
    unk_id: int = 0,
    charsmap: bytes = b"",
    add_dummy_prefix: bool = True,
    byte_fallback: bool = False,
    more: bytes = b"",
) -> bytes:
    """A whole model; `more` are further fields of it, in wire format."""
    trainer = number(3, model_type) + number(35, byte_fallback) + number(40, unk_id)
    normalizer = message(1, b"identity") + message(2, charsmap) + number(3, add_dummy_prefix) + number(4, 0)
    body = b"".join(piece(*fields) for fields in pieces)
    return body + message(2, trainer) + message(3, normalizer) + more
