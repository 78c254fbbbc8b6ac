"""`onnxembed embed`: turn texts into vectors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Unpack

import click

from onnxembed.cli.options import ONNX_FILE, PATH, Running, running_options, text_options
from onnxembed.cli.texts import opened
from onnxembed.errors import UsageError
from onnxembed.manifest import TEXT_KINDS, TextKind


@click.command(short_help="Turn texts into vectors.")
@click.argument("model")
@click.argument("texts", nargs=-1, metavar="[TEXT ... | FILE.txt | FILE.jsonl | -]")
@click.option(
    "-o", "--output", type=PATH, metavar="FILE", help="Write vectors to a .npy or .jsonl file [default: print them]."
)
@click.option("--sparse", is_flag=True, help="Sparse embeddings: a JSON object of indices and values for each text.")
@click.option(
    "--multi-vector", is_flag=True, help="A vector for each token (ColBERT): a JSON array of arrays for each text."
)
@click.option(
    "--kind",
    type=click.Choice(TEXT_KINDS),
    help="With --multi-vector: what the texts are, for a model that treats queries and documents in ways of their own.",
)
@click.option("--prompt", metavar="TEXT", help="Put this before every text.")
@click.option("--prompt-name", metavar="NAME", help="Put the model's prompt of this name before every text.")
@click.option(
    "--dimensions", type=int, help="Keep the first so many numbers of a vector; one of length 1 is scaled to it again."
)
@click.option(
    "--normalize/--no-normalize", default=None, help="Scale vectors to length 1 or do not [default: as the model]."
)
@text_options
@ONNX_FILE
@running_options
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
    **running: Unpack[Running],
) -> None:
    """Turn texts into vectors with MODEL, a folder that `onnxembed export` wrote or a hub repository with its files.

    \b
    onnxembed embed my-model-onnx "a text" "another text"
    onnxembed embed my-model-onnx texts.txt -o vectors.npy
    onnxembed embed my-model-onnx documents.jsonl --field body -o vectors.npy
    cat texts.txt | onnxembed embed my-model-onnx - > vectors.jsonl
    onnxembed embed my-splade-onnx --sparse "a text"
    onnxembed embed my-colbert-onnx --multi-vector --kind query "a question"

    Texts are arguments, the lines of a .txt file, a field of the lines of a .jsonl file, or the lines of
    standard input (-). Vectors keep the order of the texts: a row of the .npy file, or a line of JSON, each.
    Before a text that begins with - stands -- alone.
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
        raise UsageError("--sparse and --multi-vector: one of the two at a time")
    if (sparse or multi_vector) and (dimensions is not None or normalize is not None):
        raise UsageError("--dimensions and --normalize are for dense vectors, not for --sparse and --multi-vector")
    if kind is not None and not multi_vector:
        raise UsageError("--kind goes with --multi-vector; --prompt-name puts a prompt before texts")
    if output is not None and (sparse or multi_vector):
        check_vector_file(output, LINE_FILES, "sparse embeddings" if sparse else "vectors of tokens")
    elif output is not None:
        check_vector_file(output)
    with (
        opened(texts, field, jsonl) as source,
        OnnxEmbedder(model, onnx_file=onnx_file, **running) as embedder,
    ):
        prompts: dict[str, str | None] = {"prompt": prompt, "prompt_name": prompt_name}
        found: Iterator[Any]
        line: Callable[[Any], bytes]
        if sparse:
            found, line = embedder.embed_sparse(source, **prompts), sparse_line
        elif multi_vector:
            found, line = embedder.embed_multi_vector(source, kind=kind, **prompts), matrix_line
        else:
            vectors = embedder.embed(source, **prompts, dimensions=dimensions, normalize=normalize)
            found, line = vectors, vector_line
        # On a terminal that shows the embeddings themselves, a bar would stand between them.
        with counter(found, "embedding", "text", hidden=output is None and sys.stdout.isatty()) as counted:
            if output is None:
                stream_lines(sys.stdout.buffer, map(line, counted))
                sys.stdout.buffer.flush()
            elif output.suffix == ".npy":
                write_npy(output, counted, dimensions or embedder.dimension)
            else:
                write_lines(output, map(line, counted))
