"""`onnxembed rerank`: sort documents by how well they answer a query."""

from __future__ import annotations

import json
from pathlib import Path

import click

from onnxembed.cli.options import REVISION, cache_options
from onnxembed.cli.texts import opened
from onnxembed.manifest import PAIR_TRUNCATIONS, PRECISIONS, PairTruncation


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
@click.option("--jsonl", is_flag=True, help="The file or standard input is JSON lines, whatever its name.")
@click.option(
    "--field", default="text", show_default=True, metavar="NAME", help="The field of a JSON line that is the document."
)
@click.option("--instruction", metavar="TEXT", help="Of a model with a template: what to look for [default: its own].")
@click.option("--max-length", type=int, help="Cut pairs to this many tokens [default: the model's limit].")
@click.option(
    "--truncation",
    type=click.Choice(PAIR_TRUNCATIONS),
    help="Cut the longer of query and document, or the document alone [default: as the model].",
)
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
def rerank(
    *,
    model: str,
    documents: tuple[str, ...],
    query: str,
    top_k: int | None,
    raw_scores: bool,
    output: str,
    jsonl: bool,
    field: str,
    instruction: str | None,
    max_length: int | None,
    truncation: PairTruncation | None,
    precision: str,
    provider: str,
    threads: int | None,
    revision: str | None,
    cache_dir: Path | None,
    offline: bool,
) -> None:
    """Sort documents by how well they answer a query, with MODEL, a reranker that `onnxembed export` wrote.

    \b
    onnxembed rerank my-reranker-onnx --query "who wrote it?" "a document" "another"
    onnxembed rerank my-reranker-onnx --query "who wrote it?" documents.jsonl --field body --top-k 10
    cat documents.txt | onnxembed rerank my-reranker-onnx --query "who wrote it?" - --output json

    Documents are arguments, the lines of a .txt file, a field of the lines of a .jsonl file, or the lines of
    standard input (-). The best comes first; its index says where it stood, counted from 0.
    """
    from onnxembed.progress import counter
    from onnxembed.reranker import OnnxReranker

    with (
        opened(documents, field, jsonl) as source,
        OnnxReranker(
            model,
            precision=precision,  # type: ignore[arg-type]  # click has checked the choice
            providers=provider,
            threads=threads,
            max_length=max_length,
            truncation=truncation,
            instruction=instruction,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=offline,
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
