"""Facts + recipe + flags -> the heads that give tokens weights or vectors of their own. Standard library only."""

from __future__ import annotations

from dataclasses import replace

from onnxembed.decisions.encoder import EncoderDecisions, resolve_encoder
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.facts.facts import Facts
from onnxembed.facts.sparse import splade
from onnxembed.recipes.recipe import Recipe

MASKED_LM = "ForMaskedLM"


def resolve_token_heads(facts: Facts, flags: Flags | None = None, recipe: Recipe | None = None) -> EncoderDecisions:
    """Decide for a model of sparse or multi-vector embeddings alone.

    Raises ModelFilesError for a checkpoint without such a head, UsageError for flags that do not go with it.
    """
    flags = flags or Flags()
    if flags.pooling is not None or flags.normalize is not None:
        raise UsageError(
            f"{facts.folder} makes no sentence embedding here, and --pooling and --normalize are for those; "
            "--task embedding makes one, without its other heads"
        )
    task = flags.task or (recipe.task.value if recipe and recipe.task else None)
    encoder = resolve_encoder(facts, flags, recipe)
    if task == "multi_vector" and encoder.multi_vector is None:
        raise ModelFilesError(
            f"{facts.folder} has no head that gives tokens vectors: it is no MultiVectorEncoder, no ColBERT, "
            "and has no colbert_linear.pt"
        )
    if task != "sparse" or encoder.sparse is not None:
        return encoder
    names = facts.config.get("architectures") or []
    if not any(str(name).endswith(MASKED_LM) for name in names):
        file = facts.transformer_folder / "config.json"
        raise ModelFilesError(
            f"{file}: architectures names {', '.join(map(str, names)) or 'no class'}, not a ...{MASKED_LM}: "
            "it has no head that gives the vocabulary weights"
        )
    return replace(encoder, sparse=splade(f"SPLADE on config.json's {names[0]}"))
