"""Which head turns tokens into vectors of their own. Standard library only."""

from __future__ import annotations

from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError
from onnxembed.facts.facts import Facts
from onnxembed.facts.multi_vector import MultiVectorFacts


def decide_multi_vector(facts: Facts, flags: Flags) -> MultiVectorFacts:
    """The head of a model that makes multi-vector embeddings alone.

    Raises ModelFilesError for a checkpoint without such a head, UsageError for flags that do not go with it.
    """
    flags.refuse_embedding_flags(facts.folder)
    own = own_multi_vector(facts, flags)
    if own is None:
        raise ModelFilesError(
            f"{facts.folder} has no head that gives tokens vectors: it is not a MultiVectorEncoder or a ColBERT, "
            "and has no colbert_linear.pt"
        )
    return own


def own_multi_vector(facts: Facts, flags: Flags) -> MultiVectorFacts | None:
    """The multi-vector head that the model's files describe; None without one, and where --task names another task."""
    return facts.multi_vector if flags.task in (None, "multi_vector") else None
