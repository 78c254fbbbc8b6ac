"""`onnxembed recipes`: say what is known of published models beside their files."""

from __future__ import annotations

import click


@click.command(short_help="Say what is known of published models beside their files.")
@click.argument("name", required=False)
def recipes(*, name: str | None) -> None:
    """List the recipe book, or say all of the recipe NAME.

    A recipe holds what the files of a published model do not say, with its reason and source, and numbers
    that were published for it (see onnxembed verify --golden).
    """
    from onnxembed.recipes.book import read_recipe, recipe_names
    from onnxembed.recipes.describe import describe_recipe, summary

    if name is not None:
        for line in describe_recipe(read_recipe(name)):
            click.echo(line)
        return
    book = [read_recipe(each) for each in recipe_names()]
    width = max((len(recipe.model) for recipe in book), default=0)
    for recipe in book:
        click.echo(
            f"{recipe.model:<{width}}  {'checked' if recipe.is_checked else 'UNCHECKED'}  {summary(recipe)}".rstrip()
        )
