""".jsonl files: each line is an object of JSON, or a string, which is the text itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from onnxembed.bulk.arrow import pa
from onnxembed.bulk.formats.lines import Lines
from onnxembed.bulk.rows import BATCH, MAX_LINE, Columns, Rows, checked
from onnxembed.json_file import json_problem

SAMPLE = 1000
"""Lines that are read to learn the columns of a file, and their types."""


class JsonLines:
    """Reads .jsonl files. A line without anything is skipped; what is not JSON is a flaw of its row."""

    def columns(self, path: Path) -> dict[str, pa.DataType]:
        """The keys of the first lines, with the types of their values."""
        values: dict[str, list[Any]] = {}
        with Lines(path) as lines:
            for _, entry, reason in islice(_entries(lines, 0), SAMPLE):
                for name, value in entry.items() if isinstance(entry, dict) and not reason else ():
                    values.setdefault(name, []).append(value)
        return {name: _type(found) for name, found in values.items()}

    def rows(self, path: Path, columns: Columns, types: Mapping[str, pa.DataType], skip: int) -> Iterator[Rows]:
        """The lines after the first `skip`."""
        with Lines(path) as lines:
            entries = _entries(lines, skip)
            while batch := list(islice(entries, BATCH)):
                objects = [entry if isinstance(entry, dict) else {columns.text: entry} for _, entry, _ in batch]
                values = {name: [entry.get(name) for entry in objects] for name in columns.beside}
                texts, beside, flaws = checked([entry.get(columns.text) for entry in objects], values, types)
                for place, (_, entry, reason) in enumerate(batch):
                    if reason:
                        flaws[place] = reason
                    elif isinstance(entry, dict) and columns.text not in entry:
                        flaws[place] = f"no {columns.text!r}"
                yield Rows([number for number, _, _ in batch], texts, beside, flaws, lines.share)


def _entries(lines: Lines, skip: int) -> Iterator[tuple[int, Any, str | None]]:
    """The number of each line that has something, what it holds, and why that is not JSON."""
    for number, line in islice(enumerate(lines, start=1), skip, None):
        if line is None:
            yield number, None, f"a line of more than {MAX_LINE:,} bytes"
        elif line.strip():
            try:
                yield number, json.loads(line.decode()), None
            except UnicodeDecodeError as error:
                yield number, None, f"not UTF-8 ({error.reason})"
            except (ValueError, RecursionError) as error:
                yield number, None, f"not JSON ({json_problem(error)})"


def _type(values: list[Any]) -> pa.DataType:
    """The type of the values; where they have several, that of the first one: the others are flaws of their rows."""
    given = [value for value in values if value is not None]
    for sample in (given, given[:1]):
        try:
            return pa.array(sample).type if sample else pa.string()
        except (pa.ArrowException, OverflowError, UnicodeError):
            continue
    return pa.string()
