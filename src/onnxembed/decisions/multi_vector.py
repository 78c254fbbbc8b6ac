"""Which head gives each token its own vector. Standard library only."""

from __future__ import annotations

from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError
from onnxembed.facts.facts import Facts
from onnxembed.facts.multi_vector import MultiVectorFacts


def decide_multi_vector(facts: Facts, flags: Flags) -> MultiVectorFacts:
    """The head of a model that makes only multi-vector embeddings.

    Raises ModelFilesError for a checkpoint without such a head, UsageError for flags that do not apply to it.
    """
    flags.refuse_embedding_flags(facts.folder)
    own = own_multi_vector(facts, flags)
    if own is None:
        raise ModelFilesError(
            f"{facts.folder} has no head for token vectors: it is not a MultiVectorEncoder or a ColBERT, "
            "and has no colbert_linear.pt"
        )
    return own


def own_multi_vector(facts: Facts, flags: Flags) -> MultiVectorFacts | None:
    """The multi-vector head that the model's files describe; None if there is none or --task names another task."""
    return facts.multi_vector if flags.task in (None, "multi_vector") else None
