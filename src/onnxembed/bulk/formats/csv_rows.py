""".csv files: the first row has the names of the columns, and every value is a string."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from onnxembed.bulk.arrow import pa
from onnxembed.bulk.formats.lines import Lines
from onnxembed.bulk.rows import BATCH, MAX_CHARACTERS, MAX_LINE, Columns, Rows, checked
from onnxembed.errors import UsageError


class CsvRows:
    """Reads .csv files with commas and a header. Values stay strings: an id of 007 is not 7."""

    def columns(self, path: Path) -> dict[str, pa.DataType]:
        """The names in the header."""
        with Lines(path) as lines:
            return dict.fromkeys(_header(path, _records(path, lines)), pa.string())

    def rows(self, path: Path, columns: Columns, types: Mapping[str, pa.DataType], skip: int) -> Iterator[Rows]:
        """The rows after the header and the first `skip`."""
        with Lines(path) as lines:
            records = _records(path, lines)
            header = _header(path, records)
            text, *beside = (header.index(name) for name in (columns.text, *columns.beside))
            remaining = islice(records, skip, None)
            while batch := list(islice(remaining, BATCH)):
                wrong = {
                    place: f"{len(record)} fields, not {len(header)}"
                    for place, record in enumerate(batch)
                    if len(record) != len(header)
                }
                whole = [[""] * len(header) if place in wrong else record for place, record in enumerate(batch)]
                values = {
                    name: [record[place] for record in whole]
                    for name, place in zip(columns.beside, beside, strict=True)
                }
                texts, arrays, flaws = checked([record[text] for record in whole], values, types)
                flaws |= wrong
                yield Rows(range(skip + 1, skip + len(batch) + 1), texts, arrays, flaws, lines.share)
                skip += len(batch)


def _header(path: Path, records: Iterator[list[str]]) -> list[str]:
    header = next(records, None)
    if header is None:
        raise UsageError(f"{path} is empty: the first row of a .csv file names its columns")
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise UsageError(f"{path} has two columns of the name {twice!r}")
    return header


def _records(path: Path, lines: Lines) -> Iterator[list[str]]:
    """The rows of a file; rows without anything are skipped."""
    csv.field_size_limit(MAX_CHARACTERS + 1)
    reader = csv.reader(_decoded(path, lines))
    try:
        yield from (record for record in reader if record)
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}; is a quotation mark not closed?") from None


def _decoded(path: Path, lines: Lines) -> Iterator[str]:
    """Lines with their ends; bytes that are not UTF-8 become half surrogates, which no text may have."""
    for number, line in enumerate(lines, start=1):
        if line is None:
            raise UsageError(f"{path}, line {number}: more than {MAX_LINE:,} bytes; is a line break missing?")
        yield line.decode("utf-8", "surrogateescape") + "\n"
