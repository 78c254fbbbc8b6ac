"""Scores of sparse and multi-vector embeddings, in numpy. Dense vectors need only `queries @ documents.T`."""

from __future__ import annotations

import numpy as np

from onnxembed.arrays import FloatArray
from onnxembed.errors import UsageError
from onnxembed.runtime.outputs.sparse import SparseEmbedding


def sparse_dot(query: SparseEmbedding, document: SparseEmbedding) -> float:
    """The sum of the products of the weights of the ids that both have: bge-m3's lexical matching score."""
    _, in_query, in_document = np.intersect1d(query.indices, document.indices, assume_unique=True, return_indices=True)
    return float(query.values[in_query] @ document.values[in_document])


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

    Raises UsageError unless the sum of the weights is above 0.
    """
    if sum(weights) <= 0:
        raise UsageError(f"weights are {weights}; their sum must be above 0")
    return sum(w * score for w, score in zip(weights, (dense, sparse, multi_vector), strict=True)) / sum(weights)
