"""LanceDB: lancedb:FOLDER/TABLE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnxembed.bulk.arrow import pa
from onnxembed.bulk.stores.store import MARK, Collection, Target, require


class LanceDb:
    """A table of LanceDB. Arrow goes in as it is; the space stands in the metadata of the schema."""

    def __init__(self, target: Target) -> None:
        self._database: Any = require("lancedb", "lancedb").connect(Path(target.require_path()))

    def begin(self, collection: Collection) -> str | None:
        """Make the table, or check the one that is there; returns which one it is."""
        names = self._database.list_tables().tables
        if collection.name in names:
            self._table = self._database.open_table(collection.name)
            mark = (self._table.schema.metadata or {}).get(MARK.encode())
            return collection.check(mark and mark.decode())
        schema = collection.schema.with_metadata({MARK: collection.mark})
        self._table = self._database.create_table(collection.name, schema=schema)
        return collection.made

    def upsert(self, rows: pa.Table) -> None:
        """Merge rows by their ids."""
        merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(rows.replace_schema_metadata(None))

    def count(self) -> int:
        """How many rows the table has."""
        return int(self._table.count_rows())

    def close(self) -> None:
        """Join the small files that batches leave."""
        self._table.optimize()
