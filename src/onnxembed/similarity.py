"""Scores of dense, sparse and multi-vector embeddings, and a search among dense vectors, in numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypedDict

import numpy as np

from onnxembed.arguments import whole_number
from onnxembed.arrays import Array, FloatArray, IntArray
from onnxembed.errors import UsageError
from onnxembed.manifest import Task
from onnxembed.runtime.outputs.pooling import normalize
from onnxembed.runtime.outputs.sparse import SparseEmbedding

Compared = Array | SparseEmbedding | Sequence[Array] | Sequence[SparseEmbedding]
"""Embeddings of one kind: of one text, or of several."""


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


def cosine(a: FloatArray, b: FloatArray) -> FloatArray:
    """The cosine of each row of `a` [N, D] with each row of `b` [M, D]: [N, M]."""
    products: FloatArray = normalize(a) @ normalize(b).T
    return products


def dot(a: FloatArray, b: FloatArray) -> FloatArray:
    """The dot product of each row of `a` with each row of `b`: [N, M]."""
    products: FloatArray = a @ b.T
    return products


def euclidean(a: FloatArray, b: FloatArray) -> FloatArray:
    """Minus the distance of each row of `a` from each row of `b`: [N, M]."""
    return -np.stack([np.sqrt(np.square(b - row).sum(axis=1)) for row in a])


def manhattan(a: FloatArray, b: FloatArray) -> FloatArray:
    """Minus the sum of the absolute differences of each row of `a` and each row of `b`: [N, M]."""
    return -np.stack([np.abs(b - row).sum(axis=1) for row in a])


SIMILARITIES: Mapping[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "cosine": cosine,
    "dot": dot,
    "euclidean": euclidean,
    "manhattan": manhattan,
}
"""The similarities of dense vectors, by the names that sentence-transformers 6.2 gives them; larger is more alike."""


TOKEN_SIMILARITIES: Mapping[str, Callable[[FloatArray, FloatArray], float]] = {
    "maxsim": maxsim,
    "mean_maxsim": mean_maxsim,
}
"""The similarities of multi-vector embeddings, by the names that sentence-transformers 6.2 gives them."""


def similarities(task: Task, name: str, a: Compared, b: Compared) -> FloatArray:
    """How alike each embedding of `a` and each of `b` are, [N, M] float32, by the similarity `name`.

    `task` says what the embeddings are. UsageError for others, and for a name that does not compare such embeddings.
    """
    found, asked = items_of(task, b), items_of(task, a)
    if task == "multi_vector":
        if name not in TOKEN_SIMILARITIES:
            raise UsageError(f"the similarity is {name!r}, not one of {', '.join(TOKEN_SIMILARITIES)}")
        compare = TOKEN_SIMILARITIES[name]
        scores = [compare(query, document) for query in asked for document in found]
        return np.array(scores, np.float32).reshape(len(asked), len(found))
    if task == "sparse":
        ids = np.unique(np.concatenate([np.empty(0, np.int64), *(each.indices for each in [*asked, *found])]))
        asked, found = _columns(asked, ids), _columns(found, ids)
    return similarity_function(name)(asked, found)


def items_of(task: Task, embeddings: Compared) -> Any:
    """The embeddings one by one: rows [N, D], or a list; one by itself counts as one of one."""
    _refuse_texts(embeddings)
    if task == "embedding":
        if not _holds_sparse(embeddings):
            with suppress(ValueError):  # of rows of several lengths
                rows = np.atleast_2d(np.asarray(embeddings, np.float32))
                if rows.ndim == 2:
                    return rows
        raise UsageError("dense vectors are compared here; sparse_dot, maxsim and mean_maxsim compare the other kinds")
    if task == "sparse":
        if not _holds_sparse(embeddings):
            raise UsageError("sparse embeddings are compared here, as encode_sparse gives them")
        return [embeddings] if isinstance(embeddings, SparseEmbedding) else [*embeddings]
    one = isinstance(embeddings, np.ndarray) and embeddings.ndim == 2
    vectors: list[Any] = [embeddings] if one else [*embeddings]  # type: ignore[misc]
    if any(np.ndim(each) != 2 for each in vectors):
        raise UsageError("multi-vector embeddings [T, D] are compared here, as encode_multi_vector gives them")
    return vectors


def _refuse_texts(embeddings: object) -> None:
    """UsageError for a text or texts where their embeddings are meant, and for a model where vectors are."""
    first = embeddings[0] if isinstance(embeddings, list | tuple) and embeddings else embeddings
    if isinstance(first, str):
        raise UsageError("texts have no similarity of their own: give what the model's encode makes of them")
    if hasattr(first, "encode"):
        raise UsageError(f"a model is no embedding: give what {type(first).__name__}'s encode makes of the texts")


def _rows(vectors: Array) -> FloatArray:
    """Vectors [N, D], or [D] for one, as rows of float32."""
    _refuse_texts(vectors)
    return np.atleast_2d(np.asarray(vectors, np.float32))


def _holds_sparse(embeddings: object) -> bool:
    if isinstance(embeddings, list):
        return all(isinstance(each, SparseEmbedding) for each in embeddings)
    return isinstance(embeddings, SparseEmbedding)


def _columns(embeddings: Sequence[SparseEmbedding], ids: IntArray) -> FloatArray:
    """The weights of the ids, [N, K], which are in ascending order and hold all those of the embeddings."""
    weights = np.zeros((len(embeddings), len(ids)), np.float32)
    for row, each in zip(weights, embeddings, strict=True):
        row[np.searchsorted(ids, each.indices)] = each.values
    return weights


class Hit(TypedDict):
    """A document that a search found, as sentence-transformers' `semantic_search` gives it."""

    corpus_id: int
    score: float


def semantic_search(
    queries: Array, documents: Array, top_k: int = 10, *, function: str = "cosine", block: int = 65536
) -> list[list[Hit]]:
    """The `top_k` documents that are most similar to each query, best first; all of them if there are fewer.

    Equal scores come in the order of the documents. Memory stays bounded: scores are computed for `block` documents
    and at most 256 queries at a time.

    Args:
        queries: vectors [N, D], or [D] for one.
        documents: vectors [M, D].
        top_k: how many documents to find.
        function: "cosine", "dot", "euclidean" or "manhattan".
        block: how many documents are compared at a time.

    Raises:
        UsageError: an argument has an impossible value.
    """
    asked, found = _rows(queries), _rows(documents)
    whole_number("top_k", top_k)
    whole_number("block", block)
    score = similarity_function(function)
    return [
        [{"corpus_id": int(place), "score": float(value)} for place, value in zip(places, values, strict=True)]
        for first in range(0, len(asked), 256)
        for places, values in _best(score, asked[first : first + 256], found, top_k, block)
    ]


def paraphrase_mining(
    embeddings: Array, top_k: int = 100, *, max_pairs: int = 500_000, function: str = "cosine", block: int = 65536
) -> list[tuple[float, int, int]]:
    """The pairs of texts that are most similar: (score, i, j) with i < j, best first.

    Each text is compared with all others, and its `top_k` best ones are pairs. Memory stays bounded, as for
    `semantic_search`. Reference: sentence-transformers' util.paraphrase_mining_embeddings.

    Args:
        embeddings: vectors [N, D].
        top_k: how many others to find for each text.
        max_pairs: how many pairs to return at most.
        function: "cosine", "dot", "euclidean" or "manhattan".
        block: how many vectors are compared at a time.

    Raises:
        UsageError: an argument has an impossible value.
    """
    vectors = _rows(embeddings)
    for name, number in (("top_k", top_k), ("max_pairs", max_pairs), ("block", block)):
        whole_number(name, number)
    score = similarity_function(function)
    pairs: dict[tuple[int, int], float] = {}
    for first in range(0, len(vectors), 256):
        found = _best(score, vectors[first : first + 256], vectors, top_k + 1, block)
        for own, (places, values) in enumerate(found, start=first):
            others = [(int(place), float(value)) for place, value in zip(places, values, strict=True) if place != own]
            for other, value in others[:top_k]:
                pairs.setdefault((min(own, other), max(own, other)), value)
        if len(pairs) > 2 * max_pairs:
            pairs = dict(_best_pairs(pairs, max_pairs))
    return [(value, *pair) for pair, value in _best_pairs(pairs, max_pairs)]


def _best_pairs(pairs: dict[tuple[int, int], float], count: int) -> list[tuple[tuple[int, int], float]]:
    """The pairs of the highest scores, best first; equal ones in their order."""
    return sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))[:count]


def similarity_function(name: str) -> Callable[[FloatArray, FloatArray], FloatArray]:
    """The similarity of this name; UsageError for another one."""
    if name not in SIMILARITIES:
        raise UsageError(f"the similarity is {name!r}, not one of {', '.join(SIMILARITIES)}")
    return SIMILARITIES[name]


def _best(
    score: Callable[[FloatArray, FloatArray], FloatArray],
    queries: FloatArray,
    documents: FloatArray,
    top_k: int,
    block: int,
) -> Iterator[tuple[IntArray, FloatArray]]:
    """For each query, the places of its best documents and their scores."""
    values = np.empty((len(queries), 0), np.float32)
    places = np.empty((len(queries), 0), np.int64)
    for first in range(0, len(documents), block):
        scores = score(queries, documents[first : first + block])
        numbers = np.broadcast_to(np.arange(first, first + scores.shape[1]), scores.shape)
        values, places = np.concatenate([values, scores], axis=1), np.concatenate([places, numbers], axis=1)
        order = np.argsort(-values, axis=1, kind="stable")[:, :top_k]
        values, places = np.take_along_axis(values, order, axis=1), np.take_along_axis(places, order, axis=1)
    return zip(places, values, strict=True)
