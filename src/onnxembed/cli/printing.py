"""What `--json` prints: one JSON document, for programs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click


def print_json(document: object) -> None:
    """Print a document of dictionaries, lists, dataclasses and paths as JSON."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    click.echo(text.encode("utf-8", "backslashreplace"))  # bytes: a terminal's own encoding is not JSON's


def _plain(value: Any) -> object:
    """A dataclass as a dictionary, a path as its text."""
    if isinstance(value, Path):
        return str(value)
    return dataclasses.asdict(value)
