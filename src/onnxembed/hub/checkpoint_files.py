"""Which files of a model are its checkpoint, and a local folder that has them all, undamaged."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from onnxembed.errors import ModelFilesError
from onnxembed.foreign_errors import foreign_errors
from onnxembed.hub.hub_files import MODULES_FILE, HubFiles
from onnxembed.hub.model_files import ModelFiles, is_local, local_folder
from onnxembed.hub.source import Fetched, HubOptions, file_names, refuse_gaps
from onnxembed.manifest import TOKENIZER_FILE

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
ADAPTER_CONFIG = "adapter_config.json"
CONFIGURED = ("Transformer", "MLMTransformer", "Pooling", "SpladePooling", "Dense", "LayerNorm", "WeightedLayerPooling")
WEIGHTED = ("Transformer", "MLMTransformer", "StaticEmbedding", "Dense", "LayerNorm", "WeightedLayerPooling")
# What a copy in the cache must have of a model's small files if the hub cannot be asked: another program that
# downloaded the model leaves out what it does not read itself, such as the figures of a training.
DECISIVE = re.compile(
    r".*/.*|modules\.json|config\.json|config_sentence_transformers\.json|sentence_[\w-]+_config\.json|tokenizer\.json|"
    r"tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|chat_template\.json|.*\.jinja|"
    r"adapter_config\.json|artifact\.metadata|.*_linear\.pt|.*\.index\.json"
)
# What says under which terms the weights may be used; it changes no vector.
TERMS = re.compile(r"README\.md|(?:LICEN[CS]E|NOTICE|COPYING)[\w.-]*", re.IGNORECASE)

PLAIN = [("Transformer", "")]
"""The modules of a model without modules.json."""

Examine = Callable[[Fetched], object]
"""Raises for a checkpoint that is refused, given the folder with all of its files but the weights."""

Places = Sequence[tuple[str, str]]
"""Class and path of each module."""


def fetch_checkpoint(
    model: str | os.PathLike[str],
    hub: HubOptions | None = None,
    examine: Examine | None = None,
    *,
    weights: bool = True,
    opened: ModelFiles | None = None,
) -> Fetched:
    """The folder of a checkpoint with what an export reads: configurations, tokenizer, one format of weights.

    The hub is asked once which commit the revision is, except for a commit that the cache holds. When it
    cannot be reached, a complete copy in the cache is used, with a warning. `examine` is called when the small files
    have come, so that what it refuses costs no download of weights. Without `weights`, they are left on the hub, except
    those of a static table, which alone say what it is (`has_weights` tells what came). `opened` are the model's files,
    if the hub was asked for them already. Every file is hashed; a damaged one is downloaded anew. The base of a LoRA
    adapter that lies alone is fetched, too, if the adapter names a hub model. Raises ModelFilesError for a repository
    that is no checkpoint, HubError when the hub cannot be asked or says no.
    """
    hub = hub or HubOptions()
    if (own := local_folder(model, hub.revision)) is not None:
        base = _open_base(own, hub)
        if base is not None and weights:
            _finish_base(base)
        return Fetched(str(model), own, None, None if base is None else base.folder)
    files = opened if isinstance(opened, HubFiles) else HubFiles(model, hub)
    names = _get_small_files(files, weights)
    places = module_places(files.folder)
    _check_small_files(files, ["", *(path for _, path in places)])
    base = _open_base(files.folder, hub)
    fetched = Fetched(files.model, files.folder, files.commit, None if base is None else base.folder)
    # Of a static table, the weights may be the only file that says what it is.
    if all(name != "StaticEmbedding" for name, _ in places):
        if examine is not None and names is not None:
            examine(fetched)
        if not weights:
            left = _gaps(files.folder, True) if names is None else names
            refuse_gaps([file for file in _gaps(files.folder, True) if file not in left], _where(files))
            return fetched
    if base is not None:
        _finish_base(base)
    files.get_if_possible(TERMS)
    _finish(files, places)
    refuse_gaps(_gaps(files.folder, True), _where(files))
    return fetched


def has_weights(checkpoint: Fetched) -> bool:
    """Whether a checkpoint's folder has all of its weights, and that of its base, too."""
    base = checkpoint.base
    return not _gaps(checkpoint.folder, True) and (base is None or bool(_weights(base, file_names(base), "")))


def _where(files: HubFiles) -> str:
    return f"{files.model} at {files.commit}"


def _get_small_files(files: HubFiles, weights: bool) -> Collection[str] | None:
    """Put the small files of a commit into the cache; returns the names of all of its files, None if that is unknown.

    The small files come first, because they name the modules and the shards of the weights.
    """
    _check_small_files(files, [""])  # before modules.json and the weights' index are read
    gaps = _gaps(files.folder, weights)
    # Another program may have filled the cache and left out files that it does not need. One that asked for
    # modules.json took everything that goes with it. Without a network that is assumed.
    names = files.listed
    if gaps or not files.knows(MODULES_FILE):
        names = files.look_up(gaps)
    if names is None:
        files.get(_broken_links(files))
        return None
    files.get(_read_by_us(files, _small_files(names, "")), [MODULES_FILE])
    for _, path in module_places(files.folder):
        if path:
            files.get(_read_by_us(files, _small_files(names, path)))
    return names


def _check_small_files(files: HubFiles, paths: Iterable[str]) -> None:
    """Replace damaged copies of the small files in these folders, before anything is read from them."""
    names = file_names(files.folder)
    files.check(name for path in dict.fromkeys(paths) for name in _small_files(names, path))


def _broken_links(files: HubFiles) -> list[str]:
    """The files that the folder has links to, and the cache no copy of."""
    links = [path for path in files.folder.rglob("*") if path.is_symlink() and not path.exists()]
    names = [path.relative_to(files.folder).as_posix() for path in links]
    places = dict.fromkeys(("", *(path for _, path in module_places(files.folder))))
    return [name for path in places for name in _read_by_us(files, _small_files(names, path))]


def _read_by_us(files: HubFiles, small: Sequence[str]) -> Sequence[str]:
    """Those of the small files that must be there: all, or what decides when the hub cannot be asked."""
    if files.can_ask:
        return small
    vocabularies = () if TOKENIZER_FILE in small else VOCABULARIES
    return [name for name in small if DECISIVE.fullmatch(name) or name in vocabularies]


def _finish(files: HubFiles, places: Places) -> None:
    """Put the weights into the cache, check every file, and let the revision's name stand for the copy.

    The Transformer's weights come last: a copy that has them has everything.
    """
    names = files.listed
    if names is not None:
        for _, path in reversed(places):
            files.get(_weights(files.folder, names, path))
    files.check(_checkpoint_files(files.folder, places))
    files.remember()


def _open_base(folder: Path, hub: HubOptions) -> HubFiles | None:
    """The base of a LoRA adapter that lies alone, without its weights yet; None if it is no hub model.

    Its revision is the one that the adapter names. `facts.adapter` judges the adapter.
    """
    place = next((path for name, path in module_places(folder) if name in WEIGHTED), "")
    config = folder / place / ADAPTER_CONFIG
    if not config.is_file() or config.with_name("config.json").is_file():
        return None
    base, revision = _read(config, lambda content: (content.get("base_model_name_or_path"), content.get("revision")))
    if not isinstance(base, str) or is_local(base):
        return None
    if not isinstance(revision, str | None):
        raise ModelFilesError(f"{config}: revision is {revision!r}, not the name of one")
    files = HubFiles(base, replace(hub, revision=revision))
    wanted = ["config.json"]
    names = files.look_up(() if (files.folder / wanted[0]).is_file() else wanted)
    if names is not None:
        refuse_gaps([name for name in wanted if name not in names], f"{base}, the base that {config} names,")
        files.get(_read_by_us(files, _small_files(names, "")))
    _check_small_files(files, [""])
    return files


def _finish_base(base: HubFiles) -> None:
    _finish(base, PLAIN)
    if not _weights(base.folder, file_names(base.folder), ""):
        refuse_gaps(WEIGHTS[:1], f"{base.model} at {base.commit}, the base of the adapter,")


def _checkpoint_files(folder: Path, places: Places) -> list[str]:
    """The files of a complete folder that an export reads."""
    names, paths = file_names(folder), [path for _, path in places]
    small = [name for path in dict.fromkeys(("", *paths)) for name in _small_files(names, path)]
    return small + [name for path in paths for name in _weights(folder, names, path)]


def _small_files(names: Iterable[str], path: str) -> list[str]:
    places = (path, f"{path}/{CHAT_TEMPLATES}".lstrip("/"))
    small = [name for name in names if name.rpartition("/")[0] in places and name.endswith(SMALL)]
    return [name for name in small if not TERMS.fullmatch(name)]


def _weights(folder: Path, names: Collection[str], path: str) -> list[str]:
    """The weights directly in `path`: a single file, or the shards that an index names; of one format only."""
    place = path and f"{path}/"
    adapter = [place + name for name in ADAPTERS if place + name in names][:1]
    for single in WEIGHTS:
        if place + single in names:
            return [*adapter, place + single]
        index = f"{place}{single}.index.json"
        if index in names:
            shards = _read(folder / index, lambda map: map["weight_map"].values())
            return adapter + sorted({place + shard.removeprefix("./") for shard in shards})
    others = [name for name in names if name.rpartition("/")[0] == path and name.endswith(".safetensors")]
    return list(dict.fromkeys((*adapter, *others)))


def module_places(folder: Path) -> list[tuple[str, str]]:
    """Class and path of each sentence-transformers module; a plain model is one Transformer at the root.

    Lenient: this says where files lie. `facts.modules.read_modules` judges what modules.json says.
    """
    if not (folder / MODULES_FILE).is_file():
        return PLAIN

    def place(module: Any) -> tuple[str, str]:
        path = "/".join(PurePosixPath(module["path"]).parts)
        (folder / path).exists()  # raises for a name that no file system takes
        return module["type"].rpartition(".")[2], path

    return _read(folder / MODULES_FILE, lambda modules: [place(module) for module in modules])


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
        if class_name in CONFIGURED and place + ADAPTER_CONFIG not in names:  # an adapter may lie alone
            needed = [f"{place}config.json", *needed]
        gaps += [file for file in needed if file not in names]
    if not any(name.endswith(TOKENIZERS) for name in names):
        gaps.append(TOKENIZERS[0])
    return gaps
