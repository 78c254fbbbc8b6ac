"""Rows of input files as they are read: texts, the columns that go with them, and what is wrong with some."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from onnxembed.arguments import MOST_CHARACTERS, check_text
from onnxembed.bulk.arrow import pa
from onnxembed.errors import UsageError

BATCH = 4096
"""Rows that are read at a time: enough to make a call of Arrow cheap, few enough to hold long texts."""

MAX_CHARACTERS = MOST_CHARACTERS
"""A longer text is rejected, where embedding it by itself would be an error."""

MAX_LINE = 2**27
"""Bytes; a longer line is not read into memory."""


@dataclass(frozen=True)
class Columns:
    """The columns of a job: the one with the texts, the one with the ids (None numbers the rows), and those to keep."""

    text: str
    id: str | None
    keep: tuple[str, ...]

    @property
    def beside(self) -> tuple[str, ...]:
        """The columns that go to the output as they are."""
        return (*([] if self.id is None else [self.id]), *self.keep)


@dataclass(frozen=True)
class Rows:
    """Some rows of a file, in order."""

    numbers: Sequence[int]
    """The number of each in its file, from 1: of a .txt or .jsonl file, the line."""
    texts: list[str | None]
    """None where the row has a flaw."""
    beside: dict[str, pa.Array]
    """The columns beside the text, by name, each [N]."""
    flaws: dict[int, str]
    """Why rows cannot be embedded, by their place among these."""
    share: float
    """Which share of the file has been read with these."""

    def __len__(self) -> int:
        return len(self.texts)


class Format(Protocol):
    """How files of a format are read."""

    def columns(self, path: Path) -> dict[str, pa.DataType]:
        """The columns of a file, by name; UsageError for a file that is not of the format."""

    def rows(self, path: Path, columns: Columns, types: Mapping[str, pa.DataType], skip: int) -> Iterator[Rows]:
        """The rows after the first `skip`; `types` are those of the columns beside the text."""


def flaw(text: object) -> str | None:
    """Why this cannot be embedded; None for a text."""
    if text is None:
        return "null"
    if not isinstance(text, str):
        return f"{type(text).__name__}, not a text"
    if len(text) > MAX_CHARACTERS:
        return too_long(len(text))
    try:
        check_text(text, "it")
    except UsageError:
        return "not Unicode"
    return None


def too_long(characters: int) -> str:
    """The flaw of a text of this many characters: it is too long."""
    return f"{characters:,} characters, more than {MAX_CHARACTERS:,}"


def checked(
    texts: list[Any], values: Mapping[str, list[Any]], types: Mapping[str, pa.DataType]
) -> tuple[list[str | None], dict[str, pa.Array], dict[int, str]]:
    """Texts and values that were read as Python objects: the texts, the columns as arrays, and the flaws of rows."""
    flaws = {place: reason for place, text in enumerate(texts) if (reason := flaw(text))}
    beside = {name: _array(name, values[name], types[name], flaws) for name in values}
    return [None if place in flaws else text for place, text in enumerate(texts)], beside, flaws


def _array(name: str, values: list[Any], kind: pa.DataType, flaws: dict[int, str]) -> pa.Array:
    """The values as an array; one that does not fit the type is a flaw of its row, and null."""
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError, UnicodeError):
        pass
    fitting: list[Any] = []
    for place, value in enumerate(values):
        try:
            pa.scalar(value, kind)
            fitting.append(value)
        except (pa.ArrowException, OverflowError, UnicodeError):
            flaws.setdefault(place, f"{name!r} is {type(value).__name__}, not {kind}")
            fitting.append(None)
    return pa.array(fitting, kind)
