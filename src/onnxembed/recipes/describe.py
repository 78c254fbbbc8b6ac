"""A recipe in words, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

from onnxembed.recipes.recipe import (
    GoldenScores,
    GoldenSimilarities,
    GoldenVectors,
    Recipe,
    RecipeFact,
    Refusal,
)


def summary(recipe: Recipe) -> str:
    """What a recipe decides, in a few words."""
    decided = [f"{field} {value}" for field, value in _decided(recipe)]
    decided += [f"no {refusal.precision}" for refusal in recipe.refused]
    decided += [f"{len(recipe.golden)} golden"] if recipe.golden else []
    return ", ".join(decided)


def describe_recipe(recipe: Recipe) -> Iterator[str]:
    """Lines that say all of a recipe."""
    yield f"{recipe.model} ({recipe.file})"
    yield recipe.checked
    facts: dict[str, RecipeFact[Any] | None] = {
        "attention": recipe.attention,
        "pooling": recipe.pooling,
        "normalize": recipe.normalize,
        "end token": recipe.end_token,
        "task": recipe.task,
        "template": recipe.template,
        "answers": recipe.answers,
        "activation": recipe.activation,
    }
    for field, fact in facts.items():
        if fact:
            yield f"{field}: {dict(_decided(recipe))[field]}"
            yield from _why(fact)
    if recipe.prompts:
        for name, text in recipe.prompts.value.items():
            yield f"prompt {name}: {text!r}"
        yield from _why(recipe.prompts)
    if recipe.template:
        yield from (f"template {part}: {text!r}" for part, text in vars(recipe.template.value).items())
    for refusal in recipe.refused:
        yield f"not built: {refusal.precision}"
        yield from _why(refusal)
    for golden in recipe.golden:
        yield f"golden: {describe_golden(golden)}"
        yield f"  from {golden.source}"


def describe_golden(golden: GoldenVectors | GoldenSimilarities | GoldenScores) -> str:
    """What was published, in a few words."""
    if isinstance(golden, GoldenScores):
        return f"the {'logits' if golden.raw else 'scores'} of {_counted(golden.pairs, 'pair', 'pairs')}"
    if isinstance(golden, GoldenVectors):
        return f"the first {len(golden.values[0])} numbers of {_counted(golden.texts, 'vector', 'vectors')}"
    queries = _counted(golden.queries, "query", "queries")
    score = "similarity" if golden.score == "cosine" else golden.score
    return f"the {score} of {queries} and {_counted(golden.documents, 'document', 'documents')}"


def _counted(texts: Sized, one: str, many: str) -> str:
    return f"{len(texts)} {one if len(texts) == 1 else many}"


def _why(fact: RecipeFact[Any] | Refusal) -> Iterator[str]:
    yield f"  because {fact.reason}"
    yield f"  from {fact.source}"


def _decided(recipe: Recipe) -> Iterator[tuple[str, str]]:
    if recipe.attention:
        yield "attention", recipe.attention.value
    if recipe.pooling:
        yield "pooling", "+".join(recipe.pooling.value)
    if recipe.normalize:
        yield "normalize", "yes" if recipe.normalize.value else "no"
    if recipe.end_token:
        yield "end token", recipe.end_token.value
    if recipe.prompts:
        yield "prompts", "/".join(recipe.prompts.value)
    yield from _decided_reranking(recipe)


def _decided_reranking(recipe: Recipe) -> Iterator[tuple[str, str]]:
    if recipe.task:
        yield "task", recipe.task.value
    if recipe.template:
        yield "template", "of its own"
    if recipe.answers:
        yield "answers", " against ".join(recipe.answers.value)
    if recipe.activation:
        yield "activation", recipe.activation.value
