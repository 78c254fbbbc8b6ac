"""A candidate explanation: some changes, the vectors that they make, and how close those are to the others'."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onnxembed.arrays import FloatArray, row_cosines
from onnxembed.explain.setup import Hypothesis
from onnxembed.runtime.outputs.pooling import normalize
from onnxembed.similarity import cosine

ACCEPTED = 0.9999
"""A cause is named only if its vectors reach this cosine with theirs in every row."""

FLOAT_NOISE = 2e-6
"""1 - cosine below this is what fp32, fp16 weights or another form of GELU change; measured on all-MiniLM-L6-v2."""

# The largest relative difference of two norms that rounding explains, bf16 included.
_SAME_NORM = 5e-3

# Rounding moves no row more than this many times as far as the row in the middle.
_SPREAD = 30

Scale = Literal["none", "unit", "unit, then cut"]

_SCALES: Mapping[Scale, str] = {
    "none": "are not scaled to length 1",
    "unit": "are scaled to length 1",
    "unit, then cut": "are scaled to length 1 before they are cut, and not after",
}

Cosines = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Candidate:
    """Changes, and how well the vectors that they make fit."""

    changes: tuple[Hypothesis, ...]
    cosines: Cosines
    """The cosine of each row with theirs, [N]."""
    norms_fit: bool
    """Whether a known scale gives their norms."""

    @property
    def error(self) -> float:
        """1 - the smallest cosine."""
        return float(1 - self.cosines.min())

    @property
    def exact(self) -> NDArray[np.bool_]:
        """Which rows fit, [N]."""
        fitting: NDArray[np.bool_] = self.cosines >= ACCEPTED
        return fitting

    @property
    def accepted(self) -> bool:
        """Whether every row fits."""
        return bool(self.exact.all())

    @property
    def is_noise(self) -> bool:
        """Whether what remains is spread over all rows, as rounding is; a cause of its own would show in some."""
        errors = 1 - self.cosines
        return self.accepted and bool(errors.max() < max(FLOAT_NOISE, _SPREAD * float(np.median(errors))))

    @property
    def words(self) -> str:
        """The changes in words."""
        return " and ".join(change.theirs for change in self.changes) or "are made as ours"


def candidate(
    changes: tuple[Hypothesis, ...],
    whole: FloatArray,
    theirs: FloatArray,
    own: Scale,
    cut: int | None,
    *,
    everything: FloatArray,
) -> Candidate | None:
    """The candidate of vectors [N, D], whole and not scaled; None if theirs have another length.

    `everything` [M, D] are all of their vectors, which those of these texts may lie among in another order.
    """
    vectors = whole if cut is None else whole[:, :cut]
    if vectors.shape != theirs.shape or not np.isfinite(vectors).all():
        return None
    made = Candidate(changes, row_cosines(vectors, theirs), norms_fit=False)
    if not made.accepted and (places := _order(vectors, everything)) is not None:
        theirs = everything[places]
        made = replace(made, changes=(*changes, _reordered()), cosines=row_cosines(vectors, theirs))
    return _scaled(made, whole, vectors, theirs, own) if made.accepted else made


def matches(vectors: FloatArray, everything: FloatArray) -> bool:
    """Whether each of these vectors [N, D] is one of theirs [M, D]."""
    return bool(cosine(vectors, everything).max(axis=1).min() >= ACCEPTED)


def _order(vectors: FloatArray, everything: FloatArray) -> NDArray[np.intp] | None:
    """The place among theirs of each of our vectors, if they are the same rows in another order.

    A row is only found if it is nearer than all rows of other texts: vectors that hardly differ have no order. Of as
    many rows as texts, each must be found: texts of equal tokens are all in one row of theirs.
    """
    cosines = cosine(vectors, everything)
    if len(everything) == len(vectors) and cosines.max(axis=0).min() < ACCEPTED:
        return None
    places: NDArray[np.intp] = cosines.argmax(axis=1)
    first = [np.flatnonzero((vectors == row).all(axis=1))[0] for row in vectors]
    whole = len(np.unique(places)) == len(np.unique(first))
    return places if whole and row_cosines(vectors, everything[places]).min() >= ACCEPTED else None


def _reordered() -> Hypothesis:
    return Hypothesis("order", "stand in another order than the texts", "stand in the order of the texts")


def _scaled(made: Candidate, whole: FloatArray, vectors: FloatArray, theirs: FloatArray, own: Scale) -> Candidate:
    """The candidate with the scale that gives their norms, a change if it is not our own."""
    norms = np.linalg.norm(theirs, axis=1)
    for scale in sorted(_SCALES, key=lambda name: name != own):
        if np.allclose(np.linalg.norm(_SCALING[scale](whole, vectors), axis=1), norms, rtol=_SAME_NORM, atol=0):
            changes = made.changes if scale == own else (*made.changes, _rescaled(scale, own))
            return replace(made, changes=changes, norms_fit=True)
    ratios = norms / np.linalg.norm(_SCALING[own](whole, vectors), axis=1)
    if np.allclose(ratios, ratios[0], rtol=_SAME_NORM, atol=0):
        factor = Hypothesis(
            "scale", f"are {ratios[0]:.4g} times as long as ours", "have the length that the model gives"
        )
        return replace(made, changes=(*made.changes, factor), norms_fit=True)
    return made


_SCALING: Mapping[Scale, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "none": lambda whole, vectors: vectors,
    "unit": lambda whole, vectors: normalize(vectors),
    "unit, then cut": lambda whole, vectors: normalize(whole)[:, : vectors.shape[1]],
}


def _rescaled(scale: Scale, own: Scale) -> Hypothesis:
    scaled = own == "unit"
    words = {"normalize": str(scaled), "lowered": str(scaled).lower(), "applied": "apply" if scaled else "leave out"}
    return Hypothesis("normalization", _SCALES[scale], _SCALES[own], words=words)


def best(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The accepted candidates that nothing tells apart: the fewest changes among those as close as the closest.

    Empty if none is accepted. The first one is the closest.
    """
    accepted = [each for each in candidates if each.accepted and each.norms_fit]
    accepted = accepted or [each for each in candidates if each.accepted]
    if not accepted:
        return []
    level = max(10 * min(each.error for each in accepted), FLOAT_NOISE)
    level_ones = [each for each in accepted if each.error <= level]
    fewest = min(len(each.changes) for each in level_ones)
    return sorted((each for each in level_ones if len(each.changes) == fewest), key=lambda each: each.error)


def noise(error: float) -> str:
    """What an error that remains is as large as, in words. It is a band of causes, never one of them."""
    if error < FLOAT_NOISE:
        return "what remains is as small as the rounding of fp32, of fp16 weights or of another form of GELU"
    if error < 1e-5:
        return "what remains is larger than the rounding of fp32, and smaller than that of bf16"
    return "what remains is as large as the rounding of bf16"


def combinations(hypotheses: Sequence[Hypothesis], most: int) -> Iterator[tuple[Hypothesis, ...]]:
    """None, each, and with `most` 2 each pair of the hypotheses that go together."""
    yield ()
    for place, first in enumerate(hypotheses if most else ()):
        yield (first,)
        for second in hypotheses[place + 1 :] if most > 1 else ():
            if first.fits(second):
                yield first, second
