"""How two implementations are compared: token ids, the largest differences, and the limits on them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from onnxembed.arrays import FloatArray, row_cosines
from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import VerificationError
from onnxembed.execution.providers import load_onnxruntime
from onnxembed.export.progress import Progress, silent
from onnxembed.manifest import PRECISIONS, Manifest, Quality, Verification
from onnxembed.reranker import OnnxReranker
from onnxembed.tokenizer.pairs import Pair

Model = TypeVar("Model", OnnxEmbedder, OnnxReranker)


@dataclass(frozen=True)
class Comparison:
    """An artifact, and what it is compared with."""

    folder: Path
    """The artifact's folder."""
    manifest: Manifest
    """The artifact's manifest."""
    checkpoint: Path
    """The folder of the checkpoint it was made from."""
    texts: Sequence[str] = ()
    """Texts to compare in addition to the built-in ones."""
    progress: Progress = silent
    """Called as the comparison goes on."""
    base: Path | None = None
    """The folder of the base of a LoRA adapter that lies alone, if that came from the hub."""


@dataclass(frozen=True)
class Limits:
    """How far vectors of length 1 may be from the vectors they should be."""

    max_abs_diff: float
    """The largest difference of two numbers that is allowed."""
    min_cosine: float | None = None
    """The lowest cosine that is allowed; None for values without a direction, such as logits."""

    def for_length(self, length: float) -> Limits:
        """The limits for vectors of this length: rounding errors grow with the numbers."""
        return replace(self, max_abs_diff=float(f"{self.max_abs_diff * length:.3g}"))

    def recorded(self) -> dict[str, float]:
        """The limits in the form of the manifest's `required`."""
        cosine = {} if self.min_cosine is None else {"min_cosine": self.min_cosine}
        return {"max_abs_diff": self.max_abs_diff, **cosine}


# fp32 differs from torch only by the order of sums, fp16 is judged by direction. Each also has the other limit, for
# what the first one misses: a cosine says nothing about lengths, and a difference says little about vectors much
# shorter than 1.
REQUIRED: dict[str, Limits] = {
    "fp32": Limits(max_abs_diff=1e-5, min_cosine=0.999999),
    "fp16": Limits(max_abs_diff=0.02, min_cosine=0.9999),
}


def required(precision: str, quality: Quality | None = None) -> Limits | None:
    """The limits for vectors of length 1; an integer graph keeps the limit of its export, recorded in `quality`.

    None for an adopted quantized graph: its loss is its maker's choice, and is only measured.
    """
    if quality:
        floor = quality.required  # unit vectors with this cosine differ by at most sqrt(2 - 2 * cosine)
        return Limits(float(np.sqrt(2 * (1 - floor))), floor)
    return REQUIRED.get(precision)


@contextmanager
def open_on_cpu(model_class: type[Model], folder: Path, precision: str) -> Iterator[Model]:
    """One graph of an artifact on the CPU, without warnings about probes that are too long on purpose."""
    # An adopted graph may have a precision of another name; it is the only graph of its artifact.
    chosen: Any = precision if precision in PRECISIONS else "auto"
    with model_class(folder, precision=chosen, providers="cpu") as model, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\d+ of \d+ (texts|pairs) were longer than max_length")
        yield model


def compare_token_ids(what: str, item: str | Pair, ours: Sequence[int], theirs: Sequence[int]) -> None:
    """Raise VerificationError unless an item's token ids are the reference's; `what` names the item in the message."""
    if ours == theirs:
        return
    shorter = min(len(ours), len(theirs))
    start = next((place for place in range(shorter) if ours[place] != theirs[place]), shorter)
    differ = f", not {len(theirs)}," if len(ours) != len(theirs) else ""
    raise VerificationError(
        f"token ids of a {what} are not the reference's: {quote(item)} has {len(ours)} tokens{differ} "
        f"and from token {start} on they are {ours[start : start + 8]}, not {theirs[start : start + 8]}"
    )


def quote(item: str | Pair) -> str:
    """The beginning of an item, for a message."""
    return f"{item[:40]!r}" if isinstance(item, str) else f"({item[0][:30]!r}, {item[1][:30]!r})"


class Differences:
    """The largest differences between what a graph gives and what it should give.

    Args:
        precision: the graph's precision, for messages.
        what: what is compared, for messages, such as "vectors".
        limits: the limits for vectors of length 1. The limit on differences grows with the longest expected vector.
            None if differences are only measured.
    """

    def __init__(self, precision: str, what: str, limits: Limits | None) -> None:
        self.max_abs_diff, self.min_cosine = 0.0, 1.0
        self._precision, self._what, self._limits = precision, what, limits
        self._length = 1.0
        self._worst: str | Pair = ""
        self._by_way: dict[str, float] = {}  # the largest difference in each way of running

    def add(
        self, way: str, items: Iterable[str | Pair], ours: Iterable[FloatArray], theirs: Iterable[FloatArray]
    ) -> None:
        """Compare an array [rows, D] for each item with the array that is expected; `way` says how they were run.

        Raises VerificationError for another shape, and for numbers that are not finite.
        """
        for item, actual, expected in zip(items, ours, theirs, strict=True):
            self._check(way, item, actual, expected)
            if not actual.size:
                continue
            difference = float(np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max())
            self._by_way[way] = max(self._by_way.get(way, 0.0), difference)
            if difference > self.max_abs_diff:
                self.max_abs_diff, self._worst = difference, item
            self.min_cosine = min(self.min_cosine, float(row_cosines(actual, expected).min()))
            self._length = max(self._length, float(np.linalg.norm(expected.astype(np.float64), axis=1).max()))

    def _check(self, way: str, item: str | Pair, ours: FloatArray, theirs: FloatArray) -> None:
        if ours.shape != theirs.shape:
            raise VerificationError(
                f"{self._precision} {self._what} of {quote(item)} have the shape {ours.shape}, "
                f"should have {theirs.shape} (run {way})"
            )
        for whose, array in ((self._precision, ours), ("the reference's", theirs)):
            if not np.isfinite(array).all():
                raise VerificationError(f"{whose} {self._what} are not finite (run {way})")

    def judge(self, verdict: str) -> Limits | None:
        """The limits that applied, None if there were none; VerificationError, with `verdict`, if one is exceeded."""
        if self._limits is None:
            return None
        limits = self._limits.for_length(self._length)
        floor = limits.min_cosine
        if self.max_abs_diff > limits.max_abs_diff or (floor is not None and self.min_cosine < floor):
            cosine = "" if floor is None else f", min cosine {self.min_cosine:.6f} (at least {floor:g})"
            ways = ", ".join(f"{way} {difference:.1e}" for way, difference in self._by_way.items())
            raise VerificationError(
                f"{self._precision} {self._what} are {verdict}: max abs difference {self.max_abs_diff:.1e} (at most "
                f"{limits.max_abs_diff:g}){cosine}; by way of running: {ways}; worst for {quote(self._worst)}"
            )
        return limits

    def same_among_others(self, item: str) -> str:
        """A sentence about a graph that was compared with itself; raises as `judge` does."""
        conditions = f"for a {item} alone and among others"
        if self.judge(f"not the same {conditions}"):
            return f"the same {conditions}"
        return f"up to {self.max_abs_diff:.1e} apart {conditions}, min cosine {self.min_cosine:.6f}"

    def verification(self, reference: str, texts: int) -> Verification:
        """The figures to record for a graph that was compared with the reference; raises as `judge` does."""
        limits = self.judge("not the reference's")
        versions = {name: version(name) for name in ("torch", "transformers", "sentence-transformers")}
        return Verification(
            reference=reference,
            texts=texts,
            max_abs_diff=float(f"{self.max_abs_diff:.3g}"),
            min_cosine=float(f"{self.min_cosine:.9f}"),
            token_ids_equal=True,
            required=limits.recorded() if limits else {},
            # From the module itself: two distributions provide it.
            versions={**versions, "onnxruntime": load_onnxruntime().__version__},
        )
