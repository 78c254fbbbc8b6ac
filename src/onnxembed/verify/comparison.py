"""What two implementations are compared by: token ids, the largest differences, and their limits."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import VerificationError
from onnxembed.execution.providers import load_onnxruntime
from onnxembed.manifest import PRECISIONS, Precision, Quality, Verification
from onnxembed.reranker import OnnxReranker
from onnxembed.tokenizer.pairs import Pair

FloatArray = NDArray[np.float32]
Limits = dict[str, float]
Model = TypeVar("Model", OnnxEmbedder, OnnxReranker)

# fp32 differs from torch by the order of sums; fp16 is judged by direction. Each has the other limit too,
# for what the first does not see: a cosine says nothing about lengths, a difference little about vectors
# much shorter than 1.
REQUIRED: dict[Precision, Limits] = {
    "fp32": {"max_abs_diff": 1e-5, "min_cosine": 0.999999},
    "fp16": {"max_abs_diff": 0.02, "min_cosine": 0.9999},
}


def required(precision: str, quality: Quality | None = None) -> Limits:
    """The limits for vectors of length 1: of a graph of integers, that of its export.

    An adopted graph that is quantized has none: what it costs is up to who made it, and is only measured.
    """
    if quality:
        floor = quality.required  # and vectors of length 1 with this cosine are so far apart
        return {"max_abs_diff": float(np.sqrt(2 * (1 - floor))), "min_cosine": floor}
    return dict(REQUIRED.get(precision, {}))  # type: ignore[call-overload]  # an adopted one may have another name


@contextmanager
def opened(kind: type[Model], folder: Path, precision: str) -> Iterator[Model]:
    """One graph of an artifact on the CPU, which does not warn of the probes that are too long on purpose."""
    asked: Any = precision if precision in PRECISIONS else "auto"  # an adopted graph, the only one of its artifact
    with kind(folder, precision=asked, providers="cpu") as model, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\d+ of \d+ (texts|pairs) were longer than max_length")
        yield model


def compare_token_ids(kind: str, item: str | Pair, ours: Sequence[int], theirs: Sequence[int]) -> None:
    """Raise VerificationError for token ids that are not the reference's; `kind` says what the item is."""
    if ours == theirs:
        return
    shorter = min(len(ours), len(theirs))
    at = next((place for place in range(shorter) if ours[place] != theirs[place]), shorter)
    raise VerificationError(
        f"token ids of a {kind} are not the reference's: {shown(item)} has {len(ours)} tokens, not {len(theirs)}, "
        f"and from token {at} on they are {ours[at : at + 8]}, not {theirs[at : at + 8]}"
    )


def shown(item: str | Pair) -> str:
    """The beginning of an item, for a message."""
    return f"{item[:40]!r}" if isinstance(item, str) else f"({item[0][:30]!r}, {item[1][:30]!r})"


class Differences:
    """The largest differences between what a graph gives and what it should give.

    `what` is compared, such as vectors, with `limits` for those of length 1: rounding errors are a share of the
    numbers, so where there are longer ones, the limit of the difference grows with the longest. `dimension` is
    what the manifest says of it.
    """

    def __init__(self, precision: str, what: str, limits: Limits, dimension: int | None = None) -> None:
        self.max_abs_diff, self.min_cosine = 0.0, 1.0
        self._precision, self._what, self._limits, self._dimension = precision, what, limits, dimension
        self._length = 1.0
        self._worst: str | Pair = ""
        self._by_way: dict[str, float] = {}  # the largest difference in each way of running

    def see(
        self, way: str, items: Iterable[str | Pair], ours: Iterable[FloatArray], theirs: Iterable[FloatArray]
    ) -> None:
        """Take in an array [rows, D] of each item of a run, and the one that it should be."""
        for item, one, other in zip(items, ours, theirs, strict=True):
            self._check(way, item, one, other)
            if not one.size:
                continue
            a, b = one.astype(np.float64), other.astype(np.float64)
            diff = float(np.abs(a - b).max())
            self._by_way[way] = max(self._by_way.get(way, 0.0), diff)
            if diff > self.max_abs_diff:
                self.max_abs_diff, self._worst = diff, item
            lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
            both = lengths[0] * lengths[1]
            # A vector of zeros has no direction: it is like another one, and unlike all else.
            cosines = np.where(both > 0, (a * b).sum(axis=1) / np.where(both > 0, both, 1), lengths[0] == lengths[1])
            self.min_cosine = min(self.min_cosine, float(cosines.min()))
            self._length = max(self._length, float(lengths[1].max()))

    def _check(self, way: str, item: str | Pair, ours: FloatArray, theirs: FloatArray) -> None:
        if ours.shape != theirs.shape or self._dimension not in (None, ours.shape[1]):
            promised = f", and {self._dimension} dimensions according to the manifest" if self._dimension else ""
            raise VerificationError(
                f"{self._precision} {self._what} of {shown(item)} have the shape {ours.shape}, "
                f"should have {theirs.shape}{promised} (run {way})"
            )
        for whose, array in ((self._precision, ours), ("the reference's", theirs)):
            if not np.isfinite(array).all():
                raise VerificationError(f"{whose} {self._what} are not finite (run {way})")

    def judge(self, verdict: str) -> Limits:
        """The limits that apply; VerificationError, with `verdict`, when they are passed."""
        if not self._limits:
            return {}
        limits = {**self._limits, "max_abs_diff": float(f"{self._limits['max_abs_diff'] * self._length:.3g}")}
        floor = limits.get("min_cosine")
        if self.max_abs_diff > limits["max_abs_diff"] or (floor is not None and self.min_cosine < floor):
            cosine = "" if floor is None else f", min cosine {self.min_cosine:.6f} (at least {floor:g})"
            ways = ", ".join(f"{way} {diff:.1e}" for way, diff in self._by_way.items())
            raise VerificationError(
                f"{self._precision} {self._what} are {verdict}: max abs difference {self.max_abs_diff:.1e} (at most "
                f"{limits['max_abs_diff']:g}){cosine}; by way of running: {ways}; worst for {shown(self._worst)}"
            )
        return limits

    def same_among_others(self, item: str) -> str:
        """What a graph that was compared with itself has shown, in words; raises as `judge` does."""
        place = f"for a {item} alone and among others"
        if self.judge(f"not the same {place}"):
            return f"the same {place}"
        return f"up to {self.max_abs_diff:.1e} apart {place}, min cosine {self.min_cosine:.6f}"

    def verification(self, reference: str, texts: int) -> Verification:
        """The figures to record of a graph that was compared with the reference; raises as `judge` does."""
        limits = self.judge("not the reference's")
        versions = {name: version(name) for name in ("torch", "transformers", "sentence-transformers")}
        return Verification(
            reference=reference,
            texts=texts,
            max_abs_diff=float(f"{self.max_abs_diff:.3g}"),
            min_cosine=float(f"{self.min_cosine:.9f}"),
            token_ids_equal=True,
            required=limits,
            # ONNX Runtime's own, from whichever of its two wheels.
            versions={**versions, "onnxruntime": load_onnxruntime().__version__},
        )
