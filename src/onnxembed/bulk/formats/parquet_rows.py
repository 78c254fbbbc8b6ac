""".parquet files, read one row group after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onnxembed.bulk.arrow import pa, pc, pq
from onnxembed.bulk.rows import BATCH, MAX_CHARACTERS, Columns, Rows, too_long
from onnxembed.errors import UsageError

_CURE = "the file is damaged; restore it"


class ParquetRows:
    """Reads .parquet files: only the columns that are asked for, a batch of rows at a time."""

    def columns(self, path: Path) -> dict[str, pa.DataType]:
        """The columns of the file's schema."""
        with _opened(path) as file:
            return {field.name: field.type for field in file.schema_arrow}

    def rows(self, path: Path, columns: Columns, types: Mapping[str, pa.DataType], skip: int) -> Iterator[Rows]:
        """The rows after the first `skip`; row groups before them are not read."""
        with _opened(path) as file:
            total, first = max(1, file.metadata.num_rows), 0
            for group in range(file.metadata.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                if first + count > skip:
                    for batch in _batches(path, file, group, columns):
                        after = first + len(batch)
                        if after > skip:
                            yield _rows(batch.slice(max(0, skip - first)), columns, types, after, after / total)
                        first = after
                else:
                    first += count


def _opened(path: Path) -> Any:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        cause = str(error).partition("\n")[0]
        raise UsageError(f"{path} is not a parquet file, or it is damaged ({cause})") from error


def _batches(path: Path, file: Any, group: int, columns: Columns) -> Iterator[pa.RecordBatch]:
    wanted = list(dict.fromkeys((columns.text, *columns.beside)))
    try:
        yield from file.iter_batches(BATCH, row_groups=[group], columns=wanted)
    except (pa.ArrowException, OSError) as error:
        cause, groups = str(error).partition("\n")[0], file.metadata.num_row_groups
        raise UsageError(f"{path}: row group {group + 1} of {groups} cannot be read ({cause}); {_CURE}") from error


def _rows(batch: pa.RecordBatch, columns: Columns, types: Mapping[str, pa.DataType], after: int, share: float) -> Rows:
    texts, flaws = _texts(batch.column(columns.text))
    beside = {name: batch.column(name).cast(types[name]) for name in columns.beside}
    return Rows(range(after - len(batch) + 1, after + 1), texts, beside, flaws, share)


def _texts(column: pa.Array) -> tuple[list[str | None], dict[int, str]]:
    """The texts of a column, and the flaws of rows."""
    if pa.types.is_null(column.type):
        return [None] * len(column), dict.fromkeys(range(len(column)), "null")
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        column = column.cast(pa.large_string())  # a dictionary, or a form that no function of Arrow takes yet
    lengths = pc.utf8_length(column)
    long = pc.fill_null(pc.greater(lengths, MAX_CHARACTERS), False)
    flaws = {place: too_long(lengths[place].as_py()) for place in pc.indices_nonzero(long).to_pylist()}
    flaws |= dict.fromkeys(pc.indices_nonzero(pc.is_null(column)).to_pylist(), "null")
    if flaws:
        column = pc.if_else(long, pa.scalar(None, column.type), column)
    try:
        return column.to_pylist(), flaws
    except UnicodeDecodeError:  # parquet says that a column is UTF-8, and nobody checks it
        return [_decoded(value, place, flaws) for place, value in enumerate(column)], flaws


def _decoded(value: Any, place: int, flaws: dict[int, str]) -> str | None:
    try:
        text: str | None = value.as_py()
    except UnicodeDecodeError as error:
        flaws[place] = f"not UTF-8 ({error.reason})"
        return None
    return text
