"""`onnxembed rerank`: sort documents by how well they answer a query."""

from __future__ import annotations

import json
from typing import Unpack

import click

from onnxembed.cli.options import Running, running_options, text_options
from onnxembed.cli.texts import opened
from onnxembed.manifest import PAIR_TRUNCATIONS, PairTruncation


@click.command(short_help="Sort documents by how well they answer a query.")
@click.argument("model")
@click.argument("documents", nargs=-1, metavar="[DOCUMENT ... | FILE.txt | FILE.jsonl | -]")
@click.option("--query", required=True, metavar="TEXT", help="The query.")
@click.option("--top-k", type=int, metavar="N", help="Print the best N only [default: all].")
@click.option("--raw-scores", is_flag=True, help="Print logits instead of what the model's activation makes of them.")
@click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Print a table, or a JSON object a line: index, score, text.",
)
@click.option("--instruction", metavar="TEXT", help="Of a model with a template: what to look for [default: its own].")
@click.option(
    "--truncation",
    type=click.Choice(PAIR_TRUNCATIONS),
    help="Cut the longer of query and document, or the document alone [default: as the model].",
)
@text_options
@running_options
def rerank(
    *,
    model: str,
    documents: tuple[str, ...],
    query: str,
    top_k: int | None,
    raw_scores: bool,
    output: str,
    instruction: str | None,
    truncation: PairTruncation | None,
    jsonl: bool,
    field: str | None,
    **running: Unpack[Running],
) -> None:
    """Sort documents by how well they answer a query, with MODEL, a reranker that `onnxembed export` wrote.

    \b
    onnxembed rerank my-reranker-onnx --query "who wrote it?" "a document" "another"
    onnxembed rerank my-reranker-onnx --query "who wrote it?" documents.jsonl --field body --top-k 10
    cat documents.txt | onnxembed rerank my-reranker-onnx --query "who wrote it?" - --output json

    Documents are arguments, the lines of a .txt file, a field of the lines of a .jsonl file, or the lines of
    standard input (-). The best comes first; its index says where it stood, counted from 0.
    """
    from onnxembed.cli.progress import counter
    from onnxembed.reranker import OnnxReranker

    with (
        opened(documents, field, jsonl) as source,
        OnnxReranker(
            model,
            truncation=truncation,
            instruction=instruction,
            **running,
        ) as reranker,
        counter(source, "reading", "document") as counted,
    ):
        ranked = reranker.rank(query, counted, top_k=top_k, return_documents=True, raw_scores=raw_scores)
    for result in ranked:
        if output == "json":
            click.echo(json.dumps(vars(result), ensure_ascii=False))
        else:
            click.echo(f"{result.score:>10.4f}  {result.index:>6}  {_one_line(result.text or '')}")


def _one_line(text: str, width: int = 100) -> str:
    """The beginning of a text, for a table."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else f"{flat[: width - 1]}…"
