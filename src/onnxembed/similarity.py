"""Scores of sparse and multi-vector embeddings. Pure numpy; dense vectors need no more than `queries @ documents.T`."""

from __future__ import annotations

import numpy as np

from onnxembed.arrays import FloatArray
from onnxembed.errors import UsageError
from onnxembed.runtime.outputs.sparse import SparseEmbedding


def sparse_dot(query: SparseEmbedding, document: SparseEmbedding) -> float:
    """The sum, over the ids that both have, of the product of their weights: bge-m3's lexical matching score."""
    _, ours, theirs = np.intersect1d(query.indices, document.indices, assume_unique=True, return_indices=True)
    return float(query.values[ours] @ document.values[theirs])


def maxsim(query: FloatArray, document: FloatArray) -> float:
    """ColBERT's score of vectors [T, D]: the sum, over the query's tokens, of the best dot product with a document's.

    0 when either has no vectors.
    """
    if not (len(query) and len(document)):
        return 0.0
    return float((query @ document.T).max(axis=1).sum())


def mean_maxsim(query: FloatArray, document: FloatArray) -> float:
    """`maxsim` divided by the number of the query's tokens: bge-m3's multi-vector score."""
    return maxsim(query, document) / max(1, len(query))


def hybrid_score(
    *, dense: float, sparse: float, multi_vector: float, weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> float:
    """bge-m3's combined score: the weighted mean of the three, `weights` in the order of the arguments.

    Raises UsageError for weights that add up to nothing.
    """
    if sum(weights) <= 0:
        raise UsageError(f"weights are {weights}, which add up to no more than 0")
    return sum(w * score for w, score in zip(weights, (dense, sparse, multi_vector), strict=True)) / sum(weights)
