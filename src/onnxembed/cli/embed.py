"""`onnxembed embed`: turn texts into vectors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

from onnxembed.atomic import refuse_replacing
from onnxembed.cli.job import JobArguments, is_folder, job_options, refuse_job_options, run_job
from onnxembed.cli.options import RunOptions, force_option, onnx_file_option, run_options, text_options
from onnxembed.cli.texts import FIELD, Source, open_texts
from onnxembed.counting import counted
from onnxembed.errors import UsageError
from onnxembed.manifest import TEXT_KINDS, TextKind
from onnxembed.quantization import DTYPES, OutputDtype, width

if TYPE_CHECKING:
    from onnxembed.bulk.making import VectorOptions
    from onnxembed.embedder import OnnxEmbedder

Make = Callable[[Iterable[str]], Iterator[Any]]
"""Turns texts into embeddings, in order."""

ToLine = Callable[[Any], bytes]
"""Writes an embedding as a line of JSON."""


@dataclass(frozen=True)
class Making:
    """How texts become what is wanted of them."""

    make: Make
    to_line: ToLine
    one: str
    """What it makes."""
    shape: tuple[int, OutputDtype] = (0, "float32")
    """Of dense vectors: how many numbers each has, and their type."""


@dataclass(frozen=True)
class Wanted:
    """What the options want made of each text."""

    sparse: bool
    multi_vector: bool
    kind: TextKind | None
    prompt: str | None
    prompt_name: str | None
    dimensions: int | None
    normalize: bool | None
    dtype: OutputDtype | None
    ranges: Path | None

    def check(self) -> None:
        """Raise UsageError for options that do not go together."""
        if self.sparse and self.multi_vector:
            raise UsageError("--sparse and --multi-vector cannot be combined")
        dense_options = {
            "--dimensions": self.dimensions,
            "--normalize": self.normalize,
            "--output-dtype": self.dtype,
            "--ranges": self.ranges,
        }
        given = [name for name, value in dense_options.items() if value is not None]
        if (self.sparse or self.multi_vector) and given:
            raise UsageError(f"{' and '.join(given)}: for dense vectors, not for --sparse and --multi-vector")

    def check_file(self, output: Path) -> None:
        """Raise UsageError for a file that cannot hold this."""
        from onnxembed.files.vectors import LINE_FILES, check_vector_file

        if self.sparse or self.multi_vector:
            check_vector_file(output, LINE_FILES, "sparse embeddings" if self.sparse else "vectors of tokens")
        else:
            check_vector_file(output)

    def making(self, embedder: OnnxEmbedder) -> Making:
        """How an embedder makes it."""
        from onnxembed.files.vectors import matrix_line, read_ranges, sparse_line, vector_line

        prompt = embedder.model.prompting.choose(self.prompt, self.prompt_name, self.kind)
        if self.multi_vector:
            make: Make = partial(embedder.embed_multi_vector, kind=self.kind, prompt=prompt)
            return Making(make, matrix_line, "array of vectors of tokens")
        if self.sparse:
            make = partial(embedder.embed_sparse, prompt=prompt)
            return Making(make, sparse_line, "sparse embedding")
        make = partial(
            embedder.embed,
            prompt=prompt,
            dimensions=self.dimensions,
            normalize=self.normalize,
            dtype=self.dtype,
            ranges=None if self.ranges is None else read_ranges(self.ranges),
        )
        dtype = self.dtype or "float32"
        numbers = width(dtype, self.dimensions or embedder.dimension)
        one = f"vector of {counted(numbers, 'number')}" + (f" ({dtype})" if self.dtype else "")
        return Making(make, vector_line, one, (numbers, dtype))

    def for_job(self) -> VectorOptions:
        """The same for a job."""
        from onnxembed.bulk.making import VectorOptions
        from onnxembed.files.vectors import read_ranges

        return VectorOptions(
            task="sparse" if self.sparse else "multi_vector" if self.multi_vector else None,
            kind=self.kind,
            prompt=self.prompt,
            prompt_name=self.prompt_name,
            dimensions=self.dimensions,
            normalize=self.normalize,
            dtype=self.dtype or "float32",
            ranges=None if self.ranges is None else read_ranges(self.ranges),
        )


@click.command(short_help="Turn texts into vectors.")
@click.argument("model")
@click.argument("inputs", nargs=-1, metavar="[TEXT ... | FILE ... | -]")
@click.option(
    "-o",
    "--output",
    metavar="FILE|DIR/",
    help="The .npy or .jsonl file to write, or a folder for parquet files [default: print the vectors].",
)
@force_option
@click.option("--sparse", is_flag=True, help="Sparse embeddings: for each text, a JSON object of indices and values.")
@click.option(
    "--multi-vector", is_flag=True, help="A vector for each token (ColBERT): for each text, a JSON array of arrays."
)
@click.option(
    "--kind",
    type=click.Choice(TEXT_KINDS),
    help="What the texts are: the model's own prompt for such texts goes before each, unless you give another.",
)
@click.option("--prompt", metavar="TEXT", help="Put TEXT before every text.")
@click.option("--prompt-name", metavar="NAME", help="Put the model's prompt NAME before every text.")
@click.option(
    "--dimensions",
    type=int,
    metavar="N",
    help="Keep the first N numbers of each vector; unit vectors are normalized again.",
)
@click.option(
    "--normalize/--no-normalize",
    default=None,
    help="Whether to scale vectors to length 1 [default: as the model does].",
)
@click.option(
    "--output-dtype",
    type=click.Choice(DTYPES),
    help="The type of the numbers; (u)binary packs a bit for each number, eight in a byte [default: float32].",
)
@click.option(
    "--ranges",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="For int8 and uint8: a .npy file of float vectors of 100 or more typical texts, or of their ranges [2, D].",
)
@text_options
@job_options
@onnx_file_option
@run_options
def embed(
    *,
    model: str,
    inputs: tuple[str, ...],
    texts: tuple[str, ...],
    output: str | None,
    force: bool,
    sparse: bool,
    multi_vector: bool,
    kind: TextKind | None,
    prompt: str | None,
    prompt_name: str | None,
    dimensions: int | None,
    normalize: bool | None,
    output_dtype: OutputDtype | None,
    ranges: Path | None,
    jsonl: bool,
    field: str | None,
    id_column: str | None,
    keep: tuple[str, ...],
    strict: bool,
    part_rows: int | None,
    report: Path | None,
    ray: str | None,
    onnx_file: str | None,
    **arguments: Unpack[RunOptions],
) -> None:
    """Turn texts into vectors with MODEL, a folder that `onnxembed export` wrote or a hub repository with its files.

    \b
    onnxembed embed my-model-onnx "a text" "another text"
    onnxembed embed my-model-onnx texts.txt -o vectors.npy
    onnxembed embed my-model-onnx --text notes.txt --text -1
    onnxembed embed my-model-onnx documents.jsonl --field body -o vectors.npy
    cat texts.txt | onnxembed embed my-model-onnx - > vectors.jsonl
    onnxembed embed my-model-onnx texts.txt --output-dtype ubinary -o bits.npy
    onnxembed embed my-splade-onnx --sparse "a text"
    onnxembed embed my-colbert-onnx --multi-vector --kind query "a question"
    onnxembed embed my-model-onnx docs/ more.csv -o vectors/ --column body

    Texts are arguments, the lines of a .txt file, one field of each line of a .jsonl file, or the lines of
    standard input (-). Each text becomes a row of the .npy file or a line of JSON, in the order of the texts.
    --text passes a text that looks like a file or an option. A program that writes a line to standard input and
    waits gets its vector at once.

    With a folder as the output, this is a job: inputs are .parquet, .jsonl, .csv and .txt files, folders of
    them and patterns of names. The folder gets parquet files. A job that was stopped goes on where it was when the
    same command runs again.
    """
    from onnxembed.embedder import OnnxEmbedder

    wanted = Wanted(
        sparse=sparse,
        multi_vector=multi_vector,
        kind=kind,
        prompt=prompt,
        prompt_name=prompt_name,
        dimensions=dimensions,
        normalize=normalize,
        dtype=output_dtype,
        ranges=ranges,
    )
    wanted.check()
    if ray is not None and Path(model).exists():  # actors begin in other folders than this process
        model = str(Path(model).absolute())
    open_model = partial(OnnxEmbedder, model, onnx_file=onnx_file, **arguments)
    job = JobArguments(id_column=id_column, keep=keep, strict=strict, part_rows=part_rows, report=report, ray=ray)
    if output is not None and is_folder(output):
        if jsonl or texts:
            raise UsageError(f"{'--jsonl' if jsonl else '--text'} and a folder do not go together: a job reads files")
        run_job(
            open_model,
            inputs,
            Path(output),
            wanted.for_job(),
            threads=arguments["threads"],
            column=field or FIELD,
            force=force,
            arguments=job,
        )
        return
    refuse_job_options(job)
    path = None if output is None else Path(output)
    if path is not None:
        wanted.check_file(path)
    with open_texts(inputs, field, jsonl, texts=texts, output=path) as source:
        if path is not None:
            refuse_replacing(path, force=force)
        with open_model() as embedder:
            making = wanted.making(embedder)
            if path is None:
                _print(source, making.make, making.to_line)
                return
            count = _write(source, making, path, force=force)
    click.echo(f"{path}: {counted(count, making.one)}")


def _bursts(source: Source, make: Make) -> Iterator[Iterator[Any]]:
    """The embeddings of each burst of texts; the first, empty one checks the options, even if no text comes."""
    yield make(())
    yield from map(make, source.bursts())


def _print(source: Source, make: Make, to_line: ToLine) -> None:
    """Print a line for each text. After a burst nothing stays in a buffer: somebody may wait for the answer."""
    from onnxembed.cli.progress import counter
    from onnxembed.files.vectors import stream_lines

    # On a terminal that also shows the embeddings, the bar would appear among them.
    with counter(source.texts, "embedding", "texts", total=source.total, hidden=sys.stdout.isatty()) as counted:
        for embeddings in _bursts(replace(source, texts=counted), make):
            stream_lines(sys.stdout.buffer, map(to_line, embeddings))
            sys.stdout.buffer.flush()


def _write(source: Source, making: Making, output: Path, *, force: bool) -> int:
    """Write a row or a line for each text to a new file; returns how many."""
    from onnxembed.cli.progress import counter
    from onnxembed.files.vectors import write_lines, write_npy

    embeddings = chain.from_iterable(_bursts(source, making.make))
    with counter(embeddings, "embedding", "texts", total=source.total) as counted:
        if output.suffix == ".npy":
            return write_npy(output, counted, *making.shape, force=force)
        return write_lines(output, map(making.to_line, counted), force=force)
