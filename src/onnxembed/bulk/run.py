"""Running a job: chunks are read ahead, embedded, and written while the next ones are being embedded."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

from onnxembed.arguments import whole_number
from onnxembed.arrays import FloatArray
from onnxembed.bulk.arrow import pa
from onnxembed.bulk.chunks import ID, PART_ROWS, Chunk, beside_types, pending
from onnxembed.bulk.inputs import Inputs, find_inputs, open_inputs
from onnxembed.bulk.job import Job, begin, check_folder, locked, make_job
from onnxembed.bulk.making import TOKEN_COUNT, TRUNCATED, VECTOR_COLUMNS, VectorMaker, VectorOptions
from onnxembed.bulk.parts import PartRecord, part_record, write_part
from onnxembed.bulk.rows import Columns
from onnxembed.bulk.summary import Summary, finish, summarize
from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import UsageError


class Watch(Protocol):
    """Is told how far a job is."""

    def stage(self, name: str, done: int, total: int) -> None:
        """Take note of how many steps of a stage are done."""

    def begin(self, share: float, done: Summary) -> None:
        """Take note that embedding begins; a share of the inputs, with these counts, is done already."""

    def advance(self, texts: int, share: float) -> None:
        """Take note of how many more texts are embedded, and which share of the inputs is done."""


@dataclass(frozen=True)
class Made:
    """A chunk with the columns that were made of its texts."""

    chunk: Chunk
    columns: dict[str, pa.Array]
    ranges: FloatArray | None


class Compute(Protocol):
    """Embeds chunks, somewhere."""

    def __call__(
        self, chunks: Iterator[Chunk], maker: VectorMaker, ranges: FloatArray | None, watch: Watch
    ) -> Iterator[Made]:
        """Each chunk with its columns, in order."""


def compute_here(
    chunks: Iterator[Chunk], maker: VectorMaker, ranges: FloatArray | None, watch: Watch
) -> Iterator[Made]:
    """Embed chunks in this process, with all threads of the model."""
    for chunk in chunks:
        columns, ranges = maker.columns(chunk.texts, ranges, _advancing(chunk, watch))
        yield Made(chunk, columns, ranges)


def _advancing(chunk: Chunk, watch: Watch) -> Callable[[int], None]:
    """Tells the watch of windows, each with its share of the chunk."""
    count = 0

    def embedded(texts: int) -> None:
        nonlocal count
        count += texts
        watch.advance(texts, chunk.begun + (chunk.share - chunk.begun) * count / len(chunk.texts))

    return embedded


@dataclass(frozen=True)
class JobOptions:
    """How a job is run; nothing here changes a vector."""

    part_rows: int = PART_ROWS
    strict: bool = False
    """Stop at the first row that cannot be embedded, instead of rejecting it."""
    force: bool = False
    """Replace the job that is in the output."""
    compute: Compute = compute_here


def embed_files(
    open_model: Callable[[], OnnxEmbedder],
    arguments: Sequence[str],
    output: Path,
    *,
    columns: Columns,
    vectors: VectorOptions,
    options: JobOptions,
    watch: Watch,
) -> tuple[Job, Summary]:
    """Embed the texts of files into a folder of parquet files, or go on where an earlier run stopped.

    A part appears whole or not at all, and what has appeared is never made again. Where parts end and in which order
    rows are is decided by the inputs alone, so that the folder is the same however often the job was stopped.
    Returns the job and its counts.

    Raises UsageError for inputs, columns and options that cannot be, for a folder that has another job, for a row that
    cannot be embedded if the options are strict, and for a full disk; what is finished then stays.
    """
    part_rows = whole_number("part_rows", options.part_rows)
    check_folder(output)
    _check_names(columns)
    files = find_inputs(arguments, watch.stage)
    inputs = open_inputs(files, columns)
    with open_model() as model:
        maker = VectorMaker(model, vectors)
        job = make_job(model, maker, vectors, inputs, part_rows)
        with locked(output):
            done = begin(output, job, force=options.force)
            records = _run(
                output, job, inputs, maker, done=done, given_ranges=vectors.ranges, options=options, watch=watch
            )
            return job, finish(output, records, beside_types(columns, inputs.types)[ID])


def _check_names(columns: Columns) -> None:
    """Raise UsageError for kept columns that would have the name of another one."""
    own = [ID, TOKEN_COUNT, TRUNCATED, *(name for names in VECTOR_COLUMNS.values() for name in names)]
    for place, name in enumerate(columns.keep):
        if name in own:
            raise UsageError(f"a column {name!r} cannot be kept: the output has one of its own")
        if name in columns.keep[:place]:
            raise UsageError(f"the column {name!r} is kept twice")


def _run(
    output: Path,
    job: Job,
    inputs: Inputs,
    maker: VectorMaker,
    *,
    done: Mapping[int, PartRecord],
    given_ranges: FloatArray | None,
    options: JobOptions,
    watch: Watch,
) -> dict[int, PartRecord]:
    """Make the parts that are not done; returns the records of all."""
    records = dict(done)
    finished = {number: (record.start, record.end) for number, record in done.items()}
    ranges = next((record.ranges for record in done.values() if record.ranges is not None), given_ranges)
    id_type = beside_types(inputs.columns, inputs.types)[ID]

    def write(made: Made) -> tuple[int, PartRecord]:
        chunk = made.chunk
        record = part_record(chunk.start, chunk.end, made.columns, len(chunk.rejected), made.ranges)
        table = {**chunk.beside, **made.columns}
        write_part(
            output,
            chunk.number,
            table,
            record,
            metadata=job.vectors,
            rejected=chunk.rejected,
            id_type=id_type,
        )
        return chunk.number, record

    with ThreadPoolExecutor(1, "reading") as reading, ThreadPoolExecutor(1, "writing") as writing:
        writes: list[Future[tuple[int, PartRecord]]] = []
        with (
            closing(pending(inputs, finished, options.part_rows)) as chunks,
            closing(_ahead(_judged(chunks, strict=options.strict), reading)) as read,
        ):
            first = next(read, None)
            watch.begin(1.0 if first is None else first.begun, summarize(done.values()))
            for made in () if first is None else options.compute(chain([first], read), maker, ranges, watch):
                if writes:
                    number, record = writes.pop().result()
                    records[number] = record
                writes.append(writing.submit(write, made))
        for number, record in (future.result() for future in writes):
            records[number] = record
    return dict(sorted(records.items()))


def _judged(chunks: Iterator[Chunk], *, strict: bool) -> Iterator[Chunk]:
    """The chunks; with `strict`, UsageError for the first one with a rejected row."""
    for chunk in chunks:
        if strict and chunk.rejected:
            row = chunk.rejected[0]
            raise UsageError(f"{row.file}, row {row.row}: {row.reason} (--strict)")
        yield chunk


def _ahead(chunks: Iterator[Chunk], reading: ThreadPoolExecutor) -> Generator[Chunk, None, None]:
    """The chunks, each read while the one before it is being embedded."""
    upcoming = reading.submit(next, chunks, None)
    try:
        while (chunk := upcoming.result()) is not None:
            upcoming = reading.submit(next, chunks, None)
            yield chunk
    finally:
        upcoming.cancel()
        if not upcoming.cancelled():
            upcoming.exception()  # it has ended: a generator cannot be closed while it runs
