"""Vectors into databases, and searches in them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.bulk.work import Work, json_lines
from benchmark.tasks import Collection
from onnxembed.arrays import Array
from onnxembed.bulk.load import load
from onnxembed.bulk.making import vectors_of
from postgres_server import postgres_server

FILES = ("lancedb", "qdrant", "milvus", "chroma")
"""The stores that can lie in files; PostgreSQL gets a server."""


def loading(work: Work, stores: list[str]) -> None:
    """Rows per second into each store, then once more as if nothing were known of the first time: no duplicates.

    The rows are those of the large job.
    """
    if not (work.large / "_job/summary.json").exists():
        work.job(work.parquet(work.texts), work.large)
    figures = {name: values for name, values in work.record.steps.get("load", {}).items() if name in SEARCHES}
    for store in stores:
        if store in figures:
            continue
        with at(work, store, "large") as uri:
            turns = {}
            for turn in ("first", "again"):
                for record in (work.large / "_job").glob("loaded-*.json"):
                    record.unlink()
                begun = time.perf_counter()
                loaded = load(work.large, uri, lambda done, total: None)
                turns[f"{turn}_rows_per_second"] = loaded.rows / (time.perf_counter() - begun)
            figures[store] = {"rows": loaded.rows, **turns, "rows_in_the_collection": loaded.count}
        work.record.keep("load", figures, done=False)
    work.record.keep("load", figures, done=True)


@contextmanager
def at(work: Work, store: str, name: str) -> Iterator[str]:
    """The URI of a collection in a new store, which is removed at the end."""
    if store == "postgres":
        with postgres_server() as server:
            base, mark, query = server.partition("?")
            yield f"{base}/{name}{mark}{query}"
        return
    folder = work.stores / f"{store}-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield f"{store}:{folder}/{'files.db' if store == 'milvus' else 'files'}/{name}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # threads of Milvus Lite may still write there


def search(work: Work, stores: list[str]) -> None:
    """SciFact's nDCG@10 of two jobs' vectors, over all documents and test queries: by numpy, and through each store.

    Every search is exact, but that of Chroma, which has no exact one.
    """
    folder = work.data / "eval/scifact"
    relevant: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels/test.tsv").read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        relevant.setdefault(query, {})[document] = int(grade)
    documents = {row["_id"]: f"{row['title']} {row['text']}".strip() for row in json_lines(folder / "corpus.jsonl")}
    queries = {row["_id"]: row["text"] for row in json_lines(folder / "queries.jsonl") if row["_id"] in relevant}
    outputs = [_embedded(work, name, texts) for name, texts in (("documents", documents), ("queries", queries))]
    corpus, asked = (pq.read_table(output) for output in outputs)
    names: list[str] = corpus["id"].to_pylist()
    places = {name: place for place, name in enumerate(names)}
    vectors, questions = vectors_of(corpus["vector"]), vectors_of(asked["vector"])
    found = Collection(questions, vectors, names, [relevant[id] for id in asked["id"].to_pylist()])
    figures: dict[str, Any] = {"documents": len(names), "queries": len(questions)}
    figures["numpy"] = found.score(np.argsort(-(questions @ vectors.T), axis=1, kind="stable"))
    for store in stores:
        with at(work, store, "scifact") as uri:
            load(outputs[0], uri, lambda done, total: None)
            with SEARCHES[store](uri) as find:
                figures[store] = found.score([places[id] for id in find(question)] for question in questions)
        work.record.keep("search", figures, done=False)
    work.record.keep("search", figures, done=True)


def _embedded(work: Work, name: str, texts: dict[str, str]) -> Path:
    inputs, output = work.folder / f"scifact-{name}.parquet", work.folder / f"scifact-{name}"
    if not inputs.exists():
        pq.write_table(pa.table({"id": list(texts), "text": list(texts.values())}), inputs)
    work.job(inputs, output, id_column="id", part_rows=512)
    return output


Find = Callable[[Array], list[str]]
"""The ids of the ten nearest documents."""


def _place(uri: str) -> tuple[str, str]:
    folder, _, name = urlsplit(uri).path.rpartition("/")
    return folder, name


@contextmanager
def lancedb_search(uri: str) -> Iterator[Find]:
    import lancedb

    folder, name = _place(uri)
    table: Any = lancedb.connect(folder).open_table(name)  # without an index: exact
    yield lambda vector: [row["id"] for row in table.search(vector).distance_type("cosine").limit(10).to_list()]


@contextmanager
def qdrant_search(uri: str) -> Iterator[Find]:
    from qdrant_client import QdrantClient

    folder, name = _place(uri)
    client: Any = QdrantClient(path=folder)
    yield lambda vector: [point.payload["id"] for point in client.query_points(name, query=vector, limit=10).points]
    client.close()


@contextmanager
def milvus_search(uri: str) -> Iterator[Find]:
    from pymilvus import MilvusClient

    folder, name = _place(uri)
    client: Any = MilvusClient(folder)
    client.load_collection(name)
    yield lambda vector: [hit["id"] for hit in client.search(name, [vector], limit=10)[0]]
    client.close()


@contextmanager
def chroma_search(uri: str) -> Iterator[Find]:
    import chromadb

    folder, name = _place(uri)
    settings = chromadb.config.Settings(anonymized_telemetry=False)
    collection: Any = chromadb.PersistentClient(folder, settings).get_collection(name, embedding_function=None)
    yield lambda vector: list(collection.query(query_embeddings=vector[None], n_results=10)["ids"][0])


@contextmanager
def postgres_search(uri: str) -> Iterator[Find]:
    import psycopg

    parts = urlsplit(uri)
    folder, name = _place(uri)
    statement = f"SELECT id FROM {name} ORDER BY vector <=> %s::vector LIMIT 10"  # without an index: exact
    with psycopg.connect(f"postgresql://{parts.netloc}{folder}?{parts.query}") as connection:
        cursor: Any = connection
        yield lambda vector: [id for (id,) in cursor.execute(statement, [json.dumps(vector.tolist())]).fetchall()]


SEARCHES = {
    "lancedb": lancedb_search,
    "qdrant": qdrant_search,
    "milvus": milvus_search,
    "chroma": chroma_search,
    "postgres": postgres_search,
}
