"""The files of a job's folder: parts that appear whole or not at all, and what they say of themselves."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from onnxembed.arrays import FloatArray
from onnxembed.atomic import naming_full_disks
from onnxembed.bulk.arrow import pa, pq
from onnxembed.bulk.chunks import ID, Position, Rejected
from onnxembed.bulk.making import TOKEN_COUNT, TRUNCATED
from onnxembed.errors import UsageError

JOB_FOLDER = "_job"
"""What a job writes beside its parts. Readers of parquet folders skip names that begin so."""

METADATA = b"onnxembed"
"""The key of a parquet file's metadata under which lies what its vectors are, as JSON."""

PART = b"onnxembed.part"
"""The key under which lies which rows of the inputs a part has, as JSON."""

RANGES = b"onnxembed.ranges"
"""The key under which lie the ranges of 8-bit vectors: float32 [2, D] of the lowest and highest numbers, as JSON."""

# Bytes of vectors in a row group: little enough to read one at a time, enough to read it fast.
_ROW_GROUP_BYTES = 2**24


@dataclass(frozen=True)
class PartRecord:
    """Which rows of the inputs a part has, and what became of them."""

    start: Position
    end: Position
    texts: int
    tokens: int
    truncated: int
    rejected: int
    ranges: FloatArray | None = None


def part_name(number: int) -> str:
    """The file name of a part."""
    return f"part-{number:05d}.parquet"


def rejected_name(number: int) -> str:
    """The file name of a part's rejected rows, until the job is finished."""
    return f"rejected-{number:05d}.parquet"


def write_part(
    folder: Path,
    number: int,
    columns: Mapping[str, pa.Array | pa.ChunkedArray],
    record: PartRecord,
    *,
    metadata: Mapping[str, Any],
    rejected: Sequence[Rejected],
    id_type: pa.DataType,
) -> None:
    """Write a part, and before it its rejected rows: a part that is there has everything beside it.

    Raises UsageError if the disk is full; then nothing of the part is there.
    """
    if rejected:
        write_table(folder / JOB_FOLDER / rejected_name(number), rejected_table(rejected, id_type), {}, folder)
    entries = {METADATA: _json(metadata), PART: _json(_without_ranges(record))}
    if record.ranges is not None:
        entries[RANGES] = _json(record.ranges.astype(np.float64).tolist())
    write_table(folder / part_name(number), pa.table(dict(columns)), entries, folder)


def _without_ranges(record: PartRecord) -> dict[str, Any]:
    return {name: value for name, value in asdict(record).items() if name != "ranges"}


def rejected_table(rejected: Sequence[Rejected], id_type: pa.DataType) -> pa.Table:
    """Rejected rows as a table."""
    return pa.table(
        {
            ID: pa.array([row.id for row in rejected], id_type),
            "file": pa.array([row.file for row in rejected], pa.string()),
            "row": pa.array([row.row for row in rejected], pa.int64()),
            "reason": pa.array([row.reason for row in rejected], pa.string()),
        }
    )


def write_table(path: Path, table: pa.Table, metadata: Mapping[bytes, bytes], folder: Path) -> None:
    """Write a parquet file of a job's folder, which appears whole: written, made safe on the disk, then renamed.

    The first bytes of all numbers of a vector are alike, as are the second ones: they are compressed together.
    Vectors get neither statistics nor a dictionary, which would take time and tell nothing.
    """
    table = table.replace_schema_metadata(metadata)
    vectors = [name for name in table.column_names if pa.types.is_nested(table.schema.field(name).type)]
    others = [name for name in table.column_names if name not in vectors]

    def write(file: IO[bytes]) -> None:
        writer = pq.ParquetWriter(
            file,
            table.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            write_statistics=others,
            column_encoding=_encodings(table.schema),
        )
        try:
            writer.write_table(table, row_group_size=_row_group(table))
            writer.close()
        except BaseException:
            with suppress(Exception):  # of writing the end of a file that is thrown away
                writer.close()
            raise

    write_safely(path, write, folder)


def write_safely(path: Path, write: Callable[[IO[bytes]], None], folder: Path) -> None:
    """Have `write` write a file of a job's folder, which replaces what is there in one step, even if power fails.

    Raises UsageError if the disk is full.
    """
    draft = folder / JOB_FOLDER / f".{path.name}.{secrets.token_hex(4)}.part"
    try:
        with naming_full_disks(path):
            with draft.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder safe on the disk, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encodings(schema: pa.Schema) -> dict[str, str]:
    """How columns are encoded: the bytes of floats are split, so that the compressor finds those that are alike."""
    encodings = {}
    for field in schema:
        name, kind = field.name, field.type
        while pa.types.is_nested(kind):
            if not hasattr(kind, "value_type"):  # a struct or a map among the kept columns
                break
            name, kind = f"{name}.list.element", kind.value_type
        if pa.types.is_floating(kind):
            encodings[name] = "BYTE_STREAM_SPLIT"
    return encodings


def _row_group(table: pa.Table) -> int:
    """The rows of a row group."""
    row = max(1, int(table.nbytes) // max(1, len(table)))
    return max(1, min(len(table), _ROW_GROUP_BYTES // row))


def read_metadata(path: Path) -> tuple[dict[str, Any], dict[bytes, bytes]]:
    """What a parquet file says of its vectors, and all of its metadata; UsageError for a file from elsewhere."""
    try:
        found = pq.read_metadata(path).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path} cannot be read ({str(error).partition(chr(10))[0]})") from error
    if METADATA not in found:
        raise UsageError(f"{path} does not say in which vector space it is: onnxembed did not write it")
    return json.loads(found[METADATA]), found


def read_record(path: Path) -> PartRecord:
    """Which rows a part has. Raises UsageError for a file that is no part."""
    _, found = read_metadata(path)
    if PART not in found:
        raise UsageError(f"{path} is no part of a job")
    record = json.loads(found[PART])
    ranges = np.array(json.loads(found[RANGES]), np.float32) if RANGES in found else None
    ends = {name: Position(**record[name]) for name in ("start", "end")}
    return PartRecord(**(record | ends), ranges=ranges)


def part_record(start: Position, end: Position, columns: Mapping[str, Any], rejected: int, ranges: Any) -> PartRecord:
    """The record of a part with these columns."""
    counts = columns[TOKEN_COUNT].to_numpy()
    truncated = int(columns[TRUNCATED].true_count)
    return PartRecord(start, end, len(counts), int(counts.sum()), truncated, rejected, ranges)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode()
