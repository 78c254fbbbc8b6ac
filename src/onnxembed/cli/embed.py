"""`onnxembed embed`: turn texts into vectors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Unpack

import click

from onnxembed.cli.options import PATH, RunOptions, onnx_file_option, run_options, text_options
from onnxembed.cli.texts import open_texts
from onnxembed.errors import UsageError
from onnxembed.manifest import TEXT_KINDS, TextKind


@click.command(short_help="Turn texts into vectors.")
@click.argument("model")
@click.argument("texts", nargs=-1, metavar="[TEXT ... | FILE.txt | FILE.jsonl | -]")
@click.option(
    "-o", "--output", type=PATH, metavar="FILE", help="The .npy or .jsonl file to write [default: print the vectors]."
)
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
@text_options
@onnx_file_option
@run_options
def embed(
    *,
    model: str,
    texts: tuple[str, ...],
    output: Path | None,
    sparse: bool,
    multi_vector: bool,
    kind: TextKind | None,
    prompt: str | None,
    prompt_name: str | None,
    dimensions: int | None,
    normalize: bool | None,
    jsonl: bool,
    field: str | None,
    onnx_file: str | None,
    **arguments: Unpack[RunOptions],
) -> None:
    """Turn texts into vectors with MODEL, a folder that `onnxembed export` wrote or a hub repository with its files.

    \b
    onnxembed embed my-model-onnx "a text" "another text"
    onnxembed embed my-model-onnx texts.txt -o vectors.npy
    onnxembed embed my-model-onnx documents.jsonl --field body -o vectors.npy
    cat texts.txt | onnxembed embed my-model-onnx - > vectors.jsonl
    onnxembed embed my-splade-onnx --sparse "a text"
    onnxembed embed my-colbert-onnx --multi-vector --kind query "a question"

    Texts are arguments, the lines of a .txt file, one field of each line of a .jsonl file, or the lines of
    standard input (-). Each text becomes a row of the .npy file or a line of JSON, in the order of the texts. Put
    -- before a text that begins with -.
    """
    from onnxembed.cli.progress import counter
    from onnxembed.embedder import OnnxEmbedder
    from onnxembed.files.vectors import (
        LINE_FILES,
        check_vector_file,
        matrix_line,
        sparse_line,
        stream_lines,
        vector_line,
        write_lines,
        write_npy,
    )

    if sparse and multi_vector:
        raise UsageError("--sparse and --multi-vector cannot be combined")
    if (sparse or multi_vector) and (dimensions is not None or normalize is not None):
        raise UsageError("--dimensions and --normalize are for dense vectors, not for --sparse and --multi-vector")
    if kind is not None and not multi_vector:
        raise UsageError("--kind needs --multi-vector; --prompt-name puts a prompt before texts")
    if output is not None and (sparse or multi_vector):
        check_vector_file(output, LINE_FILES, "sparse embeddings" if sparse else "vectors of tokens")
    elif output is not None:
        check_vector_file(output)
    with (
        open_texts(texts, field, jsonl) as source,
        OnnxEmbedder(model, onnx_file=onnx_file, **arguments) as embedder,
    ):
        embeddings: Iterator[Any]
        to_line: Callable[[Any], bytes]
        if sparse:
            embeddings, to_line = embedder.embed_sparse(source, prompt=prompt, prompt_name=prompt_name), sparse_line
        elif multi_vector:
            embeddings = embedder.embed_multi_vector(source, kind=kind, prompt=prompt, prompt_name=prompt_name)
            to_line = matrix_line
        else:
            embeddings = embedder.embed(
                source, prompt=prompt, prompt_name=prompt_name, dimensions=dimensions, normalize=normalize
            )
            to_line = vector_line
        # On a terminal that also shows the embeddings, the bar would appear among them.
        with counter(embeddings, "embedding", "text", hidden=output is None and sys.stdout.isatty()) as counted:
            if output is None:
                stream_lines(sys.stdout.buffer, map(to_line, counted))
                sys.stdout.buffer.flush()
            elif output.suffix == ".npy":
                write_npy(output, counted, dimensions or embedder.dimension)
            else:
                write_lines(output, map(to_line, counted))
