"""Rows -> chunks: the rows of one part each. Where a chunk ends is decided by the inputs alone."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from onnxembed.bulk.arrow import pa
from onnxembed.bulk.inputs import Inputs
from onnxembed.bulk.rows import Columns, Rows

PART_ROWS = 16384
"""The rows of a part. A job that is killed repeats at most one part; a window of the runtime is a sixteenth of it."""

PART_CHARACTERS = 2**25
"""A part also ends with the row that reaches this many characters, which bounds memory where texts are long."""

ID = "id"
"""The column of the ids, in every part."""


@dataclass(frozen=True)
class Position:
    """A place between two rows of the inputs."""

    file: int = 0
    row: int = 0
    """The number of the last row of the file that comes before it, 0 if none does."""
    total: int = 0
    """Rows of all files that come before it, without the empty lines of .jsonl files."""


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be embedded."""

    id: object
    file: str
    row: int
    """The number of the row in its file, from 1."""
    reason: str


@dataclass(frozen=True)
class Chunk:
    """The rows of one part: what is embedded, what goes beside it, and what is rejected."""

    number: int
    start: Position
    end: Position
    texts: list[str]
    beside: dict[str, pa.ChunkedArray]
    """The ids, then the kept columns, by their names in the output."""
    rejected: list[Rejected]
    begun: float
    """Which share of the bytes of all inputs comes before this chunk; about, where reading began within a file."""
    share: float
    """Which share has been read with it."""


@dataclass
class _Growing:
    """A chunk under construction."""

    texts: list[str] = field(default_factory=list)
    beside: list[dict[str, pa.Array]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    rows: int = 0
    characters: int = 0


def read_chunks(inputs: Inputs, start: Position, number: int, part_rows: int) -> Iterator[Chunk]:
    """The chunks from a position on, the first of which has this number."""
    growing, begin, here = _Growing(), start, start
    begun: float | None = None
    total = max(1, inputs.bytes)
    before = sum(file.bytes for file in inputs.files[: start.file])
    for place, file in enumerate(inputs.files[start.file :], start=start.file):
        file.check_unchanged()
        skip = start.row if place == start.file else 0
        reached: float | None = None  # the share of the file that was read before these rows
        for rows in file.format.rows(file.path, inputs.columns, inputs.types, skip):
            if reached is None:
                reached = rows.share * skip / rows.numbers[-1]  # as if all rows were of one length
            if begun is None:
                begun = (before + reached * file.bytes) / total
            taken = 0
            while taken < len(rows):
                count = _room(growing, rows, taken, part_rows)
                places = range(taken, taken + count)
                _add(growing, inputs, rows, places=places, file=file.path.name, total=here.total)
                taken += count
                here = Position(place, rows.numbers[taken - 1], here.total + count)
                if growing.rows == part_rows or growing.characters >= PART_CHARACTERS:
                    share = reached + (rows.share - reached) * taken / len(rows)
                    share = (before + share * file.bytes) / total
                    yield _finished(growing, inputs, number=number, ends=(begin, here), shares=(begun, share))
                    growing, begin, begun, number = _Growing(), here, share, number + 1
            reached = rows.share
        file.check_unchanged()
        before += file.bytes
    if growing.rows:
        yield _finished(growing, inputs, number=number, ends=(begin, here), shares=(begun or 0.0, 1.0))


def _room(growing: _Growing, rows: Rows, taken: int, part_rows: int) -> int:
    """How many more of the rows the chunk takes, at least one."""
    most = min(len(rows) - taken, part_rows - growing.rows)
    characters = growing.characters
    for count, text in enumerate(rows.texts[taken : taken + most], start=1):
        characters += len(text or "")
        if characters >= PART_CHARACTERS:
            return count
    return most


def _add(growing: _Growing, inputs: Inputs, rows: Rows, *, places: range, file: str, total: int) -> None:
    """Add some of the rows; `total` rows of all files come before the first of them."""
    columns = inputs.columns
    flaws = {place: rows.flaws[place] for place in places if place in rows.flaws}
    ids = pa.array(np.arange(total, total + len(places))) if columns.id is None else _slice(rows, columns.id, places)
    if ids.null_count:
        for offset in np.flatnonzero(ids.is_null().to_numpy(zero_copy_only=False)).tolist():
            flaws.setdefault(places[offset], f"{columns.id!r} is null: it has no id")
    own = {ID: ids} | {name: _slice(rows, name, places) for name in columns.keep}
    if flaws:
        growing.rejected += [
            Rejected(ids[place - places.start].as_py(), file, rows.numbers[place], reason)
            for place, reason in sorted(flaws.items())
        ]
        good = pa.array([place - places.start for place in places if place not in flaws], pa.int64())
        own = {name: array.take(good) for name, array in own.items()}
    texts = [text for place in places if place not in flaws and (text := rows.texts[place]) is not None]
    growing.texts += texts
    growing.beside.append(own)
    growing.rows += len(places)
    growing.characters += sum(map(len, texts))


def _slice(rows: Rows, name: str, places: range) -> pa.Array:
    return rows.beside[name].slice(places.start, len(places))


def _finished(
    growing: _Growing, inputs: Inputs, *, number: int, ends: tuple[Position, Position], shares: tuple[float, float]
) -> Chunk:
    types = beside_types(inputs.columns, inputs.types)
    beside = {name: pa.chunked_array([arrays[name] for arrays in growing.beside], kind) for name, kind in types.items()}
    return Chunk(number, *ends, growing.texts, beside, growing.rejected, *shares)


def beside_types(columns: Columns, types: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """The columns beside the vectors in the output, the ids first, with their types."""
    kept = {name: types.get(name, pa.string()) for name in columns.keep}
    return {ID: pa.int64() if columns.id is None else types.get(columns.id, pa.string())} | kept


def pending(
    inputs: Inputs, done: Mapping[int, tuple[Position, Position]], part_rows: int
) -> Generator[Chunk, None, None]:
    """The chunks of all parts that are not done; `done` has where the finished ones begin and end."""
    position, number = Position(), 0
    while True:
        while number in done:
            position, number = done[number][1], number + 1
        finished = True
        for chunk in read_chunks(inputs, position, number, part_rows):
            yield chunk
            position, number = chunk.end, number + 1
            if number in done:
                finished = False
                break
        if finished:
            return
