"""What databases hold, read with their own clients."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from onnxembed.arrays import Array
from onnxembed.bulk.making import vectors_of

Held = dict[Any, tuple[Array, dict[str, Any]]]
"""Vectors and kept columns, by their ids."""


def read(uri: str, name: str) -> Held:
    """Everything that a collection holds."""
    return READERS[uri.partition(":")[0]](address(uri), name)


def similarity(uri: str, name: str) -> str:
    """How searches in a collection compare vectors, by the name that we give it."""
    theirs = SIMILARITIES[uri.partition(":")[0]](address(uri), name)
    return NAMES.get(theirs, theirs)


def address(uri: str) -> str:
    """The folder of a database's files, or how to connect to PostgreSQL."""
    scheme, _, place = uri.partition(":")
    return f"postgresql:///postgres?{place.partition('?')[2]}" if scheme == "postgres" else place.rpartition("/")[0]


def lancedb_table(folder: str, name: str) -> Any:
    import lancedb

    return lancedb.connect(folder).open_table(name)


def read_lancedb(folder: str, name: str) -> Held:
    table = lancedb_table(folder, name).to_arrow()
    rows = table.drop_columns(["vector"]).to_pylist()
    return {row.pop("id"): (vector, row) for vector, row in zip(vectors_of(table["vector"]), rows, strict=True)}


def lancedb_similarity(folder: str, name: str) -> str:
    """A table has none: a search names it, and the table says which."""
    return str(json.loads(lancedb_table(folder, name).schema.metadata[b"onnxembed"])["similarity"])


def read_qdrant(folder: str, name: str) -> Held:
    from qdrant_client import QdrantClient

    client = QdrantClient(path=folder)
    points, _ = client.scroll(name, limit=100_000, with_vectors=True)
    client.close()
    found = {}
    for point in points:
        payload = dict(point.payload or {})
        found[payload.pop("id")] = (np.array(point.vector, np.float32), payload)
    return found


def qdrant_similarity(folder: str, name: str) -> str:
    from qdrant_client import QdrantClient

    client: Any = QdrantClient(path=folder)
    distance = str(client.get_collection(name).config.params.vectors.distance.value)
    client.close()
    return distance


def read_postgres(database: str, name: str) -> Held:
    import psycopg

    with psycopg.connect(database) as connection:
        rows = connection.execute(f"SELECT id, title, vector::text FROM {name}").fetchall()
    return {id: (np.array(json.loads(vector), np.float32), {"title": title}) for id, title, vector in rows}


def postgres_similarity(database: str, name: str) -> str:
    """A table has none: a search has an operator for it, and the comment of the table says which similarity."""
    import psycopg

    with psycopg.connect(database) as connection:
        found = connection.execute("SELECT obj_description(to_regclass(%s))", [name]).fetchone()
    assert found is not None
    return str(json.loads(found[0].removeprefix("onnxembed "))["similarity"])


def read_milvus(folder: str, name: str) -> Held:
    from pymilvus import MilvusClient

    client = MilvusClient(folder)
    client.load_collection(name)
    rows = client.query(name, filter="", output_fields=["*"], limit=16_000)
    client.close()
    return {row.pop("id"): (np.array(row.pop("vector"), np.float32), row) for row in map(dict, rows)}


def milvus_similarity(folder: str, name: str) -> str:
    from pymilvus import MilvusClient

    client: Any = MilvusClient(folder)
    metric = str(client.describe_index(name, "vector")["metric_type"])
    client.close()
    return metric


def chroma_collection(folder: str, name: str) -> Any:
    import chromadb

    settings = chromadb.config.Settings(anonymized_telemetry=False)
    return chromadb.PersistentClient(folder, settings=settings).get_collection(name, embedding_function=None)


def read_chroma(folder: str, name: str) -> Held:
    found = chroma_collection(folder, name).get(include=["embeddings", "metadatas"])
    return {
        id: (np.array(vector, np.float32), dict(metadata or {}))
        for id, vector, metadata in zip(found["ids"], found["embeddings"], found["metadatas"], strict=True)
    }


def chroma_similarity(folder: str, name: str) -> str:
    return str(chroma_collection(folder, name).configuration["hnsw"]["space"])


READERS: dict[str, Callable[[str, str], Held]] = {
    "lancedb": read_lancedb,
    "qdrant": read_qdrant,
    "postgres": read_postgres,
    "milvus": read_milvus,
    "chroma": read_chroma,
}

SIMILARITIES: dict[str, Callable[[str, str], str]] = {
    "lancedb": lancedb_similarity,
    "qdrant": qdrant_similarity,
    "postgres": postgres_similarity,
    "milvus": milvus_similarity,
    "chroma": chroma_similarity,
}

QDRANT = {"Cosine": "cosine", "Dot": "dot", "Euclid": "euclidean"}
MILVUS = {"COSINE": "cosine", "IP": "dot", "L2": "euclidean"}
CHROMA = {"ip": "dot", "l2": "euclidean"}
NAMES = QDRANT | MILVUS | CHROMA
"""What we call the similarities that databases call otherwise."""
