"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

PATH = click.Path(path_type=Path)

REVISION = click.option("--revision", help="Branch, tag or commit of a hub model.")
ONNX_FILE = click.option(
    "--onnx-file",
    metavar="NAME",
    help="Of a model whose graph something else made: the graph [default: onnx/model.onnx, then model.onnx].",
)
CACHE_OPTIONS = (
    click.option(
        "--cache-dir", type=PATH, metavar="DIR", help="Where hub files are kept [default: the hub client's cache]."
    ),
    click.option("--offline", is_flag=True, help="Never ask the hub; use what is in the cache."),
)

Command = Callable[..., None]


def cache_options(command: Command) -> Command:
    """The options of every command that may download."""
    for option in reversed(CACHE_OPTIONS):
        command = option(command)
    return command
