"""`onnxembed embed`: turn texts into vectors."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from onnxembed.cli.options import PATH, REVISION, cache_options
from onnxembed.cli.texts import opened
from onnxembed.manifest import PRECISIONS


@click.command(short_help="Turn texts into vectors.")
@click.argument("model")
@click.argument("texts", nargs=-1, metavar="[TEXT ... | FILE.txt | FILE.jsonl | -]")
@click.option(
    "-o", "--output", type=PATH, metavar="FILE", help="Write vectors to a .npy or .jsonl file [default: print them]."
)
@click.option("--jsonl", is_flag=True, help="The file or standard input is JSON lines, whatever its name.")
@click.option(
    "--field", default="text", show_default=True, metavar="NAME", help="The field of a JSON line that is the text."
)
@click.option("--prompt", metavar="TEXT", help="Put this before every text.")
@click.option("--prompt-name", metavar="NAME", help="Put the model's prompt of this name before every text.")
@click.option(
    "--dimensions", type=int, help="Keep the first so many numbers of a vector; one of length 1 is scaled to it again."
)
@click.option(
    "--normalize/--no-normalize", default=None, help="Scale vectors to length 1 or do not [default: as the model]."
)
@click.option("--max-length", type=int, help="Cut texts to this many tokens [default: the model's limit].")
@click.option(
    "--precision",
    type=click.Choice(["auto", *PRECISIONS]),
    default="auto",
    show_default=True,
    help="The graph to run; auto is fp32 where there is one.",
)
@click.option(
    "--provider",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="auto (CUDA where it can be used), cpu, cuda, or ONNX Runtime's name of a provider.",
)
@click.option("--threads", type=int, help="CPU threads [default: all that this process may use].")
@REVISION
@cache_options
def embed(
    *,
    model: str,
    texts: tuple[str, ...],
    output: Path | None,
    jsonl: bool,
    field: str,
    prompt: str | None,
    prompt_name: str | None,
    dimensions: int | None,
    normalize: bool | None,
    max_length: int | None,
    precision: str,
    provider: str,
    threads: int | None,
    revision: str | None,
    cache_dir: Path | None,
    offline: bool,
) -> None:
    """Turn texts into vectors with MODEL, a folder that `onnxembed export` wrote or a hub repository with its files.

    \b
    onnxembed embed my-model-onnx "a text" "another text"
    onnxembed embed my-model-onnx texts.txt -o vectors.npy
    onnxembed embed my-model-onnx documents.jsonl --field body -o vectors.npy
    cat texts.txt | onnxembed embed my-model-onnx - > vectors.jsonl

    Texts are arguments, the lines of a .txt file, a field of the lines of a .jsonl file, or the lines of
    standard input (-). Vectors keep the order of the texts: a row of the .npy file, or a line of JSON, each.
    """
    from onnxembed.embedder import OnnxEmbedder
    from onnxembed.files import check_vector_file, write_jsonl, write_vectors
    from onnxembed.progress import counter

    if output is not None:
        check_vector_file(output)
    with (
        opened(texts, field, jsonl) as source,
        OnnxEmbedder(
            model,
            precision=precision,  # type: ignore[arg-type]  # click has checked the choice
            providers=provider,
            threads=threads,
            max_length=max_length,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=offline,
        ) as embedder,
    ):
        vectors = embedder.embed(
            source, prompt=prompt, prompt_name=prompt_name, dimensions=dimensions, normalize=normalize
        )
        # On a terminal that shows the vectors themselves, a bar would stand between them.
        with counter(vectors, "embedding", "text", hidden=output is None and sys.stdout.isatty()) as counted:
            if output is None:
                write_jsonl(sys.stdout.buffer, counted)
                sys.stdout.buffer.flush()
            else:
                write_vectors(output, counted, dimensions or embedder.dimension)
