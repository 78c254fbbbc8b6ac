"""Milvus: milvus://HOST:PORT/COLLECTION, or milvus:FILE.db/COLLECTION for Milvus Lite."""

from __future__ import annotations

from typing import Any

from onnxembed.bulk.arrow import pa
from onnxembed.bulk.making import vectors_of
from onnxembed.bulk.stores.store import MARK, Collection, Target, payloads, require

METRICS = {"cosine": "COSINE", "dot": "IP", "euclidean": "L2"}

MAX_ID = 512
"""The longest string that is an id, in bytes."""


class Milvus:
    """A collection of Milvus with an exact index; the kept columns are dynamic fields, the space is a property."""

    def __init__(self, target: Target) -> None:
        self._milvus: Any = require("pymilvus", "pymilvus")
        if not target.host:
            require("milvus_lite", "milvus-lite")
        uri = f"http://{target.host}" if target.host else target.require_path()
        self._client = self._milvus.MilvusClient(uri)

    def begin(self, collection: Collection) -> str | None:
        """Make the collection, or check the one that is there; returns which one it is."""
        self._collection = collection
        if self._client.has_collection(collection.name):
            properties = self._client.describe_collection(collection.name)["properties"]
            which = collection.check(properties.get(MARK))
            self._client.load_collection(collection.name)
            return which
        types = self._milvus.DataType
        schema = self._client.create_schema(enable_dynamic_field=True)
        if collection.ids_are_numbers:
            schema.add_field("id", types.INT64, is_primary=True)
        else:
            schema.add_field("id", types.VARCHAR, is_primary=True, max_length=MAX_ID)
        schema.add_field("vector", types.FLOAT_VECTOR, dim=collection.dimension)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type=METRICS[collection.similarity])
        properties = {MARK: collection.mark}
        self._client.create_collection(collection.name, schema=schema, index_params=index, properties=properties)
        return collection.made

    def upsert(self, rows: pa.Table) -> None:
        """Write entities by their ids."""
        vectors = vectors_of(rows["vector"])
        entities = payloads(rows, ["id", *self._collection.kept])
        for entity, vector in zip(entities, vectors, strict=True):
            entity["vector"] = vector
        self._client.upsert(self._collection.name, entities)

    def count(self) -> int:
        """How many entities the collection has."""
        found = self._client.query(self._collection.name, filter="", output_fields=["count(*)"])
        return int(found[0]["count(*)"])

    def close(self) -> None:
        """Make what was written safe, and close the connection."""
        self._client.flush(self._collection.name)
        self._client.close()
