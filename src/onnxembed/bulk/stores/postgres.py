"""PostgreSQL with pgvector: postgres://USER@HOST/DATABASE/TABLE."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from onnxembed.arrays import FloatArray
from onnxembed.bulk.arrow import pa
from onnxembed.bulk.making import vectors_of
from onnxembed.bulk.stores.store import MARK, Collection, Target, require

TYPES: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pa.types.is_boolean, "bool"),
    (pa.types.is_integer, "int8"),
    (pa.types.is_floating, "float8"),
    (pa.types.is_string, "text"),
    (lambda kind: pa.types.is_timestamp(kind) and kind.tz is None, "timestamp"),
    (pa.types.is_timestamp, "timestamptz"),
    (pa.types.is_date, "date"),
)
"""The types of columns; values of other types are stored as JSON."""

# What JSON has no form for, such as a date in a list, is stored as a string.
_JSON = partial(json.dumps, default=str)


class Postgres:
    """A table with a vector column. Rows are copied to a table of the session, and merged from there by their ids."""

    def __init__(self, target: Target) -> None:
        psycopg: Any = require("psycopg", "'psycopg[binary]'")
        self._sql = psycopg.sql
        self._as_json = partial(require("psycopg.types.json", "'psycopg[binary]'").Jsonb, dumps=_JSON)
        parts = urlsplit(target.uri)
        query = f"?{parts.query}" if parts.query else ""
        database = f"postgresql://{parts.netloc}{target.path}{query}"
        self._connection = psycopg.connect(database)

    def begin(self, collection: Collection) -> str | None:
        """Make the table, or check the one that is there; returns which one it is."""
        self._collection, self._staging = collection, f"{collection.name}_staging"
        self._types = {field.name: _type(field.type, collection.dimension, field.name) for field in collection.schema}
        with self._connection.transaction(), closing(self._connection.cursor()) as cursor:
            cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
            cursor.execute("SELECT obj_description(to_regclass(%s)), to_regclass(%s)", [f'"{collection.name}"'] * 2)
            comment, there = cursor.fetchone()
            if there is not None:
                mark = (comment or "").removeprefix(f"{MARK} ")
                which = collection.check(mark if comment and comment.startswith(f"{MARK} ") else None)
            else:
                which = collection.made
                cursor.execute(self._create(collection.name, "TABLE", key=True))
                comment = self._sql.SQL("COMMENT ON TABLE {} IS {}").format(
                    self._sql.Identifier(collection.name), self._sql.Literal(f"{MARK} {collection.mark}")
                )
                cursor.execute(comment)
            cursor.execute(self._create(self._staging, "TEMPORARY TABLE", key=False))
        return which

    def _create(self, name: str, what: str, *, key: bool) -> Any:
        sql = self._sql
        columns = [
            sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(kind)) for column, kind in self._types.items()
        ]
        if key:
            columns.append(sql.SQL("PRIMARY KEY (id)"))
        return sql.SQL("CREATE {} {} ({})").format(sql.SQL(what), sql.Identifier(name), sql.SQL(", ").join(columns))

    def upsert(self, rows: pa.Table) -> None:
        """Copy rows to the session's table and merge them."""
        sql = self._sql
        names = sql.SQL(", ").join(map(sql.Identifier, self._types))
        updates = sql.SQL(", ").join(
            sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name)) for name in self._types if name != "id"
        )
        staging, table = sql.Identifier(self._staging), sql.Identifier(self._collection.name)
        with self._connection.transaction(), closing(self._connection.cursor()) as cursor:
            with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(staging, names)) as copy:
                copy.set_types(["bytea" if name == "vector" else kind for name, kind in self._types.items()])
                for row in self._rows(rows):
                    copy.write_row(row)
            cursor.execute(
                sql.SQL(
                    "INSERT INTO {table} ({names}) "
                    "SELECT {names} FROM {staging} "
                    "ON CONFLICT (id) DO UPDATE SET {updates}"
                ).format(table=table, names=names, staging=staging, updates=updates)
            )
            cursor.execute(sql.SQL("TRUNCATE {}").format(staging))

    def _rows(self, rows: pa.Table) -> Iterator[tuple[Any, ...]]:
        """The values of each row, in the order of the columns."""
        columns: list[Any] = []
        for name, kind in self._types.items():
            if name == "vector":
                columns.append(map(bytes, binary_vectors(vectors_of(rows[name]))))
            elif kind == "jsonb":
                columns.append(value if value is None else self._as_json(value) for value in rows[name].to_pylist())
            else:
                columns.append(rows[name].to_pylist())
        return zip(*columns, strict=True)

    def count(self) -> int:
        """How many rows the table has."""
        query = self._sql.SQL("SELECT count(*) FROM {}").format(self._sql.Identifier(self._collection.name))
        with closing(self._connection.cursor()) as cursor:
            (count,) = cursor.execute(query).fetchone()
        return int(count)

    def close(self) -> None:
        """Close the connection."""
        self._connection.commit()
        self._connection.close()


def binary_vectors(vectors: FloatArray) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """What pgvector's vector_recv reads for each vector, uint8 [N, 4 + 4 D]: D and 0 as int16, then the numbers.

    All are big-endian.
    """
    count, dimension = vectors.shape
    rows = np.zeros((count, 4 + 4 * dimension), np.uint8)
    rows[:, :4] = np.frombuffer(np.array([dimension, 0], ">i2").tobytes(), np.uint8)
    rows[:, 4:] = np.ascontiguousarray(vectors, ">f4").view(np.uint8)
    return rows


def _type(kind: pa.DataType, dimension: int, name: str) -> str:
    if name == "vector":
        return f"vector({dimension})"
    return next((own for matches, own in TYPES if matches(kind)), "jsonb")
