"""Where flags contradict a model's own files or its recipe: such an artifact does not give the model's own vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from onnxembed.decisions.choose_task import choose_task
from onnxembed.decisions.decide import Decisions, decide
from onnxembed.decisions.flags import Flags
from onnxembed.errors import OnnxEmbedError
from onnxembed.facts.facts import Facts
from onnxembed.facts.transformer import takes_messages
from onnxembed.manifest import Decision
from onnxembed.recipes.recipe import Recipe

Pick = Callable[[Decisions], Decision[Any] | None]

# Each decision that a flag may make, with the same flags without it.
DECIDED: tuple[tuple[Callable[[Flags], Flags], Pick], ...] = (
    (lambda flags: replace(flags, pooling=None), lambda made: made.embedding.pooling if made.embedding else None),
    (
        lambda flags: replace(flags, normalize=None),
        lambda made: made.embedding.normalize if made.embedding else None,
    ),
    (lambda flags: replace(flags, max_length=None), lambda made: made.encoder.max_length),
    (lambda flags: replace(flags, attention=None), lambda made: made.encoder.attention),
    (lambda flags: replace(flags, adapter=None), lambda made: made.encoder.adapter),
    (
        lambda flags: replace(flags, activation=None),
        lambda made: made.reranking.activation if made.reranking else None,
    ),
)


# What recipes decide besides.
BY_RECIPES: tuple[Pick, ...] = (
    *(pick for _, pick in DECIDED),
    lambda made: made.encoder.prompts.texts,
    lambda made: made.encoder.end_token,
    lambda made: made.reranking.template if made.reranking else None,
)


def find_overruled(
    facts: Facts, flags: Flags, recipe: Recipe | None, made: Decisions, own: Recipe | None = None
) -> tuple[str, ...]:
    """What flags decided otherwise than files, recipe or architecture do, in words; empty if nothing.

    Each flag is left out in turn and the model decided again. A flag without which nothing states the decision
    contradicts nobody. `own` is the recipe of the model's hub id, which a recipe that was named replaces.
    """
    return (
        *_another_recipe(facts, flags, recipe, own, made),
        *_another_task(facts, flags, recipe),
        *_differences(facts, flags, recipe, made),
        *_left_out_template(facts, flags, recipe),
    )


def _another_recipe(
    facts: Facts, flags: Flags, recipe: Recipe | None, own: Recipe | None, made: Decisions
) -> Iterator[str]:
    """What a recipe that was named decides otherwise than the model's own."""
    if own is None or recipe is None or own == recipe:
        return
    try:
        stated = decide(facts, flags, own)
    except OnnxEmbedError as error:
        yield f"--recipe: {recipe.name} instead of {own.name}, which does not fit the model's files ({error})"
        return
    for pick in BY_RECIPES:
        chosen, other = pick(made), pick(stated)
        if (chosen and chosen.value) != (other and other.value):
            ours, theirs = (_words(each.value) if each else "none" for each in (chosen, other))
            why = other.reason if other else f"{own.file} has none"
            yield f"--recipe {recipe.name}: {ours} instead of {theirs} ({why})"


def _another_task(facts: Facts, flags: Flags, recipe: Recipe | None) -> Iterator[str]:
    """A task that is none of those that the files or the recipe name; one of several is no contradiction."""
    if flags.task is None:
        return
    free = Flags(max_length=flags.max_length, attention=flags.attention, adapter=flags.adapter)
    stated = choose_task(facts, free, recipe)
    if stated.origin == "architecture" or stated.value == flags.task:
        return
    with suppress(OnnxEmbedError):  # what else is unsaid about the stated task does not matter
        if getattr(decide(facts, free, recipe), flags.task) is not None:
            return
    yield f"--task: {flags.task} instead of {stated.value} ({stated.reason})"


def _left_out_template(facts: Facts, flags: Flags, recipe: Recipe | None) -> Iterator[str]:
    """Pairs without the template that the recipe or the files put them into.

    A chat template beside a model, of which nothing says that pairs go into it, is what the flag is for.
    """
    if not flags.plain_pairs:
        return
    if recipe and recipe.template:
        yield f"--plain-pairs: pairs without their template ({recipe.decision(recipe.template).reason})"
    elif takes_messages(facts.transformer_config) and facts.answers is None:
        yield f"--plain-pairs: pairs without their template ({facts.transformer_config_name}: modality_config)"


def _differences(facts: Facts, flags: Flags, recipe: Recipe | None, made: Decisions) -> Iterator[str]:
    for without, pick in DECIDED:
        if without(flags) == flags:
            continue
        try:
            stated = pick(decide(facts, without(flags), recipe))
        except OnnxEmbedError:  # nothing states it: this is what the flag is for
            continue
        chosen = pick(made)
        if chosen is not None and stated is not None and chosen.value != stated.value:
            flag = chosen.reason.partition(" ")[0]
            yield f"{flag}: {_words(chosen.value)} instead of {_words(stated.value)} ({stated.reason})"


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "+".join(value) if isinstance(value, tuple) else str(value)
