"""Vectors or scores that another program wrote, from .npy and .jsonl files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxembed.arrays import Array
from onnxembed.errors import UsageError
from onnxembed.json_file import json_problem

FIELDS = ("vector", "embedding", "score")
"""The fields of a JSON line that may hold the numbers."""


def read_npy(path: Path) -> Array:
    """The array of a .npy file. Raises UsageError for a file that is not one."""
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError):  # which advise to load it in an unsafe way
        raise UsageError(f"{path} is not a .npy file of numbers, or is damaged") from None
    return array


def read_jsonl(path: Path) -> tuple[list[Any], Array]:
    """The text of each JSON line, or its pair of query and document, and the numbers beside it.

    Raises UsageError that names the line.
    """
    items: list[Any] = []
    rows: list[Any] = []
    for number, entry in _entries(path):
        item, numbers = _read(entry)
        if item is None or numbers is None:
            raise UsageError(
                f"{path}, line {number}: needs 'text', or 'query' and 'document', and one of {_NAMED}"
                + ("; for arrays alone, name their texts with --texts" if isinstance(entry, list) else "")
            )
        if items and isinstance(item, str) is not isinstance(items[0], str):
            raise UsageError(f"{path}, line {number}: some lines are texts and others are pairs")
        items.append(item)
        rows.append(numbers)
        _check_length(path, number, rows)
    return items, np.array(rows)


def read_rows(path: Path) -> Array:
    """The numbers of a file whose lines are arrays alone, as `onnxembed embed -o FILE.jsonl` writes them.

    Raises UsageError that names the line.
    """
    rows: list[Any] = []
    for number, entry in _entries(path):
        if not isinstance(entry, list):
            raise UsageError(
                f"{path}, line {number}: no array of numbers; leave out --texts for lines with their texts"
            )
        rows.append(entry)
        _check_length(path, number, rows)
    return np.array(rows)


def _entries(path: Path) -> Iterator[tuple[int, Any]]:
    """The number of each line that has something, and what it says; UsageError for a file without any."""
    lines = [(number, line) for number, line in enumerate(path.read_bytes().splitlines(), start=1) if line.strip()]
    if not lines:
        raise UsageError(f"{path} is empty")
    for number, line in lines:
        try:
            yield number, json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path}, line {number}: not JSON ({json_problem(error)})") from None


def _check_length(path: Path, number: int, rows: Sequence[Any]) -> None:
    if np.shape(rows[-1]) != np.shape(rows[0]):
        raise UsageError(f"{path}, line {number}: its numbers have another length than those of the first line")


_NAMED = ", ".join(FIELDS)


def _read(entry: Any) -> tuple[str | tuple[str, str] | None, Any]:
    """The text or pair of a line, and its numbers; None for what it lacks."""
    if not isinstance(entry, dict):
        return None, None
    numbers = next((entry[name] for name in FIELDS if name in entry), None)
    text, query, document = (entry.get(name) for name in ("text", "query", "document"))
    if isinstance(query, str) and isinstance(document, str):
        return (query, document), numbers
    return (text if isinstance(text, str) else None), numbers
