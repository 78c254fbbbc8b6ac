"""A model's part of the hub client's cache, which is shared with other programs.

Added to what huggingface_hub keeps there: notes of all that a commit lacks, and a revision's name that stands for
complete copies only.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from onnxembed.errors import UsageError
from onnxembed.hub.source import HubOptions

# The hub's own rule for names; asked here, it needs neither the hub nor its library.
NAME = re.compile(r"(?!.*(--|\.\.|\.git$))(\b[\w.-]+\b/)?\b[\w.-]{1,96}\b", re.ASCII)
# Of git's rule for names what keeps a file of that name in its folder.
REVISION = re.compile(r"(?!.*\.\.)[^\s\\/][^\s\\]*(?<!/)")
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Repository:
    """A model on the hub at a revision, and its part of the cache."""

    model: str
    revision: str
    cache_dir: Path

    @classmethod
    def of(cls, model: str | os.PathLike[str], hub: HubOptions) -> Repository:
        """The repository of this name, by default at its main branch and in the hub client's own cache."""
        from huggingface_hub import __version__, constants

        if not NAME.fullmatch(str(model)):
            raise UsageError(f"{str(model)!r} is neither a folder nor the name of a model on the hub")
        if hub.revision is not None and not REVISION.fullmatch(hub.revision):
            raise UsageError(f"the revision {hub.revision!r} is not the name of a branch or tag, nor a commit")
        if __version__.startswith("0."):  # with optimum, whose transformers requires it
            raise UsageError(
                f"huggingface_hub {__version__} is installed, and asking the hub needs 1.0 or later: download {model} "
                "in another environment and give its folder"
            )
        return cls(
            str(model),
            constants.DEFAULT_REVISION if hub.revision is None else hub.revision,
            Path(os.path.expanduser(constants.HF_HUB_CACHE if hub.cache_dir is None else hub.cache_dir)).absolute(),
        )

    @property
    def commit(self) -> str | None:
        """The revision, if it is a commit."""
        return self.revision if COMMIT.fullmatch(self.revision) else None

    @property
    def storage(self) -> Path:
        """Its folder in the cache."""
        return self.cache_dir / f"models--{self.model.replace('/', '--')}"

    def snapshot(self, commit: str) -> Path:
        """The folder of a commit's files in the cache."""
        return self.storage / "snapshots" / commit

    def cached_commit(self) -> str | None:
        """The commit that the cache has for the revision; its copy may lack files."""
        ref = self.storage / "refs" / self.revision
        commit = ref.read_text().strip() if ref.is_file() else self.revision
        return commit if COMMIT.fullmatch(commit) and self.snapshot(commit).is_dir() else None

    def listed(self, commit: str) -> list[str] | None:
        """The names of all files of a commit, if huggingface_hub kept the list when it downloaded a whole snapshot."""
        try:
            from huggingface_hub import get_cached_repo_tree  # not in every release
            from huggingface_hub.errors import CachedRepoTreeNotFoundError
        except ImportError:
            return None
        try:
            tree = get_cached_repo_tree(self.model, revision=commit, cache_dir=self.cache_dir)
        except CachedRepoTreeNotFoundError:
            return None
        return [file.path for file in tree]

    def absent(self, commit: str, file: str) -> bool:
        """Whether the cache has a note that the commit has no such file."""
        return (self.storage / ".no_exist" / commit / file).is_file()

    def note_absent(self, files: Iterable[str], commit: str) -> None:
        """Record in the cache that the commit has none of these files."""
        for file in files:
            note = self.storage / ".no_exist" / commit / file
            with contextlib.suppress(OSError):  # a read-only cache serves all the same
                note.parent.mkdir(parents=True, exist_ok=True)
                note.touch()

    def remember(self, commit: str) -> None:
        """Let the revision's name stand for the commit from here on.

        Done when all files are there, so that an interrupted update leaves the name with the older copy.
        """
        ref = self.storage / "refs" / self.revision
        if self.commit or (ref.is_file() and ref.read_text() == commit):
            return
        draft = ref.with_name(f"{ref.name}.{os.getpid()}.tmp")
        with contextlib.suppress(OSError):  # a read-only cache serves all the same
            ref.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(commit)
            draft.replace(ref)
