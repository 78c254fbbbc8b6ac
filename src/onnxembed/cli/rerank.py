"""`onnxembed rerank`: sort documents by how well they answer a query."""

from __future__ import annotations

import json
import sys
from typing import Unpack

import click

from onnxembed.cli.options import RunOptions, run_options, text_options
from onnxembed.cli.texts import open_texts
from onnxembed.manifest import PAIR_TRUNCATIONS, PairTruncation

FORMATS = click.Choice(["text", "json"])


@click.command(short_help="Sort documents by how well they answer a query.")
@click.argument("model")
@click.argument("documents", nargs=-1, metavar="[DOCUMENT ... | FILE.txt | FILE.jsonl | -]")
@click.option("--query", required=True, metavar="TEXT", help="The query.")
@click.option("--top-k", type=int, metavar="N", help="Print only the N best [default: all].")
@click.option("--raw-scores", is_flag=True, help="Print logits, without the model's activation.")
@click.option(
    "--format",
    "output_format",
    type=FORMATS,
    help="Print a table, or one JSON object per line with index, score and text [default: text].",
)
@click.option("--output", type=FORMATS, hidden=True, help="The former name of --format.")
@click.option(
    "--instruction",
    metavar="TEXT",
    help="What to look for, for a model with a template [default: the model's own instruction].",
)
@click.option(
    "--truncation",
    type=click.Choice(PAIR_TRUNCATIONS),
    help="Cut the longer of query and document, or only the document [default: the model's].",
)
@text_options
@run_options
def rerank(
    *,
    model: str,
    documents: tuple[str, ...],
    texts: tuple[str, ...],
    query: str,
    top_k: int | None,
    raw_scores: bool,
    output_format: str | None,
    output: str | None,
    instruction: str | None,
    truncation: PairTruncation | None,
    jsonl: bool,
    field: str | None,
    **arguments: Unpack[RunOptions],
) -> None:
    """Sort documents by how well they answer a query, with MODEL, a reranker that `onnxembed export` wrote.

    \b
    onnxembed rerank my-reranker-onnx --query "who wrote it?" "a text" "another"
    onnxembed rerank my-reranker-onnx --query "who wrote it?" texts.txt --top-k 10
    onnxembed rerank my-reranker-onnx --query "who?" - --format json < texts.txt

    Documents are arguments, the lines of a .txt file, one field of each line of a .jsonl file, or the lines of
    standard input (-). The best document comes first. Its index is its place among the documents, counted from 0.
    """
    from onnxembed.cli.printing import columns
    from onnxembed.cli.progress import counter
    from onnxembed.reranker import OnnxReranker

    with (
        open_texts(documents, field, jsonl, texts=texts) as source,
        OnnxReranker(
            model,
            truncation=truncation,
            instruction=instruction,
            **arguments,
        ) as reranker,
        counter(source.texts, "reading", "documents", total=source.total) as counted,
    ):
        ranked = reranker.rank(query, counted, top_k=top_k, return_documents=True, raw_scores=raw_scores)
    as_json = (output_format or output) == "json"
    width = columns() - 20 if sys.stdout.isatty() else 100
    for result in ranked:
        if as_json:
            values = {"index": result.index, "score": result.score, "text": result.text}
            click.echo(json.dumps(values, ensure_ascii=False))
        else:
            click.echo(f"{result.score:>10.4f}  {result.index:>6}  {_one_line(result.text or '', width)}")


def _one_line(text: str, width: int) -> str:
    """The beginning of a text, for a table."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else f"{flat[: width - 1]}…"
