"""`onnxembed compare`: whether two models or outputs hold vectors of one space."""

from __future__ import annotations

from typing import Unpack

import click

from onnxembed.cli.options import HubArguments, hub_options, json_option
from onnxembed.errors import VerificationError


@click.command(short_help="Say whether vectors of two models or files can be compared.")
@click.argument("ours", metavar="A")
@click.argument("theirs", metavar="B")
@json_option
@hub_options
def compare(
    *,
    ours: str,
    theirs: str,
    as_json: bool,
    **arguments: Unpack[HubArguments],
) -> None:
    """Say whether A and B hold vectors of one space: models, folders that `onnxembed embed` wrote, or parquet files.

    \b
    onnxembed compare my-model-onnx vectors/
    onnxembed compare old/part-00000.parquet new/

    Vectors of one space can be compared with each other. A space is decided by the model's tensors, its tokenizer,
    attention, pooling, layers, normalization and length. The precision, prompts and dimensions are shown beside it.
    Exits with 1 if the spaces differ, and says in what.
    """
    from onnxembed.bulk.compare import compare as compare_spaces
    from onnxembed.bulk.compare import held_spaces
    from onnxembed.cli.printing import print_json
    from onnxembed.hub.source import HubOptions

    hub = HubOptions(**arguments)
    compared = compare_spaces(held_spaces(ours, hub), held_spaces(theirs, hub))
    different = [each for each in compared if each.differences]
    if as_json:
        print_json({"same": not different, "tasks": compared})
    for each in () if as_json else compared:
        if not each.differences:
            click.echo(f"the same vector space for {each.task}: {each.ids[0]}")
        for difference in each.beside:
            click.echo(f"  beside the space, {difference}")
    if different:
        what = "; ".join(f"{each.task}, {', '.join(each.differences)}" for each in different)
        raise VerificationError(f"{ours} and {theirs} hold vectors of different spaces: {what}")
