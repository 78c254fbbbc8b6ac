"""What is refused before anything is built."""

from __future__ import annotations

from collections.abc import Sequence

from onnxembed.decisions.decide import Decisions
from onnxembed.errors import UnsupportedError
from onnxembed.export.architectures import ARCHITECTURES
from onnxembed.facts.facts import Facts
from onnxembed.manifest import Engine, Precision

PACKED_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
"""The types that CUDA's PackedMultiHeadAttention has kernels for."""


def check_packable(facts: Facts, decisions: Decisions, engine: Engine, precisions: Sequence[Precision]) -> None:
    """Raise UnsupportedError, with the reason, for a model that has no packed form."""
    kernels = "CUDA's PackedMultiHeadAttention has"
    why = ""
    if engine != "build":
        why = f"engine {engine} writes graphs of its own"
    elif decisions.encoder.attention.value == "causal":
        why = f"{kernels} no causal mask; padded on the right, causal attention needs none"
    elif not ARCHITECTURES[facts.model_type].packable:
        packable = ", ".join(model_type for model_type, row in ARCHITECTURES.items() if row.packable)
        why = f"no packed form of {facts.model_type} is built; of these it is: {packable}"
    elif decisions.embedding is None or decisions.sparse or decisions.multi_vector:
        why = "only graphs whose one output is sentence_embedding have one"
    elif others := [precision for precision in precisions if precision not in PACKED_PRECISIONS]:
        why = f"{kernels} kernels for {' and '.join(PACKED_PRECISIONS)}, not for {', '.join(others)}"
    if why:
        raise UnsupportedError(f"--packed: {why}")
