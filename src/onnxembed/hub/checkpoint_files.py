"""Which files of a model are its checkpoint, and a local folder that has them all, undamaged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from onnxembed.errors import IntegrityError
from onnxembed.foreign import foreign_errors
from onnxembed.hub.cache import COMMIT, Repository
from onnxembed.hub.source import Fetched, HubOptions, file_names, local_folder, refuse_gaps
from onnxembed.manifest import TOKENIZER_FILE

SHA256 = re.compile(r"[0-9a-f]{64}")
GIT_BLOB = re.compile(r"[0-9a-f]{40}")

# Configurations, vocabularies, sentencepiece models, chat templates: all are small, and any of them may change vectors.
SMALL = (".json", ".txt", ".model", ".jinja", "artifact.metadata", "sparse_linear.pt", "colbert_linear.pt")
CHAT_TEMPLATES = "additional_chat_templates"  # a folder beside chat_template.jinja
# The vocabularies of tokenizers without a tokenizer.json, by any of which a checkpoint has a tokenizer; BPE's
# vocab.json goes with merges.txt.
VOCABULARIES = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
)
TOKENIZERS = (TOKENIZER_FILE, "vocab.txt", "vocab.json", ".model")
# In order of preference: a second format is the same weights again. Each may be sharded, with an index.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# A LoRA adapter beside the weights, in order of preference; adapter_config.json says what it is.
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
CONFIGURED = ("Transformer", "MLMTransformer", "Pooling", "SpladePooling", "Dense")
WEIGHTED = ("Transformer", "MLMTransformer", "StaticEmbedding", "Dense")


Examine = Callable[[Path], object]
"""Raises for a checkpoint that is refused, given the folder with all of its files but the weights."""


def fetch_checkpoint(
    model: str | os.PathLike[str],
    hub: HubOptions | None = None,
    examine: Examine | None = None,
    *,
    weights: bool = True,
) -> Fetched:
    """The folder of a checkpoint with what an export reads: configurations, tokenizer, one format of weights.

    The hub is asked once which commit the revision is, except for a commit that the cache holds. When it
    cannot be reached, a complete copy in the cache is used, with a warning. `examine` is called when the small files
    have come, so that what it refuses costs no download of weights. Without `weights`, they are left on the hub, except
    those of a static table, which alone say what it is (`has_weights` tells what came). Every file is hashed; a
    damaged one is taken out of the cache and raises IntegrityError. Raises ModelFilesError for a repository
    that is no checkpoint, HubError when the hub cannot be asked or says no.
    """
    hub = hub or HubOptions()
    if (own := local_folder(model, hub.revision)) is not None:
        return Fetched(str(model), own, None)
    repository = Repository.of(model, hub)
    folder = repository.cached()
    gaps = _gaps(folder, weights)
    # Another program may have filled the cache and left out files that it does not need. One that asked for
    # modules.json took everything that goes with it. Without a network that is assumed.
    proven = not gaps and repository.knows(folder, "modules.json")
    if not (proven and COMMIT.fullmatch(repository.revision)):
        answer = repository.look_up(gaps, hub) if gaps else repository.try_look_up(hub)
        if answer is not None:
            commit, names = answer
            folder = _download(repository, commit, names, examine, weights)
            left = () if weights else names
            gaps = [file for file in _gaps(folder, True) if file not in left]
            refuse_gaps(gaps, f"{repository.model} at {commit}")
            repository.note_absent({"modules.json"} - set(names), commit)
    _verify(folder, repository.model)
    repository.remember(folder.name)
    return Fetched(repository.model, folder, folder.name)


def has_weights(folder: Path) -> bool:
    """Whether a checkpoint's folder has all of its weights."""
    return not _gaps(folder, True)


def _download(
    repository: Repository, commit: str, names: Collection[str], examine: Examine | None, weights: bool
) -> Path:
    """Put a commit's checkpoint into the cache; `names` are all of its files.

    The small files come first, because they name the modules and the shards of the weights. The Transformer's weights
    come last: a copy that has them has everything.
    """
    folder = repository.download(_small_files(names, ""), commit)
    modules = module_places(folder)
    for _, path in modules:
        if path:
            repository.download(_small_files(names, path), commit)
    # What a static table is, its weights may be alone to say.
    if all(class_name != "StaticEmbedding" for class_name, _ in modules):
        if examine is not None:
            examine(folder)
        if not weights:
            return folder
    for _, path in reversed(modules):
        repository.download(_weights(folder, names, path), commit)
    return folder


def _checkpoint_files(folder: Path) -> list[str]:
    """The files of a complete folder that an export reads."""
    names, paths = file_names(folder), [path for _, path in module_places(folder)]
    small = [name for path in dict.fromkeys(("", *paths)) for name in _small_files(names, path)]
    return small + [name for path in paths for name in _weights(folder, names, path)]


def _small_files(names: Iterable[str], path: str) -> list[str]:
    places = (path, f"{path}/{CHAT_TEMPLATES}".lstrip("/"))
    return [name for name in names if name.rpartition("/")[0] in places and name.endswith(SMALL)]


def _weights(folder: Path, names: Collection[str], path: str) -> list[str]:
    """The weights directly in `path`: a single file, or the shards that an index names; of one format only."""
    place = path and f"{path}/"
    adapter = [place + name for name in ADAPTERS if place + name in names][:1]
    for single in WEIGHTS:
        if place + single in names:
            return [*adapter, place + single]
        index = f"{place}{single}.index.json"
        if index in names:
            return adapter + sorted(
                {place + shard for shard in _read(folder / index, lambda map: map["weight_map"].values())}
            )
    return [name for name in names if name.rpartition("/")[0] == path and name.endswith(".safetensors")]


def module_places(folder: Path) -> list[tuple[str, str]]:
    """Class and path of each sentence-transformers module; a plain model is one Transformer at the root.

    Lenient: this says where files lie. `facts.modules.read_modules` judges what modules.json says.
    """
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
    with foreign_errors(f"{path} is not the {path.name} of a model"):
        return list(pick(json.loads(path.read_text(encoding="utf-8"))))


def _gaps(folder: Path, weights: bool) -> list[str]:
    """Files that a folder lacks to be a complete checkpoint; not those that only the hub knows of.

    Without `weights`, only those of a static table count.
    """
    names = file_names(folder)
    gaps = []
    for class_name, path in module_places(folder):
        place = path and f"{path}/"
        needed = []
        if weights or class_name == "StaticEmbedding":
            needed = _weights(folder, names, path)
            if not needed and class_name in WEIGHTED:
                needed = [place + WEIGHTS[0]]
        if class_name in CONFIGURED:
            needed = [f"{place}config.json", *needed]
        gaps += [file for file in needed if file not in names]
    if not any(name.endswith(TOKENIZERS) for name in names):
        gaps.append(TOKENIZERS[0])
    return gaps


def _verify(folder: Path, model: str) -> None:
    """Hash the checkpoint's files: the cache names the copy of each by its sha256, or as git does if it is small."""
    for file in _checkpoint_files(folder):
        link = folder / file
        if not link.is_symlink():  # a cache without links keeps no hash
            continue
        # One step only: a blob may itself be a link, to a store that names files by another hash.
        blob = link.parent / os.readlink(link)
        kind, actual = _digest(blob)
        if actual is not None and actual != blob.name:
            for damaged in (blob.resolve(), blob, link):
                with contextlib.suppress(OSError):  # gone with the one before, or the cache is read-only
                    damaged.unlink()
            raise IntegrityError(
                f"{file} of {model} is damaged ({kind} {actual} instead of {blob.name}); run again to download it anew"
            )


def _digest(blob: Path) -> tuple[str, str | None]:
    """The kind of a blob's name, and the name that its content has; None for a name that says nothing of it."""
    if SHA256.fullmatch(blob.name):
        with blob.open("rb") as content:
            return "sha256", hashlib.file_digest(content, "sha256").hexdigest()
    if GIT_BLOB.fullmatch(blob.name):
        data = blob.read_bytes()
        return "git id", hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    return "", None
