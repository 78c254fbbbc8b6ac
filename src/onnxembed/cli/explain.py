"""`onnxembed explain`: say why somebody else's vectors are not the model's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Unpack

import click

from onnxembed.cli.options import PATH, RunOptions, run_options
from onnxembed.cli.texts import open_texts
from onnxembed.errors import UsageError


@click.command(short_help="Say why somebody else's vectors differ.")
@click.argument("model")
@click.argument("theirs", type=PATH)
@click.option("--texts", type=PATH, metavar="FILE", help="The .txt or .jsonl file of the texts of a .npy file.")
@click.option("--prompt", metavar="TEXT", help="The prompt that should stand before every text.")
@click.option("--prompt-name", metavar="NAME", help="The name of the model's prompt that should stand there.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@run_options
def explain(
    *,
    model: str,
    theirs: Path,
    texts: Path | None,
    prompt: str | None,
    prompt_name: str | None,
    as_json: bool,
    **arguments: Unpack[RunOptions],
) -> None:
    """Say why the vectors in THEIRS, which another program made, are not those of MODEL.

    \b
    onnxembed explain my-model-onnx theirs.npy --texts texts.txt
    onnxembed explain my-model-onnx theirs.jsonl --json

    Each line of a .jsonl file has a text and its vector, in the fields text and vector (or embedding). Ways to make
    vectors otherwise (another pooling, length, prompt, ...) are tried, singly and in pairs. A cause is named only if
    it reproduces every vector, with a cosine of at least 0.9999. Exit code 1 if the vectors differ.
    """
    from onnxembed.cli import CHECK_FAILED
    from onnxembed.embedder import OnnxEmbedder
    from onnxembed.explain import explain as run
    from onnxembed.files.given_vectors import read_jsonl, read_npy

    if theirs.suffix == ".jsonl":
        if texts is not None:
            raise UsageError("--texts is for a .npy file: each line of a .jsonl file has its text")
        given, vectors = read_jsonl(theirs)
    elif theirs.suffix == ".npy":
        if texts is None:
            raise UsageError(f"{theirs} has no texts: name their file with --texts")
        vectors = read_npy(theirs)
        with open_texts([str(texts)]) as source:
            given = list(source.texts)
    else:
        raise UsageError(f"{theirs} is neither a .npy nor a .jsonl file")
    with OnnxEmbedder(model, **arguments) as embedder:
        report = run(embedder, given, vectors, prompt=prompt, prompt_name=prompt_name)
    click.echo(report.to_json() if as_json else "\n".join(report.lines()))
    if not report.same:
        sys.exit(CHECK_FAILED)
