"""The recipe book: what the files of published models do not say. Standard library only.

One TOML file per model, in the folder `export/recipes` of a checkout and in the wheel. A recipe is chosen by the
model's hub id, or by name; never because something looks alike. Recipes are closed, as the manifest is: an
unknown key is an error.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path

from onnxembed.errors import RecipeError, UsageError
from onnxembed.manifest.decoding import decode
from onnxembed.recipes.recipe import Recipe, contradictions

PACKAGE = Path(__file__).parent
# In the wheel, or in a checkout.
BOOK = next((book for book in (PACKAGE / "data", PACKAGE.parents[2] / "export/recipes") if book.is_dir()), PACKAGE)


def recipe_names() -> list[str]:
    """The names of all recipes, in alphabetical order."""
    return sorted((path.stem for path in BOOK.glob("*.toml")), key=str.casefold)


def choose_recipe(hub_id: str | None, name: str | None = None, precisions: Collection[str] = ()) -> Recipe | None:
    """The recipe to follow: the one that `name` names, else that of the hub id; a folder has none unless it is named.

    Raises UnsupportedError when the recipe refuses one of `precisions`, and what `read_recipe` does.
    """
    if name is not None:
        recipe: Recipe | None = read_recipe(name)
    else:
        recipe = None if hub_id is None else find_recipe(hub_id)
    if recipe is not None:
        recipe.refuse_precisions(precisions)
    return recipe


def find_recipe(model: str) -> Recipe | None:
    """The recipe of a hub id, whatever its case; None when the book has none."""
    name = next((name for name in recipe_names() if name.casefold() == model.rpartition("/")[2].casefold()), None)
    recipe = read_recipe(name) if name else None
    return recipe if recipe and recipe.model.casefold() == model.casefold() else None


def read_recipe(name: str) -> Recipe:
    """Read a recipe by its name or hub id.

    Raises UsageError for a name that is not in the book, RecipeError, which lists all
    problems, for a file that is not a recipe.
    """
    if "/" in name:
        by_id = find_recipe(name)
        if by_id is None:
            raise UsageError(f"there is no recipe for {name!r}; onnxembed recipes lists them")
        return by_id
    if name not in recipe_names():
        raise UsageError(f"there is no recipe {name!r}; there are: {', '.join(recipe_names()) or 'none'}")
    path = BOOK / f"{name}.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} is not readable TOML: {error}") from error
    problems: list[str] = []
    recipe: Recipe = decode(Recipe, data, "", problems)
    problems = problems or list(contradictions(recipe, path))
    if problems:
        raise RecipeError(f"{path} is not a recipe: {'; '.join(problems)}")
    return recipe
