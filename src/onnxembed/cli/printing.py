"""What commands print: lines that fit a terminal, in color where one shows it, and JSON for programs."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from typing import IO

import click

from onnxembed.commands.result import as_json
from onnxembed.manifest import Manifest


def show(line: str, *, hang: int = 0, color: str | None = None) -> None:
    """Print a line; on a terminal it is wrapped at the terminal's width, and pipes and files get it whole.

    `hang` is the width of the line's first column, below which wrapped lines begin; what stands in it is bold.
    """
    if not sys.stdout.isatty():
        click.echo(line)
        return
    first, *rest = wrapped(line, columns(), hang) or [""]
    if color:
        first, rest = colored(first, color), [colored(part, color) for part in rest]
    elif hang and not first.startswith(" "):
        name, gap, text = first[:hang].rstrip(), first[:hang][len(first[:hang].rstrip()) :], first[hang:]
        first = f"{colored(name, None)}{gap}{text}"
    for part in (first, *rest):
        click.echo(part)


def show_decisions(manifest: Manifest) -> None:
    """Print a manifest's decisions, those of flags against the model's own files first."""
    from onnxembed.manifest.describe import NAME_WIDTH, decisions, describe_overruled

    for line in describe_overruled(manifest):
        show(line, color="yellow")
    for name, value in decisions(manifest):
        show(f"{name:<{NAME_WIDTH}} {value}", hang=NAME_WIDTH + 1)


def wrapped(line: str, width: int, hang: int) -> list[str]:
    """A line in lines of at most `width`, words whole; the later ones begin at `hang`, or a little after the first."""
    indent = hang or len(line) - len(line.lstrip()) + 2
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )


def columns() -> int:
    """The width of the terminal, or what COLUMNS says."""
    return shutil.get_terminal_size().columns


def colored(text: str, color: str | None, stream: IO[str] | None = None) -> str:
    """A text in a color, or bold; as it is where the stream is no terminal, or the user wants none (NO_COLOR)."""
    stream = stream or sys.stdout
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return click.style(text, fg=color, bold=color is None)


def print_json(document: object) -> None:
    """Print a result, or a document of dictionaries, lists, dataclasses and paths, as JSON."""
    click.echo(as_json(document).encode())  # bytes: a terminal's own encoding is not JSON's
