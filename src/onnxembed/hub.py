"""A model id or a path -> a local folder: revision pinned to a commit, the cache asked before the network.

huggingface_hub does the downloading, so its settings hold (HF_HOME, HF_ENDPOINT, HF_TOKEN,
HF_HUB_OFFLINE, ...) and its cache is shared with other programs; it is imported only for a hub id. Added
here: no request for what is already there, one format of the weights, checked hashes, and errors that
say what to do.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from onnxembed.errors import HubError, IntegrityError, ModelFilesError, OnnxEmbedError, UsageError
from onnxembed.warning import warn

# The hub's own rule for names; asked here, it needs neither the hub nor its library.
NAME = re.compile(r"(?!.*(--|\.\.|\.git$))(\b[\w.-]+\b/)?\b[\w.-]{1,96}\b", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")

# Configurations, vocabularies, sentencepiece models: all are small, and any of them may change vectors.
SMALL = (".json", ".txt", ".model", "artifact.metadata", "sparse_linear.pt", "colbert_linear.pt")
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json")
# In order of preference: a second format is the same weights again. Each may be sharded, with an index.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
CONFIGURED = ("Transformer", "MLMTransformer", "Pooling", "SpladePooling", "Dense")
WEIGHTED = ("Transformer", "MLMTransformer", "StaticEmbedding", "Dense")


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
        folder = _local_folder(model, revision)
        _refuse_gaps([file for file in wanted if not (folder / file).is_file()], str(folder))
        return Fetched(str(model), folder, None)
    repository = _Repository.of(model, revision, cache_dir)
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
        _refuse_gaps([file for file in wanted if file not in names], f"{repository.model} at {commit}")
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
        folder = _local_folder(model, revision)
        return Fetched(str(model), folder, None), next((file for file in candidates if (folder / file).is_file()), None)
    repository = _Repository.of(model, revision, cache_dir)
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
        return _names(_local_folder(model, revision))
    found = _Repository.of(model, revision, cache_dir).look_up(["list of files"], local_files_only)
    assert found is not None, "look_up answers, or raises when something is missing"
    return found[1]


def fetch_checkpoint(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Fetched:
    """The folder of a checkpoint with what an export reads: configurations, tokenizer, one format of weights.

    The hub is asked once which commit the revision is, except for a commit that the cache holds. When it
    cannot be reached, a complete copy in the cache is used, with a warning. Every large file is hashed; a
    damaged one is taken out of the cache and raises IntegrityError. Raises ModelFilesError for a repository
    that is no checkpoint, HubError when the hub cannot be asked or says no.
    """
    if is_local(model):
        return Fetched(str(model), _local_folder(model, revision), None)
    repository = _Repository.of(model, revision, cache_dir)
    folder = repository.cached()
    gaps = _gaps(folder)
    # Another program may have filled the cache and left out files that it has no use for. One that asked
    # for modules.json took all that goes with it; without a network, that is taken on trust.
    proven = not gaps and repository.knows(folder, "modules.json")
    if not (proven and COMMIT.fullmatch(repository.revision)):
        found = repository.look_up(gaps, local_files_only)
        if found is not None:
            commit, names = found
            folder = repository.download(_checkpoint_files(repository.snapshot(commit), names), commit)
            _refuse_gaps(_gaps(folder), f"{repository.model} at {commit}")
            repository.note_absent({"modules.json"} - set(names), commit)
    _verify(folder, repository.model)
    repository.remember(folder.name)
    return Fetched(repository.model, folder, folder.name)


def _local_folder(model: str | os.PathLike[str], revision: str | None) -> Path:
    folder = Path(model).expanduser()
    if folder.is_file():
        raise UsageError(f"{folder} is a file; give the folder that holds it")
    if not folder.is_dir():
        raise UsageError(f"no folder at {folder} (a model of the hub is named like organisation/name)")
    if revision is not None:
        raise UsageError(f"{folder} is a folder, which has no revision {revision!r}; only a model of the hub has")
    return folder


def _refuse_gaps(gaps: Sequence[str], where: str) -> None:
    if gaps:
        raise ModelFilesError(f"{where} has no {', '.join(gaps)}")


def _checkpoint_files(folder: Path, names: Collection[str]) -> Iterator[str]:
    """Those of a repository's files that an export reads, in the order to download them.

    Reads modules.json and the shards' index in `folder`, which must lie there once they have been yielded.
    Weights come last, the Transformer's at the very end: a copy that has them has everything.
    """
    yield from _small_files(names, "")
    modules = module_places(folder)
    for _, path in modules:
        yield from _small_files(names, path) if path else ()
    for _, path in reversed(modules):
        yield from _weights(folder, names, path)


def _small_files(names: Iterable[str], path: str) -> list[str]:
    return [name for name in names if name.rpartition("/")[0] == path and name.endswith(SMALL)]


def _weights(folder: Path, names: Collection[str], path: str) -> list[str]:
    """The weights directly in `path`: a single file, or the shards that an index names; of one format only."""
    place = path and f"{path}/"
    for single in WEIGHTS:
        if place + single in names:
            return [place + single]
        index = f"{place}{single}.index.json"
        if index in names:
            return sorted({place + shard for shard in _read(folder / index, lambda map: map["weight_map"].values())})
    return [name for name in names if name.rpartition("/")[0] == path and name.endswith(".safetensors")]


def module_places(folder: Path) -> list[tuple[str, str]]:
    """Class and path of each sentence-transformers module; a plain model is one Transformer at the root."""
    if not (folder / "modules.json").is_file():
        return [("Transformer", "")]
    return _read(
        folder / "modules.json",
        lambda modules: [
            (module["type"].rpartition(".")[2], "/".join(PurePosixPath(module["path"]).parts)) for module in modules
        ],
    )


def _read(path: Path, pick: Callable[[Any], Iterable[Any]]) -> list[Any]:
    """What `pick` takes out of a JSON file."""
    try:
        return list(pick(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelFilesError(f"{path} is not the {path.name} of a model: {error!r}") from error


def _names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _gaps(folder: Path) -> list[str]:
    """Files that a folder lacks to be a complete checkpoint; not those that only the hub knows of."""
    names = _names(folder)
    gaps = []
    for kind, path in module_places(folder):
        place = path and f"{path}/"
        weights = _weights(folder, names, path) or ([place + WEIGHTS[0]] if kind in WEIGHTED else [])
        needed = ([f"{place}config.json"] if kind in CONFIGURED else []) + weights
        gaps += [file for file in needed if file not in names]
    if not any(name.endswith((*TOKENIZERS, ".model")) for name in names):
        gaps.append(TOKENIZERS[0])
    return gaps


def _verify(folder: Path, model: str) -> None:
    """Hash the checkpoint's large files: the cache names the copy of each by its sha256."""
    for file in _checkpoint_files(folder, _names(folder)):
        link = folder / file
        if not link.is_symlink():  # a cache without links keeps no hash
            continue
        # One step only: a blob may itself be a link, to a store that names files by another hash.
        blob = link.parent / os.readlink(link)
        if not SHA256.fullmatch(blob.name):
            continue
        with blob.open("rb") as content:
            actual = hashlib.file_digest(content, "sha256").hexdigest()
        if actual != blob.name:
            for damaged in (blob.resolve(), blob, link):
                with contextlib.suppress(OSError):  # gone with the one before, or the cache is read-only
                    damaged.unlink()
            raise IntegrityError(
                f"{file} of {model} is damaged (sha256 {actual} instead of {blob.name}); run again to download it anew"
            )


@dataclass(frozen=True)
class _Repository:
    """A model on the hub at a revision, and its part of the cache."""

    model: str
    revision: str
    cache_dir: Path

    @classmethod
    def of(cls, model: str | os.PathLike[str], revision: str | None, cache_dir: str | Path | None) -> _Repository:
        from huggingface_hub import __version__, constants

        if not NAME.fullmatch(str(model)):
            raise UsageError(f"{str(model)!r} is neither a folder nor the name of a model on the hub")
        if __version__.startswith("0."):  # beside optimum, whose transformers allows no other
            raise UsageError(
                f"huggingface_hub {__version__} is installed, and asking the hub needs 1.0 or later: download {model} "
                "in another environment and give its folder"
            )
        return cls(
            str(model),
            constants.DEFAULT_REVISION if revision is None else revision,
            Path(constants.HF_HUB_CACHE if cache_dir is None else cache_dir).expanduser(),
        )

    @property
    def storage(self) -> Path:
        return self.cache_dir / f"models--{self.model.replace('/', '--')}"

    def snapshot(self, commit: str) -> Path:
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
        for file in files:
            note = self.storage / ".no_exist" / commit / file
            with contextlib.suppress(OSError):  # a read-only cache serves all the same
                note.parent.mkdir(parents=True, exist_ok=True)
                note.touch()

    def remember(self, commit: str) -> None:
        """Let the revision's name stand for the commit from now on.

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

    def look_up(self, missing: Sequence[str], local_files_only: bool) -> tuple[str, list[str]] | None:
        """The revision's commit and the names of its files, from the hub.

        None when the hub cannot be reached, with a warning unless that is what the caller asked for;
        HubError instead when files are `missing` from the cache.
        """
        from huggingface_hub import HfApi, constants
        from huggingface_hub.errors import OfflineModeIsEnabled

        try:
            if local_files_only:
                raise OfflineModeIsEnabled("local_files_only is set")
            timeout = constants.HF_HUB_ETAG_TIMEOUT
            info = HfApi().model_info(self.model, revision=self.revision, timeout=timeout)
            if info.sha is None or not COMMIT.fullmatch(info.sha) or info.siblings is None:
                raise ValueError("the answer names no commit or no files")
        except Exception as error:
            if not _unreachable(error):
                raise self._explained(error, "list of files") from error
            problem = f"could not reach {constants.ENDPOINT} ({_reason(error)})"
            if missing:
                raise HubError(
                    f"no folder {self.model} here; {problem}, and the cache {self.cache_dir} has no "
                    f"{', '.join(missing)} of {self.model} at {self.revision}: run once with the network, or give "
                    "the cache that has it"
                ) from error
            if not isinstance(error, OfflineModeIsEnabled):
                warn(f"{problem}; using the cached copy of {self.model}")
            return None
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
        # The hub says 401 to strangers for what does not exist, too; huggingface_hub tells the two apart.
        unknown = isinstance(error, errors.RepositoryNotFoundError) and not isinstance(error, errors.GatedRepoError)
        if status in (401, 403) and not unknown:
            said = getattr(error, "server_message", None) or _reason(error)
            return HubError(
                f"{model} is gated or private ({said}): {log_in}, and accept the model's terms at {hub}/{model}"
            )
        if unknown or status == 404:
            return HubError(
                f"no folder {model!r} here and no such model on {hub}; check the name, or, if it is private, {log_in}"
            )
        return HubError(f"could not get the {what} of {model} from {hub} ({_reason(error)}); run again to get the rest")


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
