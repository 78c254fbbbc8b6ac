"""What a database must do to take vectors, and where it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from secrets import token_hex
from types import ModuleType
from typing import Any, Protocol
from urllib.parse import urlsplit

from onnxembed.bulk.arrow import pa
from onnxembed.errors import MissingExtraError, UsageError
from onnxembed.loading.space import differences

MARK = "onnxembed"
"""The key under which a collection says what its vectors are."""

SIMILARITIES = ("cosine", "dot", "euclidean")
"""How vectors may be compared; every store has names of its own for these."""


@dataclass(frozen=True)
class Target:
    """Where vectors go: SCHEME://HOST/.../NAME, or SCHEME:PATH/NAME for what lies in files."""

    uri: str
    scheme: str
    host: str
    """Without it, the store lies in files at `path`."""
    path: str
    name: str
    """The collection or table."""

    @property
    def shown(self) -> str:
        """The URI without a password."""
        user, at, host = self.host.rpartition("@")
        return self.uri.replace(self.host, f"{user.partition(':')[0]}{at}{host}", 1) if self.host else self.uri

    def require_path(self) -> str:
        """The path of a store that lies in files."""
        if self.host or not self.path:
            raise UsageError(
                f"{self.shown} names no folder: write {self.scheme}:FOLDER/NAME or {self.scheme}:///FOLDER/NAME"
            )
        return self.path


def parse_target(uri: str) -> Target:
    """The parts of a URI; UsageError for one without a collection."""
    parts = urlsplit(uri)
    path, _, name = parts.path.partition("?")[0].rpartition("/")
    if not parts.scheme or not name:
        raise UsageError(f"{uri!r} names no collection: write it as STORE://HOST/NAME, or STORE:PATH/NAME for files")
    return Target(uri, parts.scheme, parts.netloc, path, name)


@dataclass(frozen=True)
class Collection:
    """What a collection is made for."""

    name: str
    dimension: int
    similarity: str
    vectors: Mapping[str, Any]
    """What the vectors are, as parts say it."""
    schema: pa.Schema
    """The id, the kept columns, and the vector, float32."""
    made: str = field(default_factory=lambda: token_hex(8))
    """Tells the collection, if it is made now, from others that had or will have its name."""

    @property
    def mark(self) -> str:
        """What the collection says of itself, as JSON."""
        kept = ("space", "model", "revision", "precision", "prompt", "dimensions", "task", "similarity")
        said = {key: self.vectors.get(key) for key in kept} | {"made": self.made}
        return json.dumps(said, ensure_ascii=False, sort_keys=True)

    @property
    def kept(self) -> list[str]:
        """The names of the kept columns."""
        return [name for name in self.schema.names if name not in ("id", "vector")]

    @property
    def ids_are_numbers(self) -> bool:
        """Whether ids are whole numbers; otherwise they are strings."""
        return bool(pa.types.is_integer(self.schema.field("id").type))

    def check(self, mark: object) -> str | None:
        """Which collection it is that says this of itself; None if an earlier version made it.

        Raises UsageError for a collection that says something else, or nothing, of its vectors.
        """
        if not isinstance(mark, str):
            raise UsageError(f"{self.name} is there and does not say in which vector space it is: choose another name")
        found = json.loads(mark)
        different = differences(found["space"]["parts"], self.vectors["space"]["parts"])
        for name, own in (("dimensions", self.dimension), ("similarity", self.similarity)):
            if found.get(name, own) != own:
                different.append(f"{name}: {found[name]} and {own}")
        if different:
            raise UsageError(
                f"{self.name} holds vectors of another space (there and here: {'; '.join(different)}): "
                "choose another name, or embed with the model of that space"
            )
        return str(found["made"]) if "made" in found else None


class Store(Protocol):
    """A database."""

    def begin(self, collection: Collection) -> str | None:
        """Make the collection, or check the one that is there; returns which collection it is.

        Raises UsageError for a collection of another space.
        """

    def upsert(self, rows: pa.Table) -> None:
        """Write rows of different ids; one whose id is there replaces the row that has it."""

    def count(self) -> int:
        """How many rows the collection has."""

    def close(self) -> None:
        """Finish writing."""


def require(module: str, package: str) -> ModuleType:
    """A module of a database's client; MissingExtraError that names its package if it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"this needs {package} ({error}): pip install {package}") from error


def payloads(rows: pa.Table, names: list[str]) -> list[dict[str, Any]]:
    """The kept columns of each row as a dictionary."""
    return rows.select(names).to_pylist() if names else [{} for _ in range(len(rows))]
