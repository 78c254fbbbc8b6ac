"""Sparse embeddings: a weight for each of the few ids of the vocabulary that a text is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxembed.arrays import FloatArray, IntArray
from onnxembed.manifest import Sparse

OUTPUTS: dict[Literal["graph", "runtime"], str] = {"graph": "sparse_embedding", "runtime": "sparse_weights"}
"""The graph's output, by who aggregates it."""

GATHER: dict[Literal["max", "sum"], np.ufunc] = {"max": np.maximum, "sum": np.add}


@dataclass(frozen=True, eq=False)
class SparseEmbedding:
    """The ids that have a weight, int64 [K] in ascending order, and their weights, float32 [K], all above 0."""

    indices: IntArray
    values: FloatArray

    def __len__(self) -> int:
        """How many ids have a weight."""
        return len(self.indices)

    def as_dict(self) -> dict[int, float]:
        """The weight of each id."""
        return dict(zip(self.indices.tolist(), self.values.tolist(), strict=True))

    def as_object(self) -> dict[str, IntArray | FloatArray]:
        """The two arrays by their names, as FastEmbed gives them."""
        return {"indices": self.indices, "values": self.values}


def sparse_embeddings(section: Sparse, output: FloatArray, feeds: Mapping[str, IntArray]) -> Sequence[SparseEmbedding]:
    """The embeddings of the texts of one run, from the graph's output: [B, V], or [B, T] for the runtime to gather."""
    if section.aggregated_by == "graph":
        every = ((np.flatnonzero(row > 0), row) for row in output)
        found = [SparseEmbedding(indices, row[indices]) for indices, row in every]
    else:
        gather = GATHER[section.aggregation.value]
        real = feeds["attention_mask"] == 1
        found = [
            _gathered(gather, ids[kept], weights[kept])
            for ids, weights, kept in zip(feeds["input_ids"], output, real & (output > 0), strict=True)
        ]
    dropped = section.dropped_token_ids.value
    return [_without(each, dropped) for each in found] if dropped else found


def _gathered(gather: np.ufunc, ids: IntArray, weights: FloatArray) -> SparseEmbedding:
    """One weight for each id: the largest, or the sum, of those that its tokens have."""
    indices, places = np.unique(ids, return_inverse=True)
    values = np.zeros(len(indices), np.float32)
    gather.at(values, places, weights)
    return SparseEmbedding(indices, values)


def _without(embedding: SparseEmbedding, dropped: tuple[int, ...]) -> SparseEmbedding:
    kept = ~np.isin(embedding.indices, dropped)
    return SparseEmbedding(embedding.indices[kept], embedding.values[kept])
