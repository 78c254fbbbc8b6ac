"""Where a model comes from: a folder, or a repository of the hub."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from onnxembed.errors import ModelFilesError, UsageError


@dataclass(frozen=True)
class HubOptions:
    """How a hub model is fetched. Local folders ignore it.

    Raises UsageError for a token that no HTTP header can hold, and for `refresh` together with `local_files_only`.
    """

    revision: str | None = None
    """Branch, tag or commit; None for the main branch."""
    cache_dir: str | Path | None = None
    """Where files are kept; None for the hub client's standard cache."""
    local_files_only: bool = False
    """Never ask the hub; use what is in the cache."""
    refresh: bool = False
    """Download every file anew, whatever the cache has."""
    token: str | bool | None = field(default=None, repr=False)
    """The hub's access token; None for the one of HF_TOKEN or `hf auth login`, False for none."""

    def __post_init__(self) -> None:
        if self.refresh and self.local_files_only:
            raise UsageError("refresh asks the hub, and local_files_only (--offline) forbids it: give one of them")
        if isinstance(self.token, str) and not (self.token.isascii() and self.token.isprintable() and self.token):
            raise UsageError("the token is empty, or has characters that no token has, such as a line break")


class Fetched(NamedTuple):
    """Where a model's files lie."""

    model: str  # the id or path as given
    folder: Path
    revision: str | None  # the commit of a hub model, None for a local folder
    base: Path | None = None  # the folder of a LoRA adapter's base, if that is a hub model; named by its commit


def refuse_gaps(gaps: Sequence[str], where: str) -> None:
    """Raise ModelFilesError for files that are missing, by name."""
    if gaps:
        raise ModelFilesError(f"{where} has no {', '.join(gaps)}")


def file_names(folder: Path) -> list[str]:
    """The paths of all files in a folder, relative to it."""
    return list(walk_files(folder))


def walk_files(folder: Path) -> Iterator[str]:
    """`file_names`, one after the other; folders that cannot be read are left out."""
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            if os.path.isfile(path):  # which is no error for what may not be looked at
                yield path.relative_to(folder).as_posix()
