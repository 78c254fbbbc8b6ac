"""What `export` and `adopt` share: options, and the report of the folder that was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxembed.cli.options import PATH, HubArguments, force_option, json_option, options
from onnxembed.cli.printing import print_json, show, show_decisions
from onnxembed.errors import UsageError
from onnxembed.manifest import POOLING_MODES, SCORE_ACTIVATIONS, TASKS, PoolingMode, ScoreActivation, Task

if TYPE_CHECKING:
    from onnxembed.commands.new_folder import NewFolder


class NewFolderArguments(HubArguments):
    """The arguments that both commands pass on as they are, of `new_folder_options`, `head_options` and the hub's."""

    pooling: tuple[PoolingMode, ...] | None
    normalize: bool | None
    max_length: int | None
    recipe: str | None
    force: bool
    task: Task | None
    activation: ScoreActivation | None
    plain_pairs: bool


def _pooling(context: click.Context, option: click.Parameter, value: str | None) -> tuple[PoolingMode, ...] | None:
    if value is None:
        return None
    names = value.split("+")
    for name in names:
        if name not in POOLING_MODES:
            raise UsageError(f"--pooling: {name!r} is not one of {', '.join(POOLING_MODES)}")
    return tuple(names)  # type: ignore[arg-type]  # checked above


new_folder_options = options(
    click.option("-o", "--output", type=PATH, metavar="DIR", help="Folder to write [default: ./NAME-onnx]."),
    click.option(
        "--pooling",
        metavar="NAMES",
        callback=_pooling,
        help=f"How to pool, whatever the files say: {', '.join(POOLING_MODES)}, or several joined by +.",
    ),
    click.option(
        "--normalize/--no-normalize",
        default=None,
        help="Whether to scale vectors to length 1, whatever the files say.",
    ),
    click.option("--max-length", type=int, metavar="N", help="Cut texts to N tokens, whatever the files say."),
    click.option("--recipe", metavar="NAME", help="Recipe to follow [default: the hub model's, if it has one]."),
    click.option("--no-verify", is_flag=True, help="Do not compare the vectors with the reference's."),
    force_option,
    json_option,
)

head_options = options(
    click.option(
        "--task",
        type=click.Choice(TASKS),
        help="Task of a model that allows several [default: the one its files or its recipe name].",
    ),
    click.option(
        "--activation",
        type=click.Choice(SCORE_ACTIVATIONS),
        help="For a reranker: what turns logits into scores, whatever the files say.",
    ),
    click.option(
        "--plain-pairs",
        is_flag=True,
        help="For a reranker with a chat template: feed it query and document without the template.",
    ),
)


def report(result: NewFolder, *, as_json: bool) -> None:
    """Print what was made, or would be, and how well it was verified."""
    from onnxembed.manifest.describe import (
        describe_files,
        describe_output,
        describe_overruled,
        describe_verification,
        megabytes,
    )

    if as_json:
        print_json(result)
        return
    manifest, folder = result.manifest, result.folder
    if result.written:
        for line in describe_overruled(manifest):
            show(line, color="yellow")
        size = sum(size for size in result.files.values() if size is not None)
        show(f"{folder}: {describe_output(manifest)}, {megabytes(size)}")
    else:
        show_decisions(manifest)
        for line in ("", f"would write {folder}:", *describe_files(result.files)):
            show(line)
    for line in (*result.notes, *describe_verification(manifest)):
        show(line)
