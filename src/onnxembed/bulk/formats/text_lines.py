""".txt files: each line is a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from onnxembed.bulk.arrow import pa
from onnxembed.bulk.formats.lines import Lines
from onnxembed.bulk.rows import BATCH, MAX_LINE, Columns, Rows, flaw


class TextLines:
    """Reads .txt files: an empty line is an empty text. The only column has the name that is asked for."""

    def columns(self, path: Path) -> dict[str, pa.DataType]:
        """No columns: the lines are the texts."""
        return {}

    def rows(self, path: Path, columns: Columns, types: Mapping[str, pa.DataType], skip: int) -> Iterator[Rows]:
        """The lines after the first `skip`."""
        with Lines(path) as lines:
            remaining = islice(lines, skip, None)
            while batch := list(islice(remaining, BATCH)):
                texts: list[str | None] = []
                flaws: dict[int, str] = {}
                for place, line in enumerate(batch):
                    text, reason = _decoded(line)
                    texts.append(text)
                    if reason:
                        flaws[place] = reason
                yield Rows(range(skip + 1, skip + len(batch) + 1), texts, {}, flaws, lines.share)
                skip += len(batch)


def _decoded(line: bytes | None) -> tuple[str | None, str | None]:
    """The text of a line, or its flaw."""
    if line is None:
        return None, f"a line of more than {MAX_LINE:,} bytes"
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 ({error.reason})"
    reason = flaw(text)
    return (None, reason) if reason else (text, None)
