"""A vector for each token (ColBERT, late interaction): what goes into the graph, and which vectors are a text's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxembed.arrays import FloatArray, IntArray
from onnxembed.errors import UsageError
from onnxembed.manifest import MultiVector, QueryExpansion, TextKind

OUTPUT = "multi_vector"
"""The graph's output [B, T, D]."""

Feeds = Mapping[str, IntArray]
Places = NDArray[np.bool_]


def treats_alike(section: MultiVector) -> bool:
    """Whether queries and documents go through the model in the same way, prompts apart."""
    expands = section.query_expansion.value is not None
    skips = bool(section.skipped_token_ids.value) and len(section.skipped_in) == 1
    return not expands and not skips and section.query_length.value == section.document_length.value


def prepare(section: MultiVector, kind: TextKind, feeds: Feeds) -> tuple[Feeds, Places]:
    """Of the texts of one run, padded on the right: the graph's inputs, and whose vectors to keep, bool [B, T]."""
    kept = feeds["attention_mask"] == 1
    if not section.first_token.value:
        kept[:, 0] = False
    expansion = section.query_expansion.value
    if kind == "query" and expansion is not None:
        feeds, added = _expand(feeds, expansion)
        kept = np.pad(kept, [(0, 0), (0, added.shape[1] - kept.shape[1])]) | added
    if kind in section.skipped_in:
        kept = kept & ~np.isin(feeds["input_ids"], section.skipped_token_ids.value)
    return feeds, kept


def _expand(feeds: Feeds, expansion: QueryExpansion) -> tuple[Feeds, Places]:
    """Fill queries up to the expansion's length; also the places that were filled, bool [B, T]."""
    missing = max(0, expansion.length - feeds["input_ids"].shape[1])
    wider = {name: np.pad(array, [(0, 0), (0, missing)]) for name, array in feeds.items()}
    ids, mask = wider["input_ids"], wider["attention_mask"]
    added = (mask == 0) & (np.arange(ids.shape[1]) < expansion.length)
    wider["input_ids"] = np.where(added, expansion.token_id, ids)
    if expansion.attended:
        wider["attention_mask"] = np.where(added, 1, mask)
    return wider, added


def plain_vectors(section: MultiVector) -> Callable[[FloatArray, Feeds], Sequence[FloatArray]]:
    """What makes vectors of the output of texts that went into the graph as they are, whatever their kind.

    Raises UsageError for a model to which the kind matters.
    """
    if not treats_alike(section):
        raise UsageError(
            "this model does not treat queries and documents alike: use embed_multi_vector(texts, kind=...) for them"
        )
    return lambda output, feeds: multi_vectors(output, prepare(section, "document", feeds)[1])


def multi_vectors(output: FloatArray, kept: Places) -> Sequence[FloatArray]:
    """The vectors of each text, [T, D], of the graph's output [B, T, D]."""
    return [vectors[places] for vectors, places in zip(output, kept, strict=True)]
