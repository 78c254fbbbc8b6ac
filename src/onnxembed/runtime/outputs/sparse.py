"""Sparse embeddings: a weight for each of the few ids of the vocabulary that a text is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxembed.arrays import Feeds, FloatArray, IntArray
from onnxembed.manifest import LOGARITHMS, LOGITS, Sparse

GATHER: dict[Literal["max", "sum"], np.ufunc] = {"max": np.maximum, "sum": np.add}
"""How the weights of equal ids are aggregated."""


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


class SparseEmbeddings(list[SparseEmbedding]):
    """The sparse embeddings of several texts, in a list that knows the size of the vocabulary."""

    def __init__(self, embeddings: Iterable[SparseEmbedding], dimension: int) -> None:
        super().__init__(embeddings)
        self.dimension = dimension
        """The size of the vocabulary."""

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of texts and of ids in the vocabulary."""
        return len(self), self.dimension

    def sparsity(self) -> dict[str, float]:
        """The mean number of ids with a weight, and the share of the others, by sentence-transformers' names."""
        active = float(np.mean([len(embedding) for embedding in self])) if self else 0.0
        return {"active_dims": active, "sparsity_ratio": 1.0 - active / self.dimension}


class SparseReadout:
    """Reads one sparse embedding for each text."""

    def __init__(self, section: Sparse) -> None:
        self.outputs = (section.graph_output,)
        self._section = section

    def prepare(self, feeds: Feeds) -> Feeds:
        """The feeds, unchanged."""
        return feeds

    def read(self, outputs: Sequence[FloatArray], feeds: Feeds) -> list[SparseEmbedding]:
        """The embeddings of a run, from weights [B, V] of ids, or weights [B, T] of tokens to aggregate by id."""
        return sparse_embeddings(self._section, outputs[0], feeds)


def sparse_embeddings(section: Sparse, output: FloatArray, feeds: Feeds) -> list[SparseEmbedding]:
    """The embeddings of the texts of one run, from the graph's output.

    It is [B, V], or for the runtime to aggregate [B, T], or logits [B, T, V]; V is the size of the vocabulary.
    """
    if section.aggregated_by == "graph":
        embeddings = [_positive(row) for row in output]
    elif section.graph_output == LOGITS:
        mask = feeds["attention_mask"] == 1
        embeddings = [_positive(_weights(section, row[real])) for row, real in zip(output, mask, strict=True)]
    else:
        gather = GATHER[section.aggregation.value]
        weighted = (feeds["attention_mask"] == 1) & (output > 0)
        embeddings = [
            _gathered(gather, ids[places], weights[places])
            for ids, weights, places in zip(feeds["input_ids"], output, weighted, strict=True)
        ]
    dropped = section.dropped_token_ids.value
    return [_without(embedding, dropped) for embedding in embeddings] if dropped else embeddings


def _weights(section: Sparse, logits: FloatArray) -> FloatArray:
    """The weights [V] of a text's logits [T, V]. Activations preserve order: the largest logit is activated alone."""
    if not len(logits):
        return np.zeros(logits.shape[1], np.float32)
    largest = section.aggregation.value == "max"
    weights = np.maximum(logits.max(axis=0, keepdims=True) if largest else logits, np.float32(0))
    for _ in range(LOGARITHMS[section.activation.value]):
        weights = np.log1p(weights)
    total: FloatArray = weights.sum(axis=0, dtype=np.float32)
    return total


def _positive(weights: FloatArray) -> SparseEmbedding:
    indices = np.flatnonzero(weights > 0)
    return SparseEmbedding(indices, weights[indices])


def _gathered(gather: np.ufunc, ids: IntArray, weights: FloatArray) -> SparseEmbedding:
    """One weight for each id: the largest, or the sum, of those that its tokens have."""
    indices, places = np.unique(ids, return_inverse=True)
    values = np.zeros(len(indices), np.float32)
    gather.at(values, places, weights)
    return SparseEmbedding(indices, values)


def _without(embedding: SparseEmbedding, dropped: tuple[int, ...]) -> SparseEmbedding:
    kept = ~np.isin(embedding.indices, dropped)
    return SparseEmbedding(embedding.indices[kept], embedding.values[kept])
