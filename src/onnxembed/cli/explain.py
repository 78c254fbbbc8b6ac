"""`onnxembed explain`: say why somebody else's vectors or scores are not the model's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from onnxembed.cli.options import PATH, RunOptions, options, run_options
from onnxembed.cli.texts import open_texts
from onnxembed.errors import UsageError
from onnxembed.manifest import POOLING_MODES

if TYPE_CHECKING:
    from onnxembed.explain import Theirs
    from onnxembed.explain.live import Kind

system_options = options(
    click.option("--tei", metavar="URL", help="Ask a text-embeddings-inference server (/embed, /rerank)."),
    click.option("--openai", metavar="URL", help="Ask a server with OpenAI's /v1/embeddings, such as vLLM."),
    click.option("--fastembed", metavar="NAME", help="Ask FastEmbed for its model NAME; NAME=FOLDER names its files."),
    click.option("--sentence-transformers", metavar="NAME", help="Ask sentence-transformers for a model or folder."),
    click.option("--transformers", metavar="NAME", help="Ask plain transformers for a model or folder."),
    click.option(
        "--pooling",
        type=click.Choice(POOLING_MODES),
        default="mean",
        show_default=True,
        help="How --transformers pools.",
    ),
    click.option("--no-normalize", is_flag=True, help="Leave the vectors of --transformers as they are."),
)


@click.command(short_help="Say why somebody else's vectors differ.")
@click.argument("model")
@click.argument("theirs", type=PATH, required=False)
@system_options
@click.option("--texts", type=PATH, metavar="FILE", help="The .txt or .jsonl file of the texts [default: built-in].")
@click.option("--prompt", metavar="TEXT", help="The prompt that should stand before every text.")
@click.option("--prompt-name", metavar="NAME", help="The name of the model's prompt that should stand there.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--html", type=PATH, metavar="FILE", help="Also write the report as one page for a browser.")
@run_options
def explain(
    *,
    model: str,
    theirs: Path | None,
    tei: str | None,
    openai: str | None,
    fastembed: str | None,
    sentence_transformers: str | None,
    transformers: str | None,
    pooling: str,
    no_normalize: bool,
    texts: Path | None,
    prompt: str | None,
    prompt_name: str | None,
    as_json: bool,
    html: Path | None,
    **arguments: Unpack[RunOptions],
) -> None:
    """Say why the vectors in THEIRS, which another program made, are not those of MODEL.

    \b
    onnxembed explain my-model-onnx theirs.npy --texts texts.txt
    onnxembed explain my-model-onnx theirs.jsonl --json
    onnxembed explain my-model-onnx --tei http://localhost:8080 --html report.html

    Each line of a .jsonl file has a text and its vector, in the fields text and vector (or embedding). Instead of a
    file, another system is asked. Of a reranker it is scores: lines have the fields query, document and score.

    Ways to make vectors otherwise (another pooling, length, prompt, ...) are tried, singly and in pairs. A cause is
    named only if it reproduces every vector, with a cosine of at least 0.9999. Exit code 1 if the vectors differ.
    """
    from onnxembed.cli import CHECK_FAILED
    from onnxembed.explain import System, explain_given, explain_system

    named: dict[Kind, str | None] = {
        "tei": tei,
        "openai": openai,
        "fastembed": fastembed,
        "sentence-transformers": sentence_transformers,
        "transformers": transformers,
    }
    systems = [
        System(kind, name, pooling, normalize=not no_normalize) for kind, name in named.items() if name is not None
    ]
    if len(systems) + (theirs is not None) != 1:
        raise UsageError("name one thing to compare with: a file, or one of --tei, --openai, --fastembed, ...")
    if html is not None and not html.parent.is_dir():
        raise UsageError(f"--html {html}: there is no folder {html.parent}")
    if texts is not None and not texts.is_file():
        raise UsageError(f"--texts {texts}: no such file")
    if theirs is not None:
        given = _read(theirs, texts)
        report = explain_given(model, given, prompt=prompt, prompt_name=prompt_name, **arguments)
    else:
        probes = None if texts is None else _texts(texts)
        report = explain_system(model, systems[0], probes, prompt=prompt, prompt_name=prompt_name, **arguments)
    click.echo(report.to_json() if as_json else "\n".join(report.lines()), nl=not as_json)
    if html is not None:
        from onnxembed.explain.page import write_page

        write_page(report, html)
    if not report.same:
        sys.exit(CHECK_FAILED)


def _texts(file: Path) -> list[str]:
    with open_texts([str(file)]) as source:
        return list(source.texts)


def _read(theirs: Path, texts: Path | None) -> Theirs:
    from onnxembed.explain import Theirs
    from onnxembed.files.given_vectors import read_jsonl, read_npy, read_rows

    if theirs.suffix == ".jsonl":
        return Theirs(*read_jsonl(theirs)) if texts is None else Theirs(_texts(texts), read_rows(theirs))
    if theirs.suffix != ".npy":
        raise UsageError(f"{theirs} is neither a .npy nor a .jsonl file")
    if texts is None:
        raise UsageError(f"{theirs} has no texts: name their file with --texts")
    return Theirs(_texts(texts), read_npy(theirs))
