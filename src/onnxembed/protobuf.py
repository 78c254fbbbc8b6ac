"""Protobuf's wire format, read and written without the protobuf package.

A message is a sequence of fields. Each has a number, a wire type and a value; a value of the type LENGTH may be a
message again. (Reference: protobuf.dev/programming-guides/encoding.)
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""The wire types."""

# Bytes of a value of fixed size.
_SIZES = {FIXED64: 8, FIXED32: 4}

# Bits of the longest integer, in groups of seven.
_LONGEST = 70


class Message(NamedTuple):
    """The bytes from `start` to `end` of a buffer. Nothing is copied before it is asked for."""

    buffer: bytes | mmap.mmap
    start: int
    end: int

    @classmethod
    def of(cls, buffer: bytes | mmap.mmap) -> Message:
        """The message that a whole buffer is."""
        return cls(buffer, 0, len(buffer))

    def fields(self) -> Iterator[Field]:
        """The message's fields in order; ValueError for bytes that are not a message, or are cut short."""
        buffer, at, end = self
        while at < end:
            # Nearly every key and length is one byte, which is read here because a call takes longer than all else.
            key, at = (buffer[at], at + 1) if buffer[at] < 0x80 else self._varint(at)
            number, wire = key >> 3, key & 7
            value, start = 0, at
            if wire == VARINT:
                value, at = self._varint(at)
            elif wire == LENGTH:
                size, start = (buffer[at], at + 1) if at < end and buffer[at] < 0x80 else self._varint(at)
                at = start + size
            elif wire in _SIZES:
                at += _SIZES[wire]
            else:
                raise ValueError(f"wire type {wire} at byte {at}")
            if at > end:
                raise ValueError(f"it is cut off in field {number}")
            yield Field(number, wire, value, Message(buffer, start, at))

    def integers(self) -> Iterator[int]:
        """The integers of a packed repeated field, which lie one after the other."""
        at = self.start
        while at < self.end:
            value, at = self._varint(at)
            yield value

    def raw(self) -> bytes:
        """A copy of the bytes."""
        return self.buffer[self.start : self.end]

    def text(self) -> str:
        """The bytes as text; ValueError unless they are UTF-8."""
        return self.raw().decode()

    def _varint(self, at: int) -> tuple[int, int]:
        """The integer at a byte, and where it ends."""
        value = 0
        for shift in range(0, _LONGEST, 7):
            if at >= self.end:
                raise ValueError(f"it is cut off in the integer at byte {at}")
            byte = self.buffer[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise ValueError(f"an integer of more than ten bytes ends at byte {at}")


class Field(NamedTuple):
    """One field of a message: `value` of an integer, else 0; `content` of everything else."""

    number: int
    wire: int
    value: int
    content: Message

    def integer(self) -> int:
        """The value of an integer; ValueError for a field that is not one."""
        if self.wire != VARINT:
            raise ValueError("bytes where an integer belongs")
        return self.value

    def message(self) -> Message:
        """The content of a field that has any; ValueError for an integer."""
        if self.wire == VARINT:
            raise ValueError("an integer where bytes belong")
        return self.content


def encode_field(number: int, value: int | bytes) -> bytes:
    """A field in wire format: an integer of 0 or more, or bytes (a text, a message) with their length."""
    if isinstance(value, int):
        return _encode_varint(number << 3 | VARINT) + _encode_varint(value)
    return _encode_varint(number << 3 | LENGTH) + _encode_varint(len(value)) + value


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
