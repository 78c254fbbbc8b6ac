"""`onnxembed models`: which models can be used, and what is known of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxembed.cli.options import PATH, json_option

if TYPE_CHECKING:
    from onnxembed.manifest import Manifest
    from onnxembed.recipes.recipe import Recipe


@dataclass(frozen=True)
class KnownModel:
    """What is known of a model without opening its weights; None and empty where nothing states it."""

    name: str
    tasks: tuple[str, ...]
    dimension: int | None
    max_length: int | None
    bytes: int | None
    prompts: dict[str, str]
    recipe: str | None


@click.command(short_help="List models that can be used.")
@click.argument("folders", nargs=-1, type=PATH, metavar="[DIR ...]")
@json_option
def models(*, folders: tuple[Path, ...], as_json: bool) -> None:
    """List the published models of the recipe book, or the models in ONNX folders DIR.

    \b
    onnxembed models
    onnxembed models my-model-onnx my-reranker-onnx --json

    A model's own files say what its recipe leaves out, so a published model shows what its recipe says alone, and a
    folder shows everything. Nothing is guessed: what is not stated is left out, or null in JSON. Models that are not
    listed can be exported, too, if their files say all that is needed.
    """
    from onnxembed.cli.printing import print_json
    from onnxembed.hub.source import HubOptions
    from onnxembed.loading.locate import read_model_manifest
    from onnxembed.recipes.book import read_recipe, recipe_names

    if folders:
        known = [_of_folder(folder, read_model_manifest(str(folder), HubOptions(), None)) for folder in folders]
    else:
        known = [_of_recipe(read_recipe(name)) for name in recipe_names()]
    if as_json:
        print_json(known)
        return
    for model in known:
        click.echo(model.name)
        if words := _words(model):
            click.echo(click.wrap_text(words, 80, initial_indent="  ", subsequent_indent="  "))


def _of_folder(folder: Path, manifest: Manifest) -> KnownModel:
    section = manifest.embedding or manifest.sparse or manifest.multi_vector
    return KnownModel(
        name=str(folder),
        tasks=manifest.tasks,
        dimension=section.dimension if section else None,
        max_length=manifest.tokenization.max_length.value,
        bytes=sum(record.bytes for record in manifest.files.values()) or None,
        prompts=manifest.prompts.texts.value,
        recipe=manifest.source.recipe,
    )


def _of_recipe(recipe: Recipe) -> KnownModel:
    return KnownModel(
        name=recipe.model,
        tasks=(recipe.task.value,) if recipe.task else (),
        dimension=None,
        max_length=None,
        bytes=None,
        prompts=recipe.prompts.value if recipe.prompts else {},
        recipe=recipe.name,
    )


def _words(model: KnownModel) -> str:
    """What is known, in words; "" if it is only the name."""
    from onnxembed.cli.describe import megabytes

    parts = [" and ".join(model.tasks)] if model.tasks else []
    parts += [f"{model.dimension} dimensions"] if model.dimension else []
    parts += [f"at most {model.max_length} tokens"] if model.max_length else []
    parts += [megabytes(model.bytes)] if model.bytes else []
    parts += [f"prompts {', '.join(model.prompts)}"] if model.prompts else []
    return "; ".join(parts)
