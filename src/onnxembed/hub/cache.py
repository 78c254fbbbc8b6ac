"""A model on the Hugging Face hub at a revision, and its part of the cache.

huggingface_hub does the downloading, so its settings hold (HF_HOME, HF_ENDPOINT, HF_TOKEN,
HF_HUB_OFFLINE, ...) and its cache is shared with other programs. Added here: notes of what a commit lacks, a
revision's name that stands for complete copies only, and errors that say what to do.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxembed.errors import HubError, ModelFilesError, NetworkError, OnnxEmbedError, UsageError
from onnxembed.hub.source import HubOptions
from onnxembed.warning import warn

# The hub's own rule for names; asked here, it needs neither the hub nor its library.
NAME = re.compile(r"(?!.*(--|\.\.|\.git$))(\b[\w.-]+\b/)?\b[\w.-]{1,96}\b", re.ASCII)
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
    def storage(self) -> Path:
        """Its folder in the cache."""
        return self.cache_dir / f"models--{self.model.replace('/', '--')}"

    def snapshot(self, commit: str) -> Path:
        """The folder of a commit's files in the cache."""
        return self.storage / "snapshots" / commit

    def cached(self) -> Path:
        """The folder that the cache has for the revision; it may lack files, or not exist."""
        ref = self.storage / "refs" / self.revision
        commit = ref.read_text().strip() if ref.is_file() else self.revision
        return self.snapshot(commit if COMMIT.fullmatch(commit) else "unknown")

    def knows(self, folder: Path, file: str) -> bool:
        """Whether the cache has the file, or a note that the commit has none."""
        return (folder / file).is_file() or self.absent(folder, file)

    def absent(self, folder: Path, file: str) -> bool:
        """Whether the cache has a note that the commit has no such file."""
        return (self.storage / ".no_exist" / folder.name / file).is_file()

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
        if COMMIT.fullmatch(self.revision) or (ref.is_file() and ref.read_text() == commit):
            return
        draft = ref.with_name(f"{ref.name}.{os.getpid()}.tmp")
        with contextlib.suppress(OSError):  # a read-only cache serves all the same
            ref.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(commit)
            draft.replace(ref)

    def look_up(self, missing: Sequence[str], hub: HubOptions) -> tuple[str, list[str]]:
        """The revision's commit and the names of its files, from the hub.

        Raises HubError when the hub must not be asked, NetworkError when it cannot be; both name the files that are
        `missing` from the cache.
        """
        try:
            return self._ask(hub)
        except _UnreachableError as error:
            kind = HubError if error.wanted else NetworkError
            raise kind(
                f"no folder {self.model} here; {error}, and the cache {self.cache_dir} has no "
                f"{', '.join(missing)} of {self.model} at {self.revision}: run once with the network, or give "
                "the cache that has it"
            ) from (error.__cause__ or error)

    def try_look_up(self, hub: HubOptions) -> tuple[str, list[str]] | None:
        """As `look_up`, but None when the hub cannot be reached, with a warning unless the caller asked for that."""
        try:
            return self._ask(hub)
        except _UnreachableError as error:
            if not error.wanted:
                warn(f"{error}; using the cached copy of {self.model}")
            return None

    def _ask(self, hub: HubOptions) -> tuple[str, list[str]]:
        from huggingface_hub import HfApi, constants
        from huggingface_hub.errors import OfflineModeIsEnabled

        if hub.local_files_only:
            raise _UnreachableError("local_files_only is set", wanted=True)
        try:
            timeout = constants.HF_HUB_ETAG_TIMEOUT
            info = HfApi().model_info(self.model, revision=self.revision, timeout=timeout)
            if info.sha is None or not COMMIT.fullmatch(info.sha) or info.siblings is None:
                raise ValueError("the answer names no commit or no files")
        except Exception as error:
            if not _unreachable(error):
                raise self._explained(error, "list of files") from error
            wanted = isinstance(error, OfflineModeIsEnabled)
            raise _UnreachableError(_reason(error), wanted=wanted) from error
        return info.sha, [file.rfilename for file in info.siblings]

    def download(self, files: Iterable[str], commit: str) -> Path:
        """Put files into the cache, one after the other, and return their folder."""
        from huggingface_hub import hf_hub_download

        for file in files:
            try:
                hf_hub_download(self.model, file, revision=commit, cache_dir=self.cache_dir)
            except Exception as error:
                raise self._explained(error, file) from error
        return self.snapshot(commit)

    def _explained(self, error: Exception, what: str) -> OnnxEmbedError:
        """Our error for one of huggingface_hub's, or of its HTTP and xet clients, which it lets through."""
        from huggingface_hub import constants, errors

        hub, model = constants.ENDPOINT, self.model
        log_in = "set HF_TOKEN or run `hf auth login`"
        status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
        if isinstance(error, errors.EntryNotFoundError) and status == 404:
            return ModelFilesError(f"{model} at {self.revision} has no {what}")
        if isinstance(error, errors.RevisionNotFoundError):
            return HubError(f"{model} has no revision {self.revision!r} on {hub}; give a branch, a tag or a commit")
        # The hub also answers 401 to anonymous users for a missing model; huggingface_hub tells the two apart.
        unknown = isinstance(error, errors.RepositoryNotFoundError) and not isinstance(error, errors.GatedRepoError)
        if status in (401, 403) and not unknown:
            answer = getattr(error, "server_message", None) or _reason(error)
            return HubError(
                f"{model} is gated or private ({answer}): {log_in}, and accept the model's terms at {hub}/{model}"
            )
        if unknown or status == 404:
            return HubError(
                f"no folder {model!r} here and no such model on {hub}; check the name, or, if it is private, {log_in}"
            )
        said_no = (status is not None and not _unreachable(error)) or (isinstance(error, OSError) and error.errno)
        kind = HubError if said_no else NetworkError  # a full disk has an errno; xet's errors have nothing
        return kind(f"could not get the {what} of {model} from {hub} ({_reason(error)}); run again to get the rest")


class _UnreachableError(Exception):
    """The hub cannot be reached, or, if `wanted`, must not be asked."""

    def __init__(self, reason: str, *, wanted: bool) -> None:
        from huggingface_hub import constants

        super().__init__(f"could not reach {constants.ENDPOINT} ({reason})")
        self.wanted = wanted


def _unreachable(error: Exception) -> bool:
    """Whether an error means that the hub could not answer, rather than that it said no."""
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    # The HTTP client is httpx up to huggingface_hub 1, httpx2 from 2 on.
    return isinstance(error, errors.OfflineModeIsEnabled) or type(error).__module__.startswith("httpx")


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error  # huggingface_hub wraps what happened in paragraphs of advice
    return f"{type(cause).__name__}: {cause}".partition("\n")[0]
