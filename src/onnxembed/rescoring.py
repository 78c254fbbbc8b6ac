"""Search among bits, and better scores for what it found: the two halves of binary retrieval, in numpy.

Bits find the right documents among a few times as many as are wanted; the query's own numbers then bring them into the
right order, as `semantic_search_faiss` and `semantic_search_usearch` of sentence-transformers do it.
"""

from __future__ import annotations

import numpy as np

from onnxembed.arguments import whole_number
from onnxembed.arrays import Array, IntArray
from onnxembed.errors import UsageError
from onnxembed.quantization import restore, unsigned_bits
from onnxembed.similarity import Hit

NONE = -1
"""The place of a candidate that is none, as indexes fill up their answers."""


def binary_search(queries: Array, documents: Array, top_k: int = 40, *, block: int = 65536) -> IntArray:
    """The places of the `top_k` documents whose bits differ least from each query's, nearest first: int64 [N, K].

    K is `top_k`, or the number of documents if there are fewer. Equal distances come in the order of the documents.
    Memory stays bounded: distances are computed for one query and `block` documents at a time.

    Args:
        queries: bits, as `dtype="binary"` or "ubinary" gives them, [N, B] bytes, or [B] for one.
        documents: bits of the same width, [M, B].
        top_k: how many to find; a few times as many as are wanted in the end.
        block: how many documents are compared at a time.

    Raises:
        UsageError: an argument has an impossible value, or the two do not have the same width.
    """
    whole_number("top_k", top_k)
    whole_number("block", block)
    asked, found = _bits("queries", np.atleast_2d(queries)), _bits("documents", np.atleast_2d(documents))
    if asked.shape[1] != found.shape[1]:
        raise UsageError(f"queries have {asked.shape[1]} bytes of bits, and documents {found.shape[1]}")
    return np.stack([_nearest(query, found, top_k, block) for query in asked])


def rescore(
    queries: Array, documents: Array, candidates: IntArray, top_k: int = 10, *, ranges: Array | None = None
) -> list[list[Hit]]:
    """The `top_k` best of each query's candidates, by the dot product of its numbers with what the documents stand for.

    Documents keep their quantized form: those of the candidates alone are restored. A bit stands for 1 or -1, an 8-bit
    number for its place in the range. Equal scores come in the order of the candidates.

    Args:
        queries: vectors [N, D] of floats, or [D] for one.
        documents: vectors [M, ...] as `quantize_embeddings` gives them, of any type.
        candidates: the places of some documents for each query, [N, K], as `binary_search` or another index gives
            them; -1 stands for none.
        top_k: how many to keep.
        ranges: the ranges of documents in int8 or uint8, [2, D].

    Raises:
        UsageError: an argument has an impossible value, or documents are no quantized form of D dimensions.
    """
    whole_number("top_k", top_k)
    asked, places = np.atleast_2d(np.asarray(queries, np.float32)), np.atleast_2d(candidates)
    if len(asked) != len(places):
        raise UsageError(f"there are {len(asked)} queries, and candidates for {len(places)}")
    if places.size and not NONE <= places.min() <= places.max() < len(documents):
        raise UsageError(f"candidates are places among the {len(documents)} documents, or -1")
    return [_best(query, documents, own[own != NONE], top_k, ranges) for query, own in zip(asked, places, strict=True)]


def _best(query: Array, documents: Array, places: IntArray, top_k: int, ranges: Array | None) -> list[Hit]:
    scores = restore(documents[places], len(query), ranges) @ query
    order = np.argsort(-scores, kind="stable")[:top_k]
    return [{"corpus_id": int(places[place]), "score": float(scores[place])} for place in order]


def _nearest(query: Array, documents: Array, top_k: int, block: int) -> IntArray:
    """The places of the documents [M, B] whose bits differ least from those of one query [B]."""
    distances = np.concatenate(
        [
            np.bitwise_count(documents[first : first + block] ^ query).sum(axis=1, dtype=np.int64)
            for first in range(0, len(documents), block)
        ]
        or [np.empty(0, np.int64)]
    )
    order: IntArray = np.argsort(distances, kind="stable")[:top_k]
    return order


def _bits(what: str, packed: Array) -> Array:
    if packed.dtype not in (np.int8, np.uint8):
        raise UsageError(f"{what} are {packed.dtype}, not the bytes of bits that dtype='ubinary' gives")
    return unsigned_bits(packed)
