"""Vectors of a job -> a database, part by part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from onnxembed.bulk.arrow import pa, pq
from onnxembed.bulk.job import JOB_FILE, SUMMARY_FILE, write_json
from onnxembed.bulk.making import fixed_lists, vectors_of
from onnxembed.bulk.parts import JOB_FOLDER
from onnxembed.bulk.stores.store import SIMILARITIES, Collection, Store, Target, parse_target
from onnxembed.errors import OnnxEmbedError, UsageError

STORES: Mapping[str, tuple[str, str]] = {
    "lancedb": ("lancedb", "LanceDb"),
    "qdrant": ("qdrant", "Qdrant"),
    "postgres": ("postgres", "Postgres"),
    "postgresql": ("postgres", "Postgres"),
    "milvus": ("milvus", "Milvus"),
    "chroma": ("chroma", "Chroma"),
}
"""The module and the class of the store of each scheme."""

BATCH = 4096
"""Rows that are given to a store at a time."""


@dataclass(frozen=True)
class Loaded:
    """What came of loading."""

    target: Target
    rows: int
    """The rows of the job."""
    written: int
    """The rows that were written now; the others had been written by an earlier run."""
    count: int
    """The rows that the collection has now."""


def load(output: Path, uri: str, advance: Callable[[int, int], None], *, batch: int = BATCH) -> Loaded:
    """Load the vectors of a finished job into a collection; one whose id is there is replaced.

    The collection is made if it is not there, with the dimension and the similarity of the vectors. What is finished is
    remembered in the job's folder, part by part. `advance` is told how many rows are written, of how many.

    Raises UsageError for a job that is not finished or has lost a part, for vectors that are not dense floats, for a
    URI of no known store, and for a collection of another space.
    """
    target = parse_target(uri)
    if target.scheme not in STORES:
        raise UsageError(f"{target.shown} names no known store; known are {', '.join(STORES)}")
    vectors = _finished_job(output)
    parts = _all_parts(output)
    collection = _collection(target, vectors, parts[0])
    with _naming_store(target):
        module, name = STORES[target.scheme]
        store: Store = getattr(import_module(f"onnxembed.bulk.stores.{module}"), name)(target)
        with _closed(store):
            return _load(output, store, collection, parts, advance, target=target, batch=batch)


@contextmanager
def _naming_store(target: Target) -> Iterator[None]:
    """Turn every error of a database and its client into UsageError that names the database."""
    try:
        yield
    except OnnxEmbedError:
        raise
    except Exception as error:
        cause = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise UsageError(f"{target.shown}: {cause}") from error


@contextmanager
def _closed(store: Store) -> Iterator[None]:
    """Close the store at the end. Where something failed, that is the error, and not what closing says of it."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            store.close()
        raise
    store.close()


def _finished_job(output: Path) -> dict[str, Any]:
    """What the vectors of a job are; UsageError for a job that cannot be loaded."""
    own = output / JOB_FOLDER
    if not (own / JOB_FILE).is_file():
        raise UsageError(f"{output} has no job of onnxembed embed")
    if not (own / SUMMARY_FILE).is_file():
        raise UsageError(f"the job of {output} is not finished: run its command again")
    vectors: dict[str, Any] = json.loads((own / JOB_FILE).read_text(encoding="utf-8"))["vectors"]
    if vectors["task"] != "embedding" or vectors["dtype"] not in ("float32", "float16"):
        what = vectors["task"] if vectors["task"] != "embedding" else f"{vectors['dtype']} vectors"
        raise UsageError(f"{output} holds {what}; a store takes dense vectors of float32 or float16")
    if vectors["similarity"] not in SIMILARITIES:
        raise UsageError(f"the vectors of {output} are compared by {vectors['similarity']}, which no store has")
    return vectors


def _all_parts(output: Path) -> list[Path]:
    """The parts of a finished job; UsageError if there are none, or some were lost since."""
    parts = sorted(output.glob("part-*.parquet"))
    finished = json.loads((output / JOB_FOLDER / SUMMARY_FILE).read_text(encoding="utf-8"))["parts"]
    if len(parts) != finished:
        raise UsageError(f"{output} has {len(parts)} of the {finished} parts of its job: run its command again")
    if not parts:
        raise UsageError(f"{output} has no vectors")
    return parts


def _collection(target: Target, vectors: dict[str, Any], part: Path) -> Collection:
    schema = pq.read_schema(part).remove_metadata()
    kept = [field for field in schema if field.name not in ("vector", "token_count", "truncated")]
    fields = [*kept, pa.field("vector", pa.list_(pa.float32(), vectors["dimensions"]))]
    return Collection(target.name, vectors["dimensions"], vectors["similarity"], vectors, pa.schema(fields))


def _load(
    output: Path,
    store: Store,
    collection: Collection,
    parts: list[Path],
    advance: Callable[[int, int], None],
    *,
    target: Target,
    batch: int,
) -> Loaded:
    record = output / JOB_FOLDER / f"loaded-{hashlib.sha256(target.shown.encode()).hexdigest()[:12]}.json"
    which = store.begin(collection)
    done = _loaded_parts(record, which) if which and store.count() else 0
    counts = [pq.read_metadata(part).num_rows for part in parts]
    rows, written = sum(counts), sum(counts[:done])
    before = written
    for number, part in enumerate(parts[done:], start=done + 1):
        for rows_of_part in pq.ParquetFile(part).iter_batches(batch, columns=collection.schema.names):
            store.upsert(_as_float32(_last_of_each_id(pa.table(rows_of_part)), collection.schema))
            written += len(rows_of_part)
            advance(written, rows)
        write_json(record, {"collection": which, "parts": number}, output)
    return Loaded(target, rows, written - before, store.count())


def _last_of_each_id(rows: pa.Table) -> pa.Table:
    """The rows without those whose id comes again: stores do different things with them, and some keep both."""
    places = {id: place for place, id in enumerate(rows["id"].to_pylist())}
    return rows if len(places) == len(rows) else rows.take(pa.array(sorted(places.values())))


def _as_float32(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows in the columns of the collection; float16 vectors become float32."""
    place = rows.schema.get_field_index("vector")
    if rows["vector"].type.value_type != pa.float32():
        rows = rows.set_column(place, "vector", fixed_lists(vectors_of(rows["vector"]).astype(np.float32)))
    return rows.select(schema.names).cast(schema)


def _loaded_parts(record: Path, which: str) -> int:
    """How many parts an earlier run has loaded into this collection, and not into one that had its name before."""
    found = json.loads(record.read_text()) if record.is_file() else {}
    return int(found["parts"]) if found.get("collection") == which else 0
