"""`onnxembed models`: which models can be used, and what is known of each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxembed.cli.options import PATH, json_option

if TYPE_CHECKING:
    from onnxembed.commands import KnownModel


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
    from onnxembed import commands
    from onnxembed.cli.printing import print_json

    known = commands.models(*folders)
    if as_json:
        print_json(known)
        return
    for model in known:
        click.echo(model.name)
        if words := _words(model):
            click.echo(click.wrap_text(words, 80, initial_indent="  ", subsequent_indent="  "))


def _words(model: KnownModel) -> str:
    """What is known, in words; "" if it is only the name."""
    from onnxembed.manifest.describe import megabytes

    parts = [" and ".join(model.tasks)] if model.tasks else []
    parts += [f"{model.dimension} dimensions"] if model.dimension else []
    parts += [f"at most {model.max_length} tokens"] if model.max_length else []
    parts += [megabytes(model.bytes)] if model.bytes else []
    parts += [f"license {model.license}"] if model.license else []
    parts += [f"prompts {', '.join(model.prompts)}"] if model.prompts else []
    return "; ".join(parts)
