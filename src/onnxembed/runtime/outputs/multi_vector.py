"""Multi-vector embeddings (ColBERT, late interaction): a vector for each token of a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxembed.arrays import Feeds, FloatArray
from onnxembed.manifest import MultiVector, QueryExpansion, TextKind
from onnxembed.runtime.outputs.pooling import normalize
from onnxembed.runtime.outputs.readout import wrong_width

Places = NDArray[np.bool_]

# The name under which the prepared inputs carry the tokens whose vectors are returned, 0 or 1 [B, T].
_RETURNED = "multi_vector_returned"


class MultiVectorReadout:
    """Reads the vectors of each text's tokens, [T, D], for queries or for documents."""

    def __init__(self, section: MultiVector, kind: TextKind) -> None:
        self.outputs = (section.graph_output,)
        self._section, self._kind = section, kind

    def prepare(self, feeds: Feeds) -> Feeds:
        """The inputs with queries expanded, if the model does that."""
        prepared, places = prepare(self._section, self._kind, feeds)
        return {**prepared, _RETURNED: places.astype(np.int64)}

    def read(self, outputs: Sequence[FloatArray], feeds: Feeds) -> list[FloatArray]:
        """The vectors of each text, [T, D], from the vectors [B, T, D] of all slots."""
        if outputs[0].shape[-1] != self._section.dimension:
            raise wrong_width(outputs[0], self._section.dimension, "multi_vector.dimension")
        places = feeds[_RETURNED] == 1
        embeddings = [vectors[returned] for vectors, returned in zip(outputs[0], places, strict=True)]
        return [normalize(vectors) for vectors in embeddings] if self._section.normalize_again else embeddings


def treats_alike(section: MultiVector) -> bool:
    """Whether the model treats queries and documents alike, apart from prompts."""
    expands = section.query_expansion.value is not None
    skips = bool(section.skipped_token_ids.value) and len(section.skipped_in) == 1
    return not expands and not skips and section.query_length.value == section.document_length.value


def prepare(section: MultiVector, kind: TextKind, feeds: Feeds) -> tuple[Feeds, Places]:
    """The graph's inputs for the texts of one run, and the places of the vectors to return, bool [B, T].

    `feeds` are the inputs of the texts as they are, padded on the right.
    """
    places = feeds["attention_mask"] == 1
    if not section.first_token.value:
        places[:, 0] = False
    expansion = section.query_expansion.value
    if kind == "query" and expansion is not None:
        feeds, added = _expand(feeds, expansion)
        places = np.pad(places, [(0, 0), (0, added.shape[1] - places.shape[1])]) | added
    if kind in section.skipped_in:
        places = places & ~np.isin(feeds["input_ids"], section.skipped_token_ids.value)
    return feeds, places


def _expand(feeds: Feeds, expansion: QueryExpansion) -> tuple[Feeds, Places]:
    """The inputs with queries filled up to the expansion's length, and the places that were filled, bool [B, T]."""
    missing = max(0, expansion.length - feeds["input_ids"].shape[1])
    wider = {name: np.pad(array, [(0, 0), (0, missing)]) for name, array in feeds.items()}
    ids, mask = wider["input_ids"], wider["attention_mask"]
    added = (mask == 0) & (np.arange(ids.shape[1]) < expansion.length)
    wider["input_ids"] = np.where(added, expansion.token_id, ids)
    if expansion.attended:
        wider["attention_mask"] = np.where(added, 1, mask)
    return wider, added
