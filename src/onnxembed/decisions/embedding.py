"""How token embeddings become one vector: pooling, normalization, dimension. Standard library only."""

from __future__ import annotations

import json
from dataclasses import dataclass

from onnxembed.decisions.choose_task import named_class
from onnxembed.decisions.encoder import EncoderDecisions
from onnxembed.decisions.flags import Flags
from onnxembed.decisions.sparse import MASKED_LM
from onnxembed.errors import ModelFilesError, UnsaidError, UnsupportedError, UsageError
from onnxembed.facts.facts import Facts
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.facts.modules import width_after
from onnxembed.manifest import POOLING_MODES, Decision, PoolingMode
from onnxembed.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class EmbeddingDecisions:
    """What is decided about sentence embeddings; `include_prompt`: whether the tokens of a prompt are pooled, too."""

    pooling: Decision[tuple[PoolingMode, ...]]
    normalize: Decision[bool]
    dimension: int
    include_prompt: Decision[bool]


def decide_embedding(
    facts: Facts, encoder: EncoderDecisions, flags: Flags, recipe: Recipe | None
) -> EmbeddingDecisions:
    """Decide how token embeddings become sentence embeddings; errors as for `decide`."""
    pooling = _pooling(facts, flags, recipe)
    return EmbeddingDecisions(
        pooling=pooling,
        normalize=_normalize(facts, flags, recipe),
        dimension=_dimension(facts, pooling, encoder.hidden_size),
        include_prompt=_include_prompt(facts),
    )


def _pooling(facts: Facts, flags: Flags, recipe: Recipe | None) -> Decision[tuple[PoolingMode, ...]]:
    if flags.pooling is not None:
        if not flags.pooling or not set(flags.pooling) <= set(POOLING_MODES):
            asked = "+".join(flags.pooling)
            raise UsageError(f"--pooling {asked!r} is not one of {', '.join(POOLING_MODES)}, or several joined by +")
        return Decision(flags.pooling, "flag", "--pooling")
    poolings = facts.post.poolings
    if len(poolings) > 1:
        modules = ", ".join(f"{'+'.join(pooling.modes)} ({pooling.reason})" for pooling in poolings)
        raise UnsupportedError(f"{facts.folder} has several Pooling modules: {modules}; choose one with --pooling")
    modes = poolings[0].modes if poolings else ()
    if not modes and recipe and recipe.pooling:
        return recipe.decision(recipe.pooling)
    if not modes and MODEL_TYPES[facts.model_type].static:
        return Decision.default(("mean",), "a static embedding is the average of its tokens'")
    if not modes:
        sparse = ""
        if (named := named_class(facts)).endswith(MASKED_LM):
            sparse = f", or --task sparse for the sparse embeddings (SPLADE) of its {named}"
        why = "modules.json has no Pooling" if facts.has_modules else "it has no modules.json"
        if poolings:
            why = poolings[0].reason
        raise UnsaidError(
            f"{facts.folder} does not say how to pool its tokens ({why}); pass --pooling (cls, mean, ...){sparse}",
            "--pooling",
        )
    return Decision(modes, "file", poolings[0].reason)


def _normalize(facts: Facts, flags: Flags, recipe: Recipe | None) -> Decision[bool]:
    if flags.normalize is not None:
        return Decision(flags.normalize, "flag", "--normalize" if flags.normalize else "--no-normalize")
    if not facts.has_modules and recipe and recipe.normalize:
        return recipe.decision(recipe.normalize)
    if not facts.has_modules and MODEL_TYPES[facts.model_type].static:
        value = facts.config.get("normalize", False)
        return Decision.from_file(value is True, "config.json", f"normalize is {json.dumps(value)}")
    if not facts.has_modules:
        raise UnsaidError(
            f"{facts.folder} has no modules.json, so it does not say whether to normalize its vectors; "
            "pass --normalize or --no-normalize",
            "--normalize",
        )
    reason = "has a Normalize module" if facts.post.normalize else "has no Normalize module"
    return Decision(facts.post.normalize, "file", f"modules.json {reason}")


def _include_prompt(facts: Facts) -> Decision[bool]:
    poolings = facts.post.poolings
    if len({pooling.include_prompt for pooling in poolings}) > 1:
        raise UnsupportedError(f"{facts.folder} has Pooling modules with and without the prompt (include_prompt)")
    if poolings and not poolings[0].include_prompt:
        file, _, _ = poolings[0].reason.partition(":")
        return Decision.from_file(False, file, "include_prompt is false")
    return Decision.default(True, "the tokens of a prompt are pooled with the others")


def _dimension(facts: Facts, pooling: Decision[tuple[PoolingMode, ...]], hidden_size: int) -> int:
    """The width of a sentence embedding: what pooling gives, taken through the layers after it."""
    width = width_after(facts.post.token_layers, hidden_size) * len(pooling.value)
    try:
        return width_after(facts.post.layers, width)
    except ModelFilesError as error:
        if pooling.origin == "flag":
            raise UsageError(f"{error} with --pooling {'+'.join(pooling.value)}") from error
        raise
