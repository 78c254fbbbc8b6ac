"""`onnxembed recipes`: show what onnxembed knows about published models."""

from __future__ import annotations

import click


@click.command(short_help="Show what onnxembed knows about published models.")
@click.argument("name", required=False)
def recipes(*, name: str | None) -> None:
    """List the recipe book, or show the recipe NAME.

    A recipe says what the files of a published model leave out, with reasons and sources; one that was not yet checked
    against the model's own files is marked as unchecked. It may also have golden numbers, which were published for the
    model (see `onnxembed verify --golden`).
    """
    from onnxembed.cli.printing import show
    from onnxembed.recipes.book import read_recipe, recipe_names
    from onnxembed.recipes.describe import describe_recipe, summary

    if name is not None:
        for line in describe_recipe(read_recipe(name)):
            show(line)
        return
    book = [read_recipe(file_name) for file_name in recipe_names()]
    for recipe in book:
        known = ", ".join(part for part in ("" if recipe.is_checked else "unchecked", summary(recipe)) if part)
        show(recipe.model + (f": {known}" if known else ""))
