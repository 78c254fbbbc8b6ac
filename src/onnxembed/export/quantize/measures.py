"""How near an integer graph's results are to fp32's: vectors and weights by direction, scores by their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxembed.arrays import Feeds, FloatArray, row_cosines
from onnxembed.errors import UsageError
from onnxembed.manifest import (
    LOGITS,
    MIN_AGREEMENTS,
    MIN_COSINES,
    SENTENCE_EMBEDDING,
    SPARSE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    PoolingMode,
    Precision,
    Quality,
)
from onnxembed.runtime.outputs.pooling import pool

Read = Callable[[Sequence[str]], Sequence[FloatArray]]
"""Computes outputs of a graph, by name, for one text or pair."""


class Measure(Protocol):
    """What is compared of the graphs of one task."""

    @property
    def floor(self) -> float:
        """The lowest figure that is allowed; 1 means that nothing changed."""

    def row(self, outputs: Sequence[str], read: Read, feeds: Feeds) -> FloatArray:
        """What is compared of one text or pair, [1, K]; `outputs` are those that the graph has."""

    def distances(self, ours: FloatArray, theirs: FloatArray) -> NDArray[np.float64]:
        """How far each row is from fp32's, [N, K], [N, K] -> [N]; a search keeps them below 1 - floor."""

    def quality(self, ours: FloatArray, theirs: FloatArray, kept_wider: tuple[str, ...]) -> Quality:
        """The figures to record."""

    def lowest(self, quality: Quality) -> tuple[str, float]:
        """The figure that must reach the floor, by name."""

    @property
    def flag(self) -> str:
        """The option that sets another floor."""

    @property
    def what(self) -> str:
        """What is compared, for messages."""


@dataclass(frozen=True)
class VectorMeasure:
    """Sentence embeddings, by their cosines; `pooling` is how a graph's tokens are pooled that does not pool them."""

    floor: float
    pooling: Sequence[PoolingMode]
    flag: str = "--min-cosine"
    what: str = "vectors"

    def row(self, outputs: Sequence[str], read: Read, feeds: Feeds) -> FloatArray:
        """The sentence embedding of a text."""
        if SENTENCE_EMBEDDING in outputs:
            return read([SENTENCE_EMBEDDING])[0]
        return pool(read([TOKEN_EMBEDDINGS])[0], feeds["attention_mask"], self.pooling)

    def distances(self, ours: FloatArray, theirs: FloatArray) -> NDArray[np.float64]:
        """1 - cosine of each row."""
        distances: NDArray[np.float64] = 1 - row_cosines(ours, theirs)
        return distances

    def quality(self, ours: FloatArray, theirs: FloatArray, kept_wider: tuple[str, ...]) -> Quality:
        """The lowest and the mean cosine."""
        cosines = row_cosines(ours, theirs)
        return Quality(
            texts=len(cosines),
            min_cosine=_rounded(cosines.min()),
            mean_cosine=_rounded(cosines.mean()),
            required=self.floor,
            kept_wider=kept_wider,
        )

    def lowest(self, quality: Quality) -> tuple[str, float]:
        """The lowest cosine."""
        return "min cosine", -1.0 if quality.min_cosine is None else quality.min_cosine


@dataclass(frozen=True)
class SparseMeasure(VectorMeasure):
    """Sparse embeddings, by their cosines, the overlap of their weights and the change of their dot products."""

    pooling: Sequence[PoolingMode] = ()
    what: str = "sparse embeddings"

    def row(self, outputs: Sequence[str], read: Read, feeds: Feeds) -> FloatArray:
        """The weights of a text."""
        return read([SPARSE_EMBEDDING])[0]

    def quality(self, ours: FloatArray, theirs: FloatArray, kept_wider: tuple[str, ...]) -> Quality:
        """The cosines; the smallest overlap; and the largest change of the dot product of two different texts."""
        vectors = VectorMeasure(self.floor, ()).quality(ours, theirs, kept_wider)
        scale = max(float(np.abs(theirs @ theirs.T).max()), 1e-20)
        return Quality(
            texts=vectors.texts,
            min_cosine=vectors.min_cosine,
            mean_cosine=vectors.mean_cosine,
            required=self.floor,
            kept_wider=kept_wider,
            min_overlap=_rounded(weighted_overlaps(ours, theirs).min()),
            max_dot_change=_rounded(np.abs(ours @ ours.T - theirs @ theirs.T).max() / scale),
        )


@dataclass(frozen=True)
class ScoreMeasure:
    """Logits of pairs: by the order they put the pairs in, and by their differences."""

    floor: float
    flag: str = "--min-agreement"
    what: str = "scores"

    def row(self, outputs: Sequence[str], read: Read, feeds: Feeds) -> FloatArray:
        """The logits of a pair."""
        return read([LOGITS])[0]

    def distances(self, ours: FloatArray, theirs: FloatArray) -> NDArray[np.float64]:
        """The largest change of each pair's logits, as a share of their standard deviation over all pairs."""
        spread = np.maximum(theirs.astype(np.float64).std(axis=0), 1e-12)
        distances: NDArray[np.float64] = (np.abs(ours.astype(np.float64) - theirs) / spread).max(axis=1)
        return distances

    def quality(self, ours: FloatArray, theirs: FloatArray, kept_wider: tuple[str, ...]) -> Quality:
        """The lowest rank agreement of a label's scores, and the largest change of a logit."""
        agreements = [rank_agreement(mine, other) for mine, other in zip(ours.T, theirs.T, strict=True)]
        return Quality(
            texts=len(theirs),
            min_cosine=None,
            mean_cosine=None,
            required=self.floor,
            kept_wider=kept_wider,
            rank_agreement=_rounded(min(agreements)),
            max_score_diff=_rounded(np.abs(ours - theirs).max()),
        )

    def lowest(self, quality: Quality) -> tuple[str, float]:
        """The rank agreement."""
        return "rank agreement", -1.0 if quality.rank_agreement is None else quality.rank_agreement


def floor_of(floors: Mapping[Precision, float], precision: Precision, chosen: float | None) -> float:
    """The floor of a precision: the caller's, else the one of the table."""
    return floors[precision] if chosen is None else chosen


def vector_floor(precision: Precision, min_cosine: float | None) -> float:
    """The lowest cosine of vectors and of sparse embeddings."""
    return floor_of(MIN_COSINES, precision, min_cosine)


def score_floor(precision: Precision, min_agreement: float | None) -> float:
    """The lowest rank agreement of scores."""
    return floor_of(MIN_AGREEMENTS, precision, min_agreement)


def check_floors(min_cosine: float | None, min_agreement: float | None) -> None:
    """Refuse, with UsageError, a floor that no figure can have."""
    for flag, floor, name in (
        ("--min-cosine", min_cosine, "cosine"),
        ("--min-agreement", min_agreement, "rank agreement"),
    ):
        if floor is not None and not -1 <= floor <= 1:
            raise UsageError(f"{flag}: {floor} is not a {name}")


def weighted_overlaps(ours: FloatArray, theirs: FloatArray) -> NDArray[np.float64]:
    """The weighted Jaccard index of each row, sum(min) / sum(max): [N, V], [N, V] -> [N]; 1 for two rows of zeros."""
    shared = np.minimum(ours, theirs).sum(axis=1, dtype=np.float64)
    joint = np.maximum(ours, theirs).sum(axis=1, dtype=np.float64)
    overlaps: NDArray[np.float64] = np.where(joint > 0, shared / np.where(joint > 0, joint, 1), 1.0)
    return overlaps


def rank_agreement(ours: FloatArray, theirs: FloatArray) -> float:
    """Kendall's tau-b of two lists of scores [N]: 1 for the same order, -1 for the reverse.

    Reference: M. G. Kendall, The treatment of ties in ranking problems, Biometrika 33 (1945).
    """
    places = np.triu_indices(len(ours), k=1)
    mine, other = (np.sign(scores[places[0]] - scores[places[1]]) for scores in (ours, theirs))
    together = np.sqrt(np.abs(mine).sum(dtype=np.float64) * np.abs(other).sum(dtype=np.float64))
    return float((mine * other).sum(dtype=np.float64) / together) if together else 1.0


def _rounded(figure: float | np.floating[Any]) -> float:
    return float(f"{figure:.6f}")
