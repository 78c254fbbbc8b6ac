"""What a job came to: its counts, and its rejected rows in one file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from onnxembed.bulk.arrow import pa, pq
from onnxembed.bulk.job import REJECTED_FILE, SUMMARY_FILE, write_json
from onnxembed.bulk.parts import JOB_FOLDER, PartRecord, rejected_name, write_safely


@dataclass(frozen=True)
class Summary:
    """The counts of a job."""

    rows: int
    """Rows of the inputs, without the empty lines of .jsonl files."""
    texts: int
    tokens: int
    truncated: int
    rejected: int
    parts: int


def summarize(records: Iterable[PartRecord]) -> Summary:
    """The counts of parts together."""
    every = list(records)
    return Summary(
        rows=sum(record.end.total - record.start.total for record in every),
        texts=sum(record.texts for record in every),
        tokens=sum(record.tokens for record in every),
        truncated=sum(record.truncated for record in every),
        rejected=sum(record.rejected for record in every),
        parts=len(every),
    )


def finish(folder: Path, records: Mapping[int, PartRecord], id_type: pa.DataType) -> Summary:
    """Put the rejected rows of all parts into one file, and write the counts: the job is done."""
    own, summary = folder / JOB_FOLDER, summarize(records.values())
    files = [own / rejected_name(number) for number, record in sorted(records.items()) if record.rejected]
    if not (own / SUMMARY_FILE).exists():  # a part that was lost later has its rejected rows in the file already
        if files:
            write_safely(own / REJECTED_FILE, lambda file: _join(file, files), folder)
        write_json(own / SUMMARY_FILE, asdict(summary), folder)
    for path in own.glob("rejected-*.parquet"):
        path.unlink()
    return summary


def _join(file: IO[bytes], files: list[Path]) -> None:
    """Write the tables of all files into one, a row group for each."""
    schema = pq.read_schema(files[0])
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for path in files:
            writer.write_table(pq.read_table(path, schema=schema))
