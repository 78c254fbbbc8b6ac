"""A bulk job on the command line: its options, its progress and its last line."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypedDict

import click

from onnxembed.cli.options import PATH, options
from onnxembed.counting import counted
from onnxembed.errors import UsageError

if TYPE_CHECKING:
    from onnxembed.bulk.making import VectorOptions
    from onnxembed.bulk.summary import Summary
    from onnxembed.embedder import OnnxEmbedder


SAMPLE_SECONDS = 0.25
"""The fewest seconds between two points of a report's rates; the last point may be nearer."""


class JobArguments(TypedDict):
    """The arguments that `job_options` adds to a command."""

    id_column: str | None
    keep: tuple[str, ...]
    strict: bool
    part_rows: int | None
    report: Path | None
    ray: str | None


job_options = options(
    click.option("--id-column", metavar="NAME", help="To a folder: column of the ids [default: rows are numbered]."),
    click.option("--keep", multiple=True, metavar="NAME", help="To a folder: column to keep; repeat it for more."),
    click.option(
        "--strict", is_flag=True, help="To a folder: stop at a row that has no text, instead of rejecting it."
    ),
    click.option("--part-rows", type=int, metavar="N", help="To a folder: rows of each parquet file [default: 16384]."),
    click.option(
        "--report", type=PATH, metavar="FILE", help="To a folder: an HTML page to write about the job, with plots."
    ),
    click.option(
        "--ray",
        is_flag=False,
        flag_value="local",
        metavar="[ADDRESS]",
        help="To a folder: embed on the Ray cluster at ADDRESS, auto for this machine's; without it, on this machine.",
    ),
)


def is_folder(output: str) -> bool:
    """Whether an output is a folder: it has a slash at its end, or it is there."""
    return output.endswith(("/", os.sep)) or Path(output).is_dir()


def refuse_job_options(arguments: JobArguments) -> None:
    """Raise UsageError for an option that only a job takes."""
    for name, value in arguments.items():
        if value not in (None, False, ()):
            option = name.replace("_", "-")
            raise UsageError(f"--{option} is for a folder of parquet files: give one as the output, -o OUT/")


def run_job(
    open_model: Callable[..., OnnxEmbedder],
    inputs: Sequence[str],
    output: Path,
    vectors: VectorOptions,
    *,
    threads: int | None,
    column: str,
    force: bool,
    arguments: JobArguments,
) -> None:
    """Embed files into a folder, showing how far it is, and print what came of it."""
    from onnxembed.bulk.chunks import PART_ROWS
    from onnxembed.bulk.report import check_report, write_report
    from onnxembed.bulk.rows import Columns
    from onnxembed.bulk.run import Compute, JobOptions, compute_here, embed_files

    if not inputs or "-" in inputs:
        raise UsageError("a job reads its input again to go on: give files, folders or patterns of names")
    part_rows, report = arguments["part_rows"], arguments["report"]
    if report is not None:
        check_report(report)
    compute: Compute = compute_here
    if arguments["ray"] is not None:
        from onnxembed.bulk.ray import compute_on_ray

        compute = compute_on_ray(arguments["ray"], open_model, vectors, threads=threads)
    with Progress() as progress:
        job, summary = embed_files(
            open_model,
            inputs,
            output,
            columns=Columns(column, arguments["id_column"], arguments["keep"]),
            vectors=vectors,
            options=JobOptions(PART_ROWS if part_rows is None else part_rows, arguments["strict"], force, compute),
            watch=progress,
        )
    if report is not None:
        write_report(report, output, job, summary, progress.samples)
    click.echo(f"{output}: {progress.describe(summary, job.vectors['space']['id'], output)}")


class Progress:
    """Shows how far a job is: a line that changes on a terminal, a new line each minute elsewhere."""

    minute = 60.0
    """Seconds between two lines."""

    def __init__(self) -> None:
        from onnxembed.cli.progress import ProgressLine

        self._terminal = sys.stderr.isatty()
        self._line = ProgressLine()
        self._bar: Any = None
        self._started = self._said = time.monotonic()
        self._texts = 0
        self._before: Summary | None = None
        self._first_share = 0.0
        self.samples: list[tuple[float, int]] = [(0.0, 0)]
        """Seconds since embedding began, with the texts that were embedded by then; the last one is the latest."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._line.__exit__()
        if self._bar is not None:
            self._bar.close()

    def stage(self, name: str, done: int, total: int) -> None:
        """Show how far a stage before embedding is."""
        self._line(name, done, total)

    def begin(self, share: float, done: Summary) -> None:
        """Begin to count."""
        from tqdm import tqdm

        self._line.__exit__()
        self._before, self._first_share = done, share
        self._started = self._said = time.monotonic()
        if self._terminal:
            words = self._words(self._started, share)
            shape = "{desc} |{bar}|"
            self._bar = tqdm(desc=words, total=1.0, initial=share, leave=False, dynamic_ncols=True, bar_format=shape)

    def advance(self, texts: int, share: float) -> None:
        """Count texts; say it, if it is time."""
        self._texts += texts
        now = time.monotonic()
        if len(self.samples) > 1 and self.samples[-1][0] - self.samples[-2][0] < SAMPLE_SECONDS:
            self.samples.pop()
        self.samples.append((now - self._started, self._texts))
        if self._bar is not None:
            self._bar.n = share
            self._bar.set_description_str(self._words(now, share))
        elif now - self._said >= self.minute:
            self._said = now
            click.echo(f"embedding: {share:.1%} done, {self._rate(now, share)}", err=True)

    def describe(self, summary: Summary, space: str, output: Path) -> str:
        """What came of a job, in one line."""
        from onnxembed.bulk.job import REJECTED_FILE
        from onnxembed.bulk.parts import JOB_FOLDER

        seconds = time.monotonic() - self._started
        words = [counted(summary.texts, "text"), counted(summary.tokens, "token"), f"{summary.truncated:,} truncated"]
        rejected = f"{summary.rejected:,} rejected"
        words.append(f"{rejected} ({output / JOB_FOLDER / REJECTED_FILE})" if summary.rejected else rejected)
        words += [counted(summary.parts, "part"), f"space {space}"]
        if self._before and self._before.rows:
            words.append(
                f"{counted(self._before.texts, 'text')} {'was' if self._before.texts == 1 else 'were'} there already"
            )
        if self._texts:
            words.append(f"{self._texts / max(seconds, 1e-9):,.0f} texts/s")
        return ", ".join(words)

    def _words(self, now: float, share: float) -> str:
        return f"embedding: {share:.0%}, {self._rate(now, share)}"

    def _rate(self, now: float, share: float) -> str:
        """The texts that are embedded, how fast, and how long the rest takes."""
        seconds = now - self._started
        texts = self._texts + (self._before.texts if self._before else 0)
        words = counted(texts, "text")
        if self._texts and seconds > 0:
            words += f", {self._texts / seconds:,.0f} texts/s"
        if share > self._first_share and seconds > 1:
            left = seconds * (1 - share) / (share - self._first_share)
            words += f", {duration(left)} left"
        return words


def duration(seconds: float) -> str:
    """A time in its two largest units."""
    whole = round(seconds)
    units = ((whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s"))
    first = next((place for place, (number, _) in enumerate(units) if number), len(units) - 1)
    return " ".join(f"{number} {unit}" for number, unit in units[first : first + 2])
