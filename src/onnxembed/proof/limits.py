"""How far results may be from those they should be, by the precision of the graph."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnxembed.manifest import Manifest, Quality, Task


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


# fp32 differs from torch only by the order of sums, fp16 and bf16 are judged by direction. Each also has the other
# limit, for what the first one misses: a cosine says nothing about lengths, and a difference says little about vectors
# much shorter than 1. The least cosine of a bf16 graph was 0.9995 (README, GPUs).
REQUIRED: dict[str, Limits] = {
    "fp32": Limits(max_abs_diff=1e-5, min_cosine=0.999999),
    "fp16": Limits(max_abs_diff=0.02, min_cosine=0.9999),
    "bf16": Limits(max_abs_diff=0.05, min_cosine=0.999),
}

# What was measured on other pairs or another processor may differ a little here: quantized values are rounded, and a
# last bit can decide how.
_SCORES_MARGIN, _MEASURED_MARGIN = 4, 2


def required(precision: str, quality: Quality | None = None) -> Limits | None:
    """The limits for vectors of length 1; an integer graph keeps the limit of its export, recorded in `quality`.

    None for an adopted quantized graph: its loss is its maker's choice, and is only measured.
    """
    if quality:
        floor = quality.required  # unit vectors with this cosine differ by at most sqrt(2 - 2 * cosine)
        return Limits(float(np.sqrt(2 * (1 - floor))), floor)
    return REQUIRED.get(precision)


def limits_for(
    manifest: Manifest,
    precision: str,
    task: Task,
    measured: Limits | None = None,
    as_precision: str | None = None,
) -> Limits | None:
    """The limits for what a graph of an artifact gives in a task; None for what is only measured.

    Scores have no cosine. An integer graph may also be as far away as it was when it was made, with a margin:
    `measured` has its figures on the same probes. Without them, those of its export on other pairs hold for scores.
    `as_precision` names the precision whose limits hold, if it is not the graph's.
    """
    quality = manifest.variants[precision].quality
    limits = required(as_precision or precision, quality)
    if task == "reranking":
        limits = limits and replace(limits, min_cosine=None)
        if quality is not None:
            limits = None if quality.max_score_diff is None else Limits(_SCORES_MARGIN * quality.max_score_diff)
    if limits is None or measured is None or quality is None:
        return limits
    farther = max(limits.max_abs_diff, _MEASURED_MARGIN * measured.max_abs_diff)
    if limits.min_cosine is None or measured.min_cosine is None:
        return Limits(farther, limits.min_cosine)
    return Limits(farther, min(limits.min_cosine, 1 - _MEASURED_MARGIN * (1 - measured.min_cosine)))
