"""JSON files of a model. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxembed.errors import ModelFilesError

JsonObject = Mapping[str, Any]


def read_json(path: Path) -> JsonObject:
    """Read a JSON object from a file; ModelFilesError if it is absent or not a JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFilesError(f"{path.parent} has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise ModelFilesError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelFilesError(f"{path} is not a JSON object")
    return value


def read_optional_json(path: Path) -> JsonObject:
    """Read a JSON object from a file; an empty one if there is no file."""
    return read_json(path) if path.is_file() else {}


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
