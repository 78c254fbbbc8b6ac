"""A model id or a path -> a local folder: revision pinned to a commit, the cache asked before the network.

A local folder is used as it lies. A hub id is the work of `cache`, which is imported only then, and
huggingface_hub with it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from onnxembed.errors import UsageError
from onnxembed.hub.source import Fetched, HubOptions, file_names, local_folder, refuse_gaps

if TYPE_CHECKING:
    from onnxembed.hub.cache import Repository


def fetch(
    model: str | os.PathLike[str],
    hub: HubOptions,
    *,
    wanted: Sequence[str],
    optional: Sequence[str] = (),
) -> Fetched:
    """The folder with the `wanted` files, and with the `optional` ones as far as the model has them.

    Asks nothing of the hub when the cache has every wanted file at the revision (by default at what it
    remembers as main) and knows for each optional one whether it exists. Hashes are left to the
    manifest. Raises ModelFilesError for wanted files that the model does not have, HubError when the hub
    cannot be asked or says no.
    """
    if not wanted:
        raise UsageError("name at least one wanted file")
    if (own := local_folder(model, hub.revision)) is not None:
        refuse_gaps([file for file in wanted if not (own / file).is_file()], str(own))
        return Fetched(str(model), own, None)
    repository = _repository(model, hub)
    folder = repository.cached()
    missing = [file for file in wanted if not (folder / file).is_file()]
    if not missing:
        if all(repository.knows(folder, file) for file in optional):
            return Fetched(repository.model, folder, folder.name)
        # The optional files are looked for beside the wanted ones: two commits are never mixed.
        repository = replace(repository, revision=folder.name)
    answer = repository.look_up(missing, hub) if missing else repository.try_look_up(hub)
    if answer is not None:
        commit, names = answer
        refuse_gaps([file for file in wanted if file not in names], f"{repository.model} at {commit}")
        folder = repository.download([file for file in (*optional, *wanted) if file in names], commit)
        repository.note_absent(set(optional) - set(names), commit)
        repository.remember(commit)
    return Fetched(repository.model, folder, folder.name)


def fetch_first(
    model: str | os.PathLike[str], hub: HubOptions, *, candidates: Sequence[str]
) -> tuple[Fetched, str | None]:
    """The folder of a hub id with the first of `candidates` that it has, and which that is; None when it has none.

    Asks nothing of the hub when the cache has that file and knows that the model lacks those before it. Errors
    as for `fetch`.
    """
    repository = _repository(model, hub)
    folder = repository.cached()
    first = next((file for file in candidates if not repository.absent(folder, file)), None)
    if first is None or not (folder / first).is_file():
        commit, names = repository.look_up(candidates[:1], hub)
        first = next((file for file in candidates if file in names), None)
        folder = repository.download([first] if first else [], commit)
        repository.note_absent(set(candidates) - set(names), commit)
        repository.remember(commit)
    return Fetched(repository.model, folder, folder.name), first


def list_files(model: str | os.PathLike[str], hub: HubOptions) -> list[str]:
    """The names of all files of a model. The hub is asked for them; HubError when it cannot be or says no."""
    if (own := local_folder(model, hub.revision)) is not None:
        return file_names(own)
    _, names = _repository(model, hub).look_up(["list of files"], hub)
    return names


def _repository(model: str | os.PathLike[str], hub: HubOptions) -> Repository:
    from onnxembed.hub.cache import Repository  # a local folder needs nothing of it

    return Repository.of(model, hub)
