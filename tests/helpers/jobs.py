"""Inputs of bulk jobs, those who watch them, and what they leave."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Embed = Callable[..., Any]
"""The fixture that runs a job."""


class Silent:
    """Watches a job and keeps what it is told."""

    def __init__(self) -> None:
        self.texts = 0
        self.shares: list[float] = []

    def stage(self, name: str, done: int, total: int) -> None:
        assert done <= total, name

    def begin(self, share: float, done: Any) -> None:
        self.shares.append(share)

    def advance(self, texts: int, share: float) -> None:
        self.texts += texts
        self.shares.append(share)


class StopError(Exception):
    pass


class Stopping:
    """Stops a job after some windows."""

    def __init__(self, after: int) -> None:
        self.left = after

    def stage(self, name: str, done: int, total: int) -> None: ...

    def begin(self, share: float, done: Any) -> None: ...

    def advance(self, texts: int, share: float) -> None:
        self.left -= 1
        if self.left < 0:
            raise StopError


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of every file of a finished job."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def write(path: Path, texts: list[str]) -> None:
    table = pa.table({"id": [f"{i:03}" for i in range(len(texts))], "text": texts, "year": list(range(len(texts)))})
    kind = path.name.partition(".")[2].removesuffix(".gz").removesuffix(".zst")
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=2)
        return
    rows = table.to_pylist()
    if kind == "csv":
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, table.column_names)
        writer.writeheader()
        writer.writerows(rows)
        data = buffer.getvalue().encode()
    elif kind == "jsonl":
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    else:
        data = "".join(text + "\n" for text in texts).encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
