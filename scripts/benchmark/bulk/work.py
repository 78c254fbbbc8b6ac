"""What all measurements share: the texts, and jobs over them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.bulk.record import Record
from onnxembed import OnnxEmbedder
from onnxembed.bulk.making import VectorOptions
from onnxembed.bulk.rows import Columns
from onnxembed.bulk.run import Compute, JobOptions, compute_here, embed_files


@dataclass(frozen=True)
class Work:
    """What is measured, with which texts, and where files may be written."""

    model: Path
    data: Path
    folder: Path
    stores: Path
    """Where databases keep their files."""
    record: Record
    texts: int
    """Of the large job; the other steps take shares of it."""
    threads: int
    checkpoint: Path | None
    fastembed_python: Path | None
    fastembed_model: Path | None

    @property
    def large(self) -> Path:
        """The folder of the large job's vectors."""
        return self.folder / "large"

    def parquet(self, count: int) -> Path:
        """A file of so many short texts."""
        path = self.folder / f"texts-{count}.parquet"
        if not path.exists():
            pq.write_table(pa.table({"text": list(short_texts(self.data, count))}), path)
        return path

    def open(self) -> OnnxEmbedder:
        return OnnxEmbedder(self.model, threads=self.threads)

    def job(self, inputs: Path, output: Path, *, id_column: str | None = None, **options: Any) -> None:
        run(self.open, inputs, output, id_column=id_column, **options)


class Unwatched:
    """Watches a job and says nothing."""

    def stage(self, name: str, done: int, total: int) -> None: ...

    def begin(self, share: float, done: Any) -> None: ...

    def advance(self, texts: int, share: float) -> None: ...


def run(
    open_model: Any,
    inputs: Path,
    output: Path,
    *,
    id_column: str | None = None,
    compute: Compute = compute_here,
    watch: Any = None,
    part_rows: int = JobOptions.part_rows,
) -> None:
    """A job over a file, or its rest."""
    embed_files(
        open_model,
        [str(inputs)],
        output,
        columns=Columns("text", id_column, ()),
        vectors=VectorOptions(),
        options=JobOptions(part_rows=part_rows, compute=compute),
        watch=watch or Unwatched(),
    )


def short_texts(data: Path, count: int) -> Iterator[str]:
    """So many different short texts: sentences of Tatoeba and STS-B and titles of SciFact, repeated with a number."""
    texts = list(dict.fromkeys(_short(data)))
    for number in range(count):
        turn, place = divmod(number, len(texts))
        yield f"{texts[place]} {turn}" if turn else texts[place]


def _short(data: Path) -> Iterator[str]:
    for path in sorted((data / "text/tatoeba").glob("tatoeba.*")):
        yield from path.read_text(encoding="utf-8").splitlines()
    for path in sorted((data / "eval/stsb").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for first, second, *_ in csv.reader(file):
                yield from (first, second)
    for document in json_lines(data / "eval/scifact/corpus.jsonl"):
        yield document["title"]


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
