"""JSON files of a model. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxembed.errors import ModelFilesError
from onnxembed.foreign_errors import foreign_errors

JsonObject = Mapping[str, Any]


MAX_JSON = 1 << 30
"""The largest JSON file that is read, in bytes: tokenizer.json of the largest vocabularies has a twentieth of it."""

LFS_POINTER = "version https://git-lfs"
"""How a file begins that stands for one that git-lfs has not fetched."""


def read_any_json(path: Path) -> Any:
    """Read a JSON file of any kind; ModelFilesError if it is absent, not a plain file, or not JSON.

    Texts with half of a surrogate pair, which JSON can write, are refused: no file and no tokenizer can hold them.
    """
    if path.is_symlink() and not path.exists():
        raise ModelFilesError(f"{path} is a link to a file that is gone: copy or download the model again")
    if not path.exists():
        raise ModelFilesError(f"{path.parent} has no {path.name}")
    if not path.is_file() or path.stat().st_size > MAX_JSON:
        raise ModelFilesError(f"{path} is not a plain file of at most {MAX_JSON:,} bytes")
    with foreign_errors(f"{path} is not readable JSON"):
        text = path.read_text(encoding="utf-8")
        if text.startswith(LFS_POINTER):
            raise ModelFilesError(f"{path} is a git-lfs pointer, not the file itself; fetch it with: git lfs pull")
        value = json.loads(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value


def read_json(path: Path) -> JsonObject:
    """Read a JSON object from a file; ModelFilesError if it is absent or not a JSON object."""
    value = read_any_json(path)
    if not isinstance(value, dict):
        raise ModelFilesError(f"{path} is not a JSON object")
    return value


def read_optional_json(path: Path) -> JsonObject:
    """Read a JSON object from a file; an empty one if there is no file, as opposed to a link to one that is gone."""
    return read_json(path) if path.is_file() or path.is_symlink() else {}


def json_problem(error: Exception) -> str:
    """Why one line is not JSON, in a few words."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.removesuffix(' starting at')} at column {error.colno}"
    return str(error)[:100]


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
