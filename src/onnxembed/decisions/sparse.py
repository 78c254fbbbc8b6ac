"""Which head turns tokens into the weights of a sparse embedding. Standard library only."""

from __future__ import annotations

from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError
from onnxembed.facts.facts import Facts
from onnxembed.facts.sparse import SparseFacts, splade

MASKED_LM = "ForMaskedLM"


def decide_sparse(facts: Facts, flags: Flags) -> SparseFacts:
    """The head of a model that makes only sparse embeddings: its own, else SPLADE on a masked language model.

    Raises ModelFilesError for a checkpoint without such a head, UsageError for flags that do not apply to it.
    """
    flags.refuse_embedding_flags(facts.folder)
    if (own := own_sparse(facts, flags)) is not None:
        return own
    names = facts.config.get("architectures") or []
    if not any(str(name).endswith(MASKED_LM) for name in names):
        raise ModelFilesError(
            f"{facts.config_file}: architectures names {', '.join(map(str, names)) or 'no class'}, not a "
            f"...{MASKED_LM}: it has no head that gives the vocabulary weights"
        )
    return splade(f"SPLADE on config.json's {names[0]}")


def own_sparse(facts: Facts, flags: Flags) -> SparseFacts | None:
    """The sparse head that the model's files describe; None if there is none or --task names another task."""
    return facts.sparse if flags.task in (None, "sparse") else None
