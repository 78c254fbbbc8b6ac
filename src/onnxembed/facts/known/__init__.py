"""The keys of a model's files, in one table for each kind of file. Standard library only.

Each key that the reference reads is read here, too, or changes no vector, or stops the export. Tests take the
reference's keys from its source and compare them with these tables, so that a new release shows what is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxembed.errors import UnsupportedError


@dataclass(frozen=True)
class KnownKeys:
    """The keys of one kind of file.

    `read`: they decide something, and are read. `harmless`: they change no vector; each with the reason. `off`: they
    would change vectors, and must be null, false or empty; each with the rest of the sentence that refuses it, in which
    {value} is its value.
    """

    read: frozenset[str] = frozenset()
    harmless: Mapping[str, str] = field(default_factory=dict)
    off: Mapping[str, str] = field(default_factory=dict)

    def __contains__(self, key: str) -> bool:
        return key in self.read or key in self.harmless or key in self.off

    def check_off(self, file: Path, content: Mapping[str, Any]) -> None:
        """Raise UnsupportedError, with the file and the key, for a key that would change vectors."""
        for key, why in self.off.items():
            if value := content.get(key):
                raise UnsupportedError(f"{file} sets {key} to {value!r}, " + why.format(value=value))

    def check(self, file: Path, content: Mapping[str, Any]) -> None:
        """`check_off`, and the same for keys that are in no table."""
        self.check_off(file, content)
        if unknown := sorted(key for key in content if key not in self):
            raise UnsupportedError(
                f"{file} has keys that onnxembed does not know: {', '.join(unknown)}; if they change no vector, take "
                "them out of a copy of the file"
            )


def words(text: str) -> frozenset[str]:
    """The words of a text, as keys."""
    return frozenset(text.split())


def grouped(groups: Mapping[str, str]) -> dict[str, str]:
    """Keys with their reasons, from reasons with the keys that they are true of."""
    return {key: reason for reason, keys in groups.items() for key in keys.split()}
