"""Chroma: chroma://HOST:PORT/COLLECTION, or chroma:FOLDER/COLLECTION for files."""

from __future__ import annotations

from typing import Any

from onnxembed.bulk.arrow import pa
from onnxembed.bulk.making import vectors_of
from onnxembed.bulk.stores.store import MARK, Collection, Target, payloads, require

DISTANCES = {"cosine": "cosine", "dot": "ip", "euclidean": "l2"}

SEARCHED = 400
"""How many candidates a search keeps. Chroma has no exact search; with its own 100, 0.4 % of the ten nearest documents
of SciFact's queries are not found, with 400 all are. A collection keeps the number that it is made with."""

PLAIN = (str, int, float, bool)
"""What Chroma's metadata may hold; other values become strings, and nulls are left out."""


class Chroma:
    """A collection of Chroma. Its ids are strings; the kept columns are metadata."""

    def __init__(self, target: Target) -> None:
        chromadb: Any = require("chromadb", "chromadb")
        settings = chromadb.Settings(anonymized_telemetry=False)
        if target.host:
            host, _, port = target.host.partition(":")
            self._client = chromadb.HttpClient(host=host, port=int(port or 8000), settings=settings)
        else:
            self._client = chromadb.PersistentClient(target.require_path(), settings=settings)

    def begin(self, collection: Collection) -> str | None:
        """Make the collection, or check the one that is there; returns which one it is."""
        self._kept = collection.kept
        self._at_once = self._client.get_max_batch_size()
        there = any(found.name == collection.name for found in self._client.list_collections())
        if there:
            self._collection = self._client.get_collection(collection.name, embedding_function=None)
            return collection.check((self._collection.metadata or {}).get(MARK))
        self._collection = self._client.create_collection(
            collection.name,
            metadata={MARK: collection.mark},
            configuration={"hnsw": {"space": DISTANCES[collection.similarity], "ef_search": SEARCHED}},
            embedding_function=None,
        )
        return collection.made

    def upsert(self, rows: pa.Table) -> None:
        """Write records by their ids."""
        for start in range(0, len(rows), self._at_once):
            batch = rows.slice(start, self._at_once)
            metadata = [_plain(row) or None for row in payloads(batch, self._kept)]  # an empty one is refused
            self._collection.upsert(
                ids=[str(id) for id in batch["id"].to_pylist()],
                embeddings=vectors_of(batch["vector"]),
                metadatas=metadata if self._kept else None,
            )

    def count(self) -> int:
        """How many records the collection has."""
        return int(self._collection.count())

    def close(self) -> None:
        """Do nothing: every batch is written when it is given."""


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, PLAIN) else str(value) for name, value in row.items() if value is not None}
