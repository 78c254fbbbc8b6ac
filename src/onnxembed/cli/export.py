"""`onnxembed export`: make an ONNX folder from a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Unpack

import click

from onnxembed.cli.new_folder import NewFolderArguments, head_options, new_folder_options, report
from onnxembed.cli.options import PATH, hub_options
from onnxembed.errors import UsageError
from onnxembed.manifest import (
    ENGINES,
    FORMS,
    MIN_AGREEMENTS,
    MIN_COSINES,
    PRECISIONS,
    AttentionMode,
    Engine,
    Form,
    Precision,
)


class ExportArguments(NewFolderArguments):
    """The options of `export` that `commands.export` takes by the same names."""

    precision: tuple[Precision, ...]
    attention: Literal["auto"] | AttentionMode
    engine: Literal["auto"] | Engine
    form: Form
    packed: bool
    pooling_out: bool
    ignore_config_key: tuple[str, ...]
    ignore_tensor: tuple[str, ...]
    adapter: str | None
    calibration: Path | None
    min_cosine: float | None
    min_agreement: float | None
    dry_run: bool


def _precisions(context: click.Context, option: click.Parameter, given: Sequence[str]) -> tuple[Precision, ...]:
    names = [name.strip() for value in given for name in value.split(",")]
    for name in names:
        if name not in PRECISIONS:
            raise UsageError(f"--precision: {name!r} is not one of {', '.join(PRECISIONS)}")
    return tuple(dict.fromkeys(names))  # type: ignore[arg-type]  # checked above


@click.command(short_help="Make an ONNX folder from a model.")
@click.argument("model")
@new_folder_options
@click.option(
    "--precision",
    multiple=True,
    callback=_precisions,
    default=("fp32",),
    metavar="NAMES",
    help=f"Graphs to write: {', '.join(PRECISIONS)}, or several joined by commas [default: fp32].",
)
@click.option(
    "--attention",
    type=click.Choice(("auto", "bidirectional", "causal")),
    default="auto",
    show_default=True,
    help="For a decoder: whether tokens see later ones; auto follows the recipe and the files.",
)
@click.option(
    "--engine",
    type=click.Choice(("auto", *ENGINES)),
    default="auto",
    show_default=True,
    help="What writes the graph: onnxembed's builder, transformers' exporter (extra [torch]) or optimum's (extra "
    "[optimum], in its own environment); auto traces only models without a builder.",
)
@click.option(
    "--form",
    type=click.Choice(FORMS),
    default="fused",
    show_default=True,
    help="Operators of the graphs: fused are ONNX Runtime's own, and fastest there; portable are standard ones only, "
    "for any program that reads ONNX.",
)
@click.option("--packed", is_flag=True, help="Also write each graph in a form that CUDA runs without padding.")
@click.option("--pooling-out", is_flag=True, help="Leave pooling out of the graph; onnxembed pools the graph's output.")
@click.option(
    "--ignore-config-key",
    multiple=True,
    metavar="KEY",
    help="Ignore this key of config.json, which onnxembed does not know: it must not change vectors.",
)
@click.option(
    "--ignore-tensor",
    multiple=True,
    metavar="NAME",
    help="Leave out this tensor, or module, which onnxembed does not know; the vectors must be compared with [torch].",
)
@click.option(
    "--adapter",
    metavar="TASK",
    help="For a model with adapters for several tasks: the adapter to merge, or none.",
)
@head_options
@click.option(
    "--calibration",
    type=PATH,
    metavar="FILE",
    help="For int16, int8 and int8w: texts to calibrate and measure with, one per line [default: a few dozen in "
    "many languages].",
)
@click.option(
    "--min-cosine",
    type=float,
    metavar="X",
    help="For int16, int8 and int8w: the lowest cosine of a text's vector with the fp32 one [default: "
    + ", ".join(f"{cosine} for {name}" for name, cosine in MIN_COSINES.items())
    + "].",
)
@click.option(
    "--min-agreement",
    type=float,
    metavar="X",
    help="For a reranker in int16, int8 and int8w: the lowest rank agreement (Kendall's tau-b) of its scores with "
    "those of fp32 [default: " + ", ".join(f"{floor} for {name}" for name, floor in MIN_AGREEMENTS.items()) + "].",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show every decision and every file that would be written, and write nothing; a hub model's weights are not "
    "fetched.",
)
@hub_options
def export(
    *,
    model: str,
    output: Path | None,
    no_verify: bool,
    as_json: bool,
    **arguments: Unpack[ExportArguments],
) -> None:
    """Make an ONNX folder from MODEL, a folder or a model on the Hugging Face hub.

    \b
    onnxembed export sentence-transformers/all-MiniLM-L6-v2
    onnxembed export ./my-model -o my-model-onnx --precision fp32,fp16

    The model's files say how texts become vectors. A published model's recipe says what its files leave out (see
    `onnxembed recipes`). Nothing is guessed: a decision that neither makes is an error that names the option to
    pass. If the extra [torch] is installed, the vectors are compared with those of sentence-transformers before
    the folder appears.
    """
    from onnxembed import commands
    from onnxembed.cli.progress import ProgressLine

    with ProgressLine() as line:
        result = commands.export(model, output, verify=not no_verify, progress=line, **arguments)
    report(result, as_json=as_json)
