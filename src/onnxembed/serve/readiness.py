"""Whether a model computes on this machine what it should, before the server says that it is ready."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxembed.errors import ModelFilesError
from onnxembed.runtime.streaming import Computation
from onnxembed.serve.model import Cut, ServedModel

PROBES = ("a", "The quick brown fox jumps over the lazy dog.", "naïve café, 東京, 42", "one two three four " * 8)
"""Texts of several lengths, which also make the kernels ready."""

TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}
"""How far the numbers of a text alone may lie from those among others; for the integers' see INTEGERS."""

INTEGERS = 5e-2


def check(model: ServedModel) -> None:
    """Raise ModelFilesError unless a text has the same finite numbers alone and among others, in every task."""
    tolerance = TOLERANCE.get(model.precision if model.precision != "auto" else "fp32", INTEGERS)
    computation = _computation(model)
    items: list[Any] = [(PROBES[1], text) for text in PROBES] if model.manifest.reranking else list(PROBES)
    tokens = model.tokenizing(Cut())(items)
    among = [row for part in computation.results(tokens) for row in part]
    for item, each, row in zip(items, tokens, among, strict=True):
        alone = next(row for part in computation.results([each]) for row in part)
        first, second = _numbers(alone), _numbers(row)
        if not np.isfinite(first).all() or first.shape != second.shape or np.abs(first - second).max() > tolerance:
            raise ModelFilesError(
                f"{model.name} gives {item!r} other numbers alone than among other texts on this machine "
                f"({model.opened.provider}): it cannot be served"
            )


def _computation(model: ServedModel) -> Computation[Any]:
    tasks = model.manifest.tasks
    if "reranking" in tasks:
        return model.logits()
    if "embedding" in tasks:
        return model.dense(normalize=None)
    return model.sparse() if "sparse" in tasks else model.multi_vector("document")


def _numbers(result: Any) -> Any:
    """The numbers of a vector, of vectors, or of a sparse embedding."""
    return np.asarray(getattr(result, "values", result), np.float64)
