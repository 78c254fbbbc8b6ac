"""The identity of a vector space: what decides the vectors of a model, in a short id and in words.

Vectors can be compared if their spaces are equal. The precision of the graph, the provider, prompts and a cut to fewer
dimensions are not part of a space: they are recorded beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from onnxembed.errors import UsageError
from onnxembed.manifest import TOKENIZER_FILE, Embedding, Manifest, MultiVector, Sparse, Task

ID_LENGTH = 12
"""Hexadecimal digits of an id: 48 bits, so that among a million spaces two have one id with a chance of 1 in 500."""

# Digits of a hash that stands among words.
_SHORT = 16


@dataclass(frozen=True)
class Space:
    """A vector space: its id, and what the id is made of, by name and in words."""

    id: str
    parts: Mapping[str, str]


def space_of(
    manifest: Manifest, folder: Path, task: Task, *, max_length: int | None = None, normalize: bool | None = None
) -> Space:
    """The space of a model's vectors for a task.

    `max_length` and `normalize` are what was chosen instead of the model's own. The tensors are known by the hash that
    an export recorded; for older artifacts and adopted graphs, by the hash of the graph's files. `folder` is read only
    where no hashes are recorded.

    Raises UsageError for a task without vectors, and for one that the model does not have.
    """
    tokens = manifest.tokenization
    length = tokens.max_length.value if max_length is None else max_length
    parts = {
        "tensors": manifest.model.tensors or f"graph {_graph_hash(manifest, folder)}",
        "tokenizer": _hash(manifest, folder, TOKENIZER_FILE)[:_SHORT],
        "attention": manifest.model.attention.value,
        "max_length": f"{length}, cut on the {tokens.truncation_side.value}",
        "adapter": manifest.model.adapter.value if manifest.model.adapter else "none",
        **_PARTS[task](manifest, normalize),
    }
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return Space(hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH], parts)


def with_spaces(manifest: Manifest, folder: Path) -> Manifest:
    """The manifest with the id of the space of each task that makes vectors; errors as for `space_of`."""
    spaces: dict[str, str] = {
        task: space_of(manifest, folder, task).id for task in manifest.tasks if task != "reranking"
    }
    return replace(manifest, spaces=spaces or None)


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """What differs between the parts of two spaces, in words."""
    names = dict.fromkeys((*ours, *theirs))
    return [
        f"{name}: {ours.get(name, 'none')} and {theirs.get(name, 'none')}"
        for name in names
        if ours.get(name) != theirs.get(name)
    ]


def _graph_hash(manifest: Manifest, folder: Path) -> str:
    """A hash of the graph's files: of fp32 if the artifact has it, else of the first."""
    variant = manifest.variants.get("fp32") or next(iter(manifest.variants.values()))
    hashes = [_hash(manifest, folder, name) for name in (variant.file, variant.data) if name]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:_SHORT]


def _hash(manifest: Manifest, folder: Path, name: str) -> str:
    """The sha256 of a file, recorded or not."""
    if name in manifest.files:
        return manifest.files[name].sha256
    with (folder / name).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _dense(manifest: Manifest, normalize: bool | None) -> dict[str, str]:
    section: Embedding = manifest.require_embedding()
    layers = section.layers or [
        f"Dense {layer.in_features} -> {layer.out_features}, {layer.activation}" for layer in section.dense
    ]
    without = {"prompt": "left out of the pooling"} if section.prompt_left_out else {}
    return {
        "pooling": "+".join(section.pooling.value),
        **without,
        "layers": "; ".join(layers) or "none",
        "normalize": _word(section.normalize.value if normalize is None else normalize),
    }


def _sparse(manifest: Manifest, normalize: bool | None) -> dict[str, str]:
    section: Sparse = manifest.require_sparse()
    return {
        "activation": section.activation.value,
        "aggregation": section.aggregation.value,
        "dropped tokens": _ids(section.dropped_token_ids.value),
    }


def _multi_vector(manifest: Manifest, normalize: bool | None) -> dict[str, str]:
    section: MultiVector = manifest.require_multi_vector()
    expansion = section.query_expansion.value
    return {
        "normalize": _word(section.normalize.value),
        "first token": _word(section.first_token.value),
        "query length": str(section.query_length.value),
        "document length": str(section.document_length.value),
        "query expansion": "none" if expansion is None else json.dumps(asdict(expansion), sort_keys=True),
        "skipped tokens": f"{_ids(section.skipped_token_ids.value)} in {' and '.join(section.skipped_in) or 'none'}",
    }


def _none(manifest: Manifest, normalize: bool | None) -> dict[str, str]:
    raise UsageError("a reranker makes scores, which are in no vector space")


_PARTS: Mapping[Task, Callable[[Manifest, bool | None], dict[str, str]]] = {
    "embedding": _dense,
    "sparse": _sparse,
    "multi_vector": _multi_vector,
    "reranking": _none,
}


def _word(value: bool) -> str:
    return "yes" if value else "no"


def _ids(ids: tuple[int, ...]) -> str:
    """A few ids as they are, many as a hash of them."""
    words = ", ".join(map(str, ids))
    return words if len(ids) <= 8 else f"{len(ids)} ids, {hashlib.sha256(words.encode()).hexdigest()[:_SHORT]}"
