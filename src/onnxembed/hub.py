"""A model id or a path -> a local folder: revision pinned to a commit, the cache asked before the network.

A local folder is used as it lies. A hub id is `repository`'s work, which is imported only then, and
huggingface_hub with it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxembed.errors import ModelFilesError, UsageError

if TYPE_CHECKING:
    from onnxembed.repository import Repository


@dataclass(frozen=True)
class Hub:
    """Where and how a hub model is asked for; a local folder ignores it."""

    revision: str | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False


@dataclass(frozen=True)
class Fetched:
    """Where a model's files lie."""

    model: str  # the id or path as given
    folder: Path
    revision: str | None  # the commit of a hub model, None for a local folder


def is_local(model: str | os.PathLike[str]) -> bool:
    """Whether `model` is a path: it exists, or it is written as only a path can be."""
    if not isinstance(model, str):
        return True
    if os.path.exists(os.path.expanduser(model)) or os.path.isabs(model):
        return True
    return model.startswith(("./", "../", "~")) or model.count("/") > 1 or "\\" in model


def fetch(
    model: str | os.PathLike[str],
    *,
    wanted: Sequence[str],
    optional: Sequence[str] = (),
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Fetched:
    """The folder with the `wanted` files, and with the `optional` ones as far as the model has them.

    Asks nothing of the hub when the cache has every wanted file at the revision (by default at what it
    remembers as main) and knows of each optional one, be it that there is none. Hashes are left to the
    manifest. Raises ModelFilesError for wanted files that the model does not have, HubError when the hub
    cannot be asked or says no.
    """
    if not wanted:
        raise UsageError("name at least one wanted file")
    if is_local(model):
        folder = local_folder(model, revision)
        refuse_gaps([file for file in wanted if not (folder / file).is_file()], str(folder))
        return Fetched(str(model), folder, None)
    repository = _repository(model, revision, cache_dir)
    folder = repository.cached()
    missing = [file for file in wanted if not (folder / file).is_file()]
    if not missing:
        if all(repository.knows(folder, file) for file in optional):
            return Fetched(repository.model, folder, folder.name)
        # The optional files are looked for beside the wanted ones: two commits are never mixed.
        repository = replace(repository, revision=folder.name)
    found = repository.look_up(missing, local_files_only)
    if found is not None:
        commit, names = found
        refuse_gaps([file for file in wanted if file not in names], f"{repository.model} at {commit}")
        folder = repository.download([file for file in (*optional, *wanted) if file in names], commit)
        repository.note_absent(set(optional) - set(names), commit)
        repository.remember(commit)
    return Fetched(repository.model, folder, folder.name)


def fetch_first(
    model: str | os.PathLike[str],
    *,
    candidates: Sequence[str],
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> tuple[Fetched, str | None]:
    """The folder with the first of `candidates` that the model has, and which that is; None when it has none.

    Asks nothing of the hub when the cache has that file and knows that the model lacks those before it. Errors
    as of `fetch`.
    """
    if is_local(model):
        folder = local_folder(model, revision)
        return Fetched(str(model), folder, None), next((file for file in candidates if (folder / file).is_file()), None)
    repository = _repository(model, revision, cache_dir)
    folder = repository.cached()
    first = next((file for file in candidates if not repository.absent(folder, file)), None)
    if first is None or not (folder / first).is_file():
        found = repository.look_up(candidates[:1], local_files_only)
        assert found is not None, "look_up answers, or raises when something is missing"
        commit, names = found
        first = next((file for file in candidates if file in names), None)
        folder = repository.download([first] if first else [], commit)
        repository.note_absent(set(candidates) - set(names), commit)
        repository.remember(commit)
    return Fetched(repository.model, folder, folder.name), first


def list_files(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> list[str]:
    """The names of all files of a model. The hub is asked for them; HubError when it cannot be or says no."""
    if is_local(model):
        return file_names(local_folder(model, revision))
    found = _repository(model, revision, cache_dir).look_up(["list of files"], local_files_only)
    assert found is not None, "look_up answers, or raises when something is missing"
    return found[1]


def local_folder(model: str | os.PathLike[str], revision: str | None) -> Path:
    """The folder at a path; UsageError where there is none, and for a revision, which a folder does not have."""
    folder = Path(model).expanduser()
    if folder.is_file():
        raise UsageError(f"{folder} is a file; give the folder that holds it")
    if not folder.is_dir():
        raise UsageError(f"no folder at {folder} (a model of the hub is named like organisation/name)")
    if revision is not None:
        raise UsageError(f"{folder} is a folder, which has no revision {revision!r}; only a model of the hub has")
    return folder


def refuse_gaps(gaps: Sequence[str], where: str) -> None:
    """Raise ModelFilesError for files that are missing, by name."""
    if gaps:
        raise ModelFilesError(f"{where} has no {', '.join(gaps)}")


def file_names(folder: Path) -> list[str]:
    """The names of all files in a folder, with the folders within it that they lie in."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _repository(model: str | os.PathLike[str], revision: str | None, cache_dir: str | Path | None) -> Repository:
    from onnxembed.repository import Repository  # a local folder needs nothing of it

    return Repository.of(model, revision, cache_dir)
