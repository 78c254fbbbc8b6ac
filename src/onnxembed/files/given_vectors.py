"""Vectors or scores that another program wrote, from .npy and .jsonl files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from onnxembed.arrays import Array
from onnxembed.errors import UsageError

FIELDS = ("vector", "embedding", "score")
"""The fields of a JSON line that may hold the numbers."""


def read_npy(path: Path) -> Array:
    """The array of a .npy file. Raises UsageError for a file that is not one."""
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UsageError(f"{path} is not a .npy file of numbers: {error}") from None
    return array


def read_jsonl(path: Path, field: str = "text") -> tuple[list[Any], Array]:
    """The items of `field` in each JSON line, and their numbers. Raises UsageError that names the line."""
    items: list[Any] = []
    rows: list[Any] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path}, line {number}: not JSON ({error})") from None
        key = next((name for name in FIELDS if isinstance(entry, dict) and name in entry), None)
        if key is None or not isinstance(entry.get(field), str):
            raise UsageError(f"{path}, line {number}: needs {field!r}, and one of {', '.join(FIELDS)}")
        items.append(entry[field])
        rows.append(entry[key])
        if np.shape(rows[-1]) != np.shape(rows[0]):
            raise UsageError(f"{path}, line {number}: {key!r} has another length than in the first line")
    return items, np.array(rows)
