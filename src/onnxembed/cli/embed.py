"""`onnxembed embed`: turn texts into vectors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Unpack

import click

from onnxembed.atomic import refuse_replacing
from onnxembed.cli.options import PATH, RunOptions, force_option, onnx_file_option, run_options, text_options
from onnxembed.cli.texts import Source, open_texts
from onnxembed.errors import UsageError
from onnxembed.manifest import TEXT_KINDS, TextKind
from onnxembed.quantization import DTYPES, OutputDtype, width

Make = Callable[[Iterable[str]], Iterator[Any]]
"""Turns texts into embeddings, in order."""

ToLine = Callable[[Any], bytes]
"""Writes an embedding as a line of JSON."""


@click.command(short_help="Turn texts into vectors.")
@click.argument("model")
@click.argument("inputs", nargs=-1, metavar="[TEXT ... | FILE.txt | FILE.jsonl | -]")
@click.option(
    "-o", "--output", type=PATH, metavar="FILE", help="The .npy or .jsonl file to write [default: print the vectors]."
)
@force_option
@click.option("--sparse", is_flag=True, help="Sparse embeddings: for each text, a JSON object of indices and values.")
@click.option(
    "--multi-vector", is_flag=True, help="A vector for each token (ColBERT): for each text, a JSON array of arrays."
)
@click.option(
    "--kind",
    type=click.Choice(TEXT_KINDS),
    help="With --multi-vector: what the texts are, for a model that treats queries and documents differently.",
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
@onnx_file_option
@run_options
def embed(
    *,
    model: str,
    inputs: tuple[str, ...],
    texts: tuple[str, ...],
    output: Path | None,
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

    Texts are arguments, the lines of a .txt file, one field of each line of a .jsonl file, or the lines of
    standard input (-). Each text becomes a row of the .npy file or a line of JSON, in the order of the texts.
    --text passes a text that looks like a file or an option. A program that writes a line to standard input and
    waits gets its vector at once.
    """
    from onnxembed.embedder import OnnxEmbedder
    from onnxembed.files.vectors import (
        LINE_FILES,
        check_vector_file,
        matrix_line,
        read_ranges,
        sparse_line,
        vector_line,
    )

    if sparse and multi_vector:
        raise UsageError("--sparse and --multi-vector cannot be combined")
    dense_options = {
        "--dimensions": dimensions,
        "--normalize": normalize,
        "--output-dtype": output_dtype,
        "--ranges": ranges,
    }
    if (sparse or multi_vector) and (given := [name for name, value in dense_options.items() if value is not None]):
        raise UsageError(f"{' and '.join(given)}: for dense vectors, not for --sparse and --multi-vector")
    if kind is not None and not multi_vector:
        raise UsageError("--kind needs --multi-vector; --prompt-name puts a prompt before texts")
    if output is not None and (sparse or multi_vector):
        check_vector_file(output, LINE_FILES, "sparse embeddings" if sparse else "vectors of tokens")
    elif output is not None:
        check_vector_file(output)
    with open_texts(inputs, field, jsonl, texts=texts, output=output) as source:
        if output is not None:
            refuse_replacing(output, force=force)
        with OnnxEmbedder(model, onnx_file=onnx_file, **arguments) as embedder:
            make: Make = partial(
                embedder.embed,
                prompt=prompt,
                prompt_name=prompt_name,
                dimensions=dimensions,
                normalize=normalize,
                dtype=output_dtype,
                ranges=None if ranges is None else read_ranges(ranges),
            )
            to_line: ToLine = vector_line
            dtype = output_dtype or "float32"
            numbers = width(dtype, dimensions or embedder.dimension)
            words = f"vectors of {numbers} numbers ({dtype})" if output_dtype else f"vectors of {numbers} numbers"
            if sparse:
                make = partial(embedder.embed_sparse, prompt=prompt, prompt_name=prompt_name)
                to_line, words = sparse_line, "sparse embeddings"
            elif multi_vector:
                make = partial(embedder.embed_multi_vector, kind=kind, prompt=prompt, prompt_name=prompt_name)
                to_line, words = matrix_line, "arrays of vectors of tokens"
            if output is None:
                _print(source, make, to_line)
                return
            count = _write(source, make, to_line, output, (numbers, dtype), force=force)
    click.echo(f"{output}: {count:,} {words}")


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


def _write(
    source: Source, make: Make, to_line: ToLine, output: Path, shape: tuple[int, OutputDtype], *, force: bool
) -> int:
    """Write a row or a line for each text to a new file; returns how many."""
    from onnxembed.cli.progress import counter
    from onnxembed.files.vectors import write_lines, write_npy

    embeddings = chain.from_iterable(_bursts(source, make))
    with counter(embeddings, "embedding", "texts", total=source.total) as counted:
        if output.suffix == ".npy":
            return write_npy(output, counted, *shape, force=force)
        return write_lines(output, map(to_line, counted), force=force)
