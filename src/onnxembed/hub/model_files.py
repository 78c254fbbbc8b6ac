"""A model id or a path -> the model's files, which come into a local folder when they are asked for.

A local folder is used as it lies. A hub id is the work of `hub_files`, which is imported only then.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from pathlib import Path

from onnxembed.errors import IntegrityError, ModelFilesError, UsageError
from onnxembed.hub.source import HubOptions, refuse_gaps, walk_files


def is_local(model: str | os.PathLike[str]) -> bool:
    """Whether `model` is a path: it exists, or it is written as only a path can be."""
    if not isinstance(model, str):
        return True
    if os.path.exists(os.path.expanduser(model)) or os.path.isabs(model):
        return True
    return model.startswith(("./", "../", "~")) or model.count("/") > 1 or "\\" in model


def local_paths(model: str | os.PathLike[str]) -> list[Path]:
    """The path of a model that is one, and nothing for a hub id."""
    return [Path(os.path.expanduser(model))] if is_local(model) else []


def hub_id(model: str | os.PathLike[str]) -> str | None:
    """The hub id that a model is named by; None for a path."""
    return None if is_local(model) else str(model)


def local_folder(model: str | os.PathLike[str], revision: str | None) -> Path | None:
    """The folder at a path, wherever the process goes later (os.chdir); None for a hub id.

    Raises UsageError for what is neither, for a path without a folder, and for a revision, which folders do not have.
    """
    if not isinstance(model, str | os.PathLike):
        raise UsageError(f"the model is {model!r}, not a path or a hub id")
    if not is_local(model):
        return None
    try:
        folder = Path(model).expanduser()
    except RuntimeError as error:  # ~somebody, whom this machine does not know
        raise UsageError(f"no folder at {model}: {error}") from error
    if folder.is_file():
        raise UsageError(f"{folder} is a file; give the folder that holds it")
    if not folder.is_dir():
        raise UsageError(f"no folder at {folder} (a model of the hub is named like organization/name)")
    if revision is not None:
        raise UsageError(f"{folder} is a folder and has no revision {revision!r}; only hub models have revisions")
    return folder.absolute()


class ModelFiles(ABC):
    """The files of a model.

    `model` is the id or path as given, `folder` where its files lie, and `revision` the commit of a hub model, None
    for a folder.
    """

    def __init__(self, model: str, folder: Path, revision: str | None) -> None:
        self.model, self.folder, self.revision = model, folder, revision

    @property
    @abstractmethod
    def names(self) -> Collection[str]:
        """The names of all files of the model."""

    @abstractmethod
    def get(self, wanted: Iterable[str], optional: Iterable[str] = ()) -> None:
        """Have the `wanted` files in the folder, and the `optional` ones as far as the model has them.

        Raises ModelFilesError for wanted files that the model does not have, HubError for files that are not in the
        cache when the hub cannot be asked or says no.
        """

    @abstractmethod
    def first(self, candidates: Sequence[str]) -> str | None:
        """Have the first of `candidates` that the model has in the folder; returns which that is, or None."""

    @abstractmethod
    def renew(self, file: str, problem: IntegrityError) -> None:
        """Replace a damaged file, and say so; IntegrityError if that is not possible, or has not helped."""

    @abstractmethod
    def check(self, files: Iterable[str]) -> None:
        """Replace those of these files that the cache has damaged copies of; IntegrityError if that fails."""

    @abstractmethod
    def get_if_possible(self, pattern: re.Pattern[str]) -> None:
        """Have files in the folder that change no vector, and go on without those that cannot be had."""

    @abstractmethod
    def remember(self) -> None:
        """Let the revision's name stand for this copy in the cache: it has all that is wanted."""


# A folder with more files than that is no model, but perhaps a whole disk; models have some tens of files.
MOST_FILES = 10_000


class LocalFiles(ModelFiles):
    """The files of a folder, which nothing is added to."""

    @property
    def names(self) -> Collection[str]:
        """The names of the files in the folder, if it may be a model's."""
        names = list(islice(walk_files(self.folder), MOST_FILES + 1))
        return names if len(names) <= MOST_FILES else ()

    def get(self, wanted: Iterable[str], optional: Iterable[str] = ()) -> None:
        """Raise ModelFilesError for `wanted` files that are not there."""
        gaps = [file for file in wanted if not (self.folder / file).is_file()]
        for file in gaps:
            if os.path.lexists(self.folder / file):
                raise ModelFilesError(f"{self.folder / file} leads to no file: copy or download the model again")
        refuse_gaps(gaps, str(self.folder))

    def first(self, candidates: Sequence[str]) -> str | None:
        """The first of `candidates` that is there."""
        return next((file for file in candidates if (self.folder / file).is_file()), None)

    def renew(self, file: str, problem: IntegrityError) -> None:
        """Raise the problem: nobody knows where the folder came from."""
        raise problem

    def check(self, files: Iterable[str]) -> None:
        """Nothing: a folder keeps no hashes."""

    def get_if_possible(self, pattern: re.Pattern[str]) -> None:
        """Nothing: what is there is there."""

    def remember(self) -> None:
        """Nothing: a folder has no revision."""


def open_model_files(model: str | os.PathLike[str], hub: HubOptions) -> ModelFiles:
    """The files of a model: those of a folder, or of a hub model, about which the hub is asked once.

    Raises UsageError for what is neither, and what `HubFiles` does.
    """
    if (own := local_folder(model, hub.revision)) is not None:
        return LocalFiles(str(model), own, None)
    from onnxembed.hub.hub_files import HubFiles  # a local folder needs nothing of it

    return HubFiles(model, hub)
