"""Whether a model computes on this machine what it should, before the server says that it is ready."""

from __future__ import annotations

import numpy as np

from onnxembed.errors import ModelFilesError
from onnxembed.manifest import TextKind
from onnxembed.proof.checking import check as compare_with
from onnxembed.proof.checking import prove_later
from onnxembed.proof.compare import alone, computation, rows_of, scheduled
from onnxembed.proof.probes import BRIEF, BRIEF_PAIRS
from onnxembed.proof.record import Part
from onnxembed.serve.model import ServedModel

TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}
"""How far the numbers of a text alone may lie from those among others, without a proof; for integers see INTEGERS."""

INTEGERS = 5e-2


def check(model: ServedModel) -> None:
    """Run a model, which also makes its kernels ready.

    Raises ProofError unless it gives what its proof says. Of a model without a proof, as adopted ones are, or with none
    that is as short as its `max_length`, raises ModelFilesError unless texts have the same finite numbers alone and
    among others, in every task.
    """
    if model.proof is not None:
        figures = compare_with(model.opened, model.placement, model.proof)
        prove_later(model.opened, model.placement, model.proof)
        if figures:
            return
    for task in model.manifest.tasks:
        kind: TextKind | None = "document" if task == "multi_vector" else None
        _check_alike(model, Part(task, kind, BRIEF_PAIRS if task == "reranking" else BRIEF, (), ()))


def _check_alike(model: ServedModel, part: Part) -> None:
    tolerance = TOLERANCE.get(model.opened.precision, INTEGERS)
    computing, tokens = computation(model.opened, part), model.opened.tokenize(part.items)
    for item, first, second in zip(part.items, alone(computing, tokens), scheduled(computing, tokens), strict=True):
        ours, theirs = (np.asarray(rows_of(model.manifest, part, each), np.float64) for each in (first, second))
        alike = ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=0, atol=tolerance)
        if not (alike and np.isfinite(ours).all()):
            raise ModelFilesError(
                f"{model.name} gives {item!r} other numbers alone than among other texts on this machine "
                f"({model.opened.provider}): it cannot be served"
            )
