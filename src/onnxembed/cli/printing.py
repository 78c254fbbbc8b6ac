"""What `--json` prints: one JSON document, for programs."""

from __future__ import annotations

import click

from onnxembed.commands.result import as_json


def print_json(document: object) -> None:
    """Print a result, or a document of dictionaries, lists, dataclasses and paths, as JSON."""
    click.echo(as_json(document).encode())  # bytes: a terminal's own encoding is not JSON's
