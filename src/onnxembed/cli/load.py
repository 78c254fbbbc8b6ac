"""`onnxembed load`: vectors of a job into a database."""

from __future__ import annotations

from pathlib import Path

import click

from onnxembed.cli.options import PATH
from onnxembed.counting import counted


@click.command(short_help="Load the vectors of a job into a database.")
@click.argument("output", metavar="DIR", type=PATH)
@click.option("--to", "uri", required=True, metavar="URI", help="The database and the collection.")
def load(*, output: Path, uri: str) -> None:
    """Load the vectors that `onnxembed embed` wrote to DIR into a collection of a database.

    \b
    onnxembed load vectors/ --to lancedb:db/docs
    onnxembed load vectors/ --to qdrant://localhost:6333/docs
    onnxembed load vectors/ --to postgres://me@localhost/mydb/docs
    onnxembed load vectors/ --to milvus://localhost:19530/docs
    onnxembed load vectors/ --to chroma://localhost:8000/docs

    A collection that is not there is made, with the right dimension and similarity. A vector whose id is there
    replaces the old one, so loading again changes nothing. A collection of another vector space is refused.
    Without a host, LanceDB, Qdrant, Milvus Lite and Chroma keep files: qdrant:FOLDER/docs.
    """
    from onnxembed.bulk.load import load as load_vectors
    from onnxembed.cli.progress import ProgressLine

    with ProgressLine() as line:
        loaded = load_vectors(output, uri, lambda done, total: line("loading", done, total))
    there = f", {loaded.rows - loaded.written:,} were there already" if loaded.written < loaded.rows else ""
    click.echo(
        f"{loaded.target.shown}: {counted(loaded.written, 'row')} written{there}; the collection has {loaded.count:,}"
    )
    if loaded.count < loaded.rows:
        fewer = loaded.rows - loaded.count
        click.echo(f"{fewer:,} fewer than the job has rows: of one id the last row stays, or some were deleted there")
