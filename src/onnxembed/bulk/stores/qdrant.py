"""Qdrant: qdrant://HOST:PORT/COLLECTION, or qdrant:FOLDER/COLLECTION for the client's local mode."""

from __future__ import annotations

import os
from typing import Any
from uuid import UUID, uuid5

from onnxembed.bulk.arrow import pa
from onnxembed.bulk.making import vectors_of
from onnxembed.bulk.stores.store import MARK, Collection, Target, payloads, require

NAMESPACE = UUID("6f6e6e78-656d-4265-8464-000000000000")
"""Qdrant takes whole numbers and UUIDs as ids: the id of a point is the UUIDv5 of its string in this namespace."""

DISTANCES = {"cosine": "Cosine", "dot": "Dot", "euclidean": "Euclid"}


class Qdrant:
    """A collection of Qdrant; the payload of each point has the id and the kept columns."""

    def __init__(self, target: Target) -> None:
        client = require("qdrant_client", "qdrant-client")
        self._models = client.models
        self._client: Any = (
            client.QdrantClient(url=f"http://{target.host}", api_key=os.environ.get("QDRANT_API_KEY"))
            if target.host
            else client.QdrantClient(path=target.require_path())
        )

    def begin(self, collection: Collection) -> str | None:
        """Make the collection, or check the one that is there; returns which one it is."""
        self._collection = collection
        if self._client.collection_exists(collection.name):
            metadata = self._client.get_collection(collection.name).config.metadata
            return collection.check((metadata or {}).get(MARK))
        distance = self._models.Distance(DISTANCES[collection.similarity])
        self._client.create_collection(
            collection.name,
            vectors_config=self._models.VectorParams(size=collection.dimension, distance=distance),
            metadata={MARK: collection.mark},
        )
        return collection.made

    def upsert(self, rows: pa.Table) -> None:
        """Write points by their ids."""
        ids = rows["id"].to_pylist()
        points = self._models.Batch.model_construct(
            ids=[id if self._is_own(id) else str(uuid5(NAMESPACE, str(id))) for id in ids],
            vectors=list(vectors_of(rows["vector"])),
            payloads=payloads(rows, ["id", *self._collection.kept]),
        )
        self._client.upsert(self._collection.name, points)

    def _is_own(self, id: object) -> bool:
        """Whether Qdrant takes an id as it is."""
        return isinstance(id, int) and id >= 0

    def count(self) -> int:
        """How many points the collection has."""
        return int(self._client.count(self._collection.name, exact=True).count)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
