"""What a command returns, and the JSON of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any


class Result:
    """The base of results, which are dataclasses: its fields are the keys of the JSON."""

    def to_json(self) -> str:
        """The result as one JSON document, which `--json` prints; paths are texts."""
        return as_json(self)


def as_json(document: object) -> str:
    """A document of dictionaries, lists, dataclasses and paths as JSON.

    A path may have bytes that are not UTF-8; they are written as escapes of JSON.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    return text.encode("utf-8", "backslashreplace").decode()


def _plain(value: Any) -> object:
    """A dataclass as a dictionary, a path as its text."""
    if isinstance(value, Path):
        return str(value)
    return dataclasses.asdict(value)
