"""`models`: which models can be used, and what is known of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxembed.commands.result import as_json
from onnxembed.hub.source import HubOptions
from onnxembed.loading.locate import read_model_manifest
from onnxembed.manifest import Manifest

if TYPE_CHECKING:
    from onnxembed.recipes.recipe import Recipe


@dataclass(frozen=True)
class KnownModel:
    """What is known of a model without opening its weights; None and empty where nothing states it."""

    name: str
    tasks: tuple[str, ...]
    dimension: int | None
    max_length: int | None
    bytes: int | None
    license: str | None
    prompts: dict[str, str]
    recipe: str | None


class KnownModels(tuple[KnownModel, ...]):
    """The models that are known, one after another."""

    __slots__ = ()

    def to_json(self) -> str:
        """The models as one JSON list, which `--json` prints."""
        return as_json(list(self))


def models(*folders: str | Path) -> KnownModels:
    """What is known of the models in ONNX folders; without folders, of the published models of the recipe book.

    A published model shows what its recipe says alone, because its own files say the rest; nothing is guessed. Models
    that are not listed can be exported, too. Raises ModelFilesError for a folder that is no model.
    """
    if folders:
        return KnownModels(_of_folder(folder) for folder in folders)
    from onnxembed.recipes.book import read_recipe, recipe_names

    return KnownModels(_of_recipe(read_recipe(name)) for name in recipe_names())


def dimension(manifest: Manifest) -> int | None:
    """The length of a model's vectors; None for a reranker."""
    section = manifest.embedding or manifest.sparse or manifest.multi_vector
    return section.dimension if section else None


def _of_folder(folder: str | Path) -> KnownModel:
    manifest = read_model_manifest(folder, HubOptions(), None).manifest
    return KnownModel(
        name=str(folder),
        tasks=manifest.tasks,
        dimension=dimension(manifest),
        max_length=manifest.tokenization.max_length.value,
        bytes=sum(record.bytes for record in manifest.files.values()) or None,
        license=manifest.source.license,
        prompts=manifest.prompts.texts.value,
        recipe=manifest.source.recipe,
    )


def _of_recipe(recipe: Recipe) -> KnownModel:
    return KnownModel(
        name=recipe.model,
        tasks=recipe.tasks,
        dimension=None,
        max_length=None,
        bytes=None,
        license=None,
        prompts=recipe.prompts.value if recipe.prompts else {},
        recipe=recipe.name,
    )
