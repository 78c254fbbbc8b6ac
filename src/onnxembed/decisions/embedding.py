"""Facts, recipe and flags -> the decisions of a manifest, each with its origin. Standard library only.

A flag wins over the files; the files win over the recipe, which holds what they leave out; the recipe wins
over the architecture. What none of them says is an error that names the flag to pass. Attention alone is
the recipe's before the files': published files have said the opposite of what a model was trained with.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeVar

from onnxembed.decisions.encoder import EncoderDecisions, _check_model_type, resolve_encoder
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, UnsupportedError, UsageError
from onnxembed.facts.facts import Facts
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.manifest import POOLING_MODES, Decision, PoolingMode
from onnxembed.recipes.recipe import Recipe, decision_from

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class EmbeddingDecisions(EncoderDecisions):
    """Everything that is decided about a model of sentence embeddings."""

    pooling: Decision[tuple[PoolingMode, ...]]
    normalize: Decision[bool]
    dimension: int


def resolve_embedding(facts: Facts, flags: Flags | None = None, recipe: Recipe | None = None) -> EmbeddingDecisions:
    """Decide how texts become vectors.

    Raises ModelFilesError for what neither files nor recipe nor flags say, UsageError for flags that
    contradict the model, UnsupportedError for a model_type that onnxembed does not know.
    """
    flags = flags or Flags()
    _check_model_type(facts)
    pooling = _pooling(facts, flags, recipe)
    encoder = resolve_encoder(facts, flags, recipe)
    return EmbeddingDecisions(
        **vars(encoder),
        pooling=pooling,
        normalize=_normalize(facts, flags, recipe),
        dimension=_dimension(facts, pooling, encoder.hidden_size),
    )


def _pooling(facts: Facts, flags: Flags, recipe: Recipe | None) -> Decision[tuple[PoolingMode, ...]]:
    if flags.pooling is not None:
        if not flags.pooling or not set(flags.pooling) <= set(POOLING_MODES):
            asked = "+".join(flags.pooling)
            raise UsageError(f"--pooling {asked!r} is not one of {', '.join(POOLING_MODES)}, or several joined by +")
        return Decision(flags.pooling, "flag", "--pooling")
    if len(facts.poolings) > 1:
        found = ", ".join(f"{'+'.join(pooling.modes)} ({pooling.reason})" for pooling in facts.poolings)
        raise UnsupportedError(f"{facts.folder} has several Pooling modules: {found}; choose one with --pooling")
    modes = facts.poolings[0].modes if facts.poolings else ()
    if not modes and recipe and recipe.pooling:
        return decision_from(recipe, recipe.pooling)
    if not modes and MODEL_TYPES[facts.model_type].static:
        return Decision(("mean",), "architecture", "a static embedding is the average of its tokens'")
    if not modes:
        raise ModelFilesError(f"{facts.folder} does not say how to pool its tokens; pass --pooling (cls, mean, ...)")
    return Decision(modes, "file", facts.poolings[0].reason)


def _normalize(facts: Facts, flags: Flags, recipe: Recipe | None) -> Decision[bool]:
    if flags.normalize is not None:
        return Decision(flags.normalize, "flag", "--normalize" if flags.normalize else "--no-normalize")
    if not facts.has_modules and recipe and recipe.normalize:
        return decision_from(recipe, recipe.normalize)
    if not facts.has_modules and MODEL_TYPES[facts.model_type].static:
        value = facts.config.get("normalize", False)
        return Decision(value is True, "file", f"config.json: normalize is {json.dumps(value)}")
    if not facts.has_modules:
        raise ModelFilesError(
            f"{facts.folder} has no modules.json, so it does not say whether to normalize its vectors; "
            "pass --normalize or --no-normalize"
        )
    reason = "has a Normalize module" if facts.normalize else "has no Normalize module"
    return Decision(facts.normalize, "file", f"modules.json {reason}")


def _dimension(facts: Facts, pooling: Decision[tuple[PoolingMode, ...]], hidden_size: int) -> int:
    """The width of a sentence embedding: what pooling gives, taken through the Dense layers."""
    width = hidden_size * len(pooling.value)
    for layer in facts.dense:
        if layer.in_features != width:
            cause = f"{layer.folder / 'config.json'} takes {layer.in_features} features, but gets {width}"
            if pooling.origin == "flag":
                raise UsageError(f"{cause} with --pooling {'+'.join(pooling.value)}")
            raise ModelFilesError(cause)
        width = layer.out_features
    return width
