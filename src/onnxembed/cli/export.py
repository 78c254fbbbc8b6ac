"""`onnxembed export`: make an ONNX folder from a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from onnxembed.cli.new_folder import make, making_options, require_export
from onnxembed.cli.options import PATH, REVISION, cache_options
from onnxembed.errors import UsageError
from onnxembed.hub.source import HubOptions
from onnxembed.manifest import (
    ENGINES,
    MIN_COSINES,
    PRECISIONS,
    SCORE_ACTIVATIONS,
    TASKS,
    AttentionMode,
    Engine,
    PoolingMode,
    Precision,
    ScoreActivation,
    Task,
)


def _precisions(context: click.Context, option: click.Parameter, given: Sequence[str]) -> tuple[Precision, ...]:
    names = [name.strip() for each in given for name in each.split(",")]
    for name in names:
        if name not in PRECISIONS:
            raise UsageError(f"--precision: {name!r} is not one of {', '.join(PRECISIONS)}")
    return tuple(dict.fromkeys(names))  # type: ignore[arg-type]  # checked above


@click.command(short_help="Make an ONNX folder from a model.")
@click.argument("model")
@making_options
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
    help="Of a decoder: whether a token sees the ones after it; auto is what recipe and files say.",
)
@click.option(
    "--engine",
    type=click.Choice(("auto", *ENGINES)),
    default="auto",
    show_default=True,
    help="Who writes the graph: onnxembed's builder, transformers' exporter (extra [torch]) or optimum's (extra "
    "[optimum], in an environment of its own); auto traces only what has no builder.",
)
@click.option("--packed", is_flag=True, help="Also write each graph in the form that CUDA runs without padding.")
@click.option("--pooling-out", is_flag=True, help="Leave pooling out of the graph; onnxembed does it afterwards.")
@click.option(
    "--ignore-config-key",
    multiple=True,
    metavar="KEY",
    help="Vouch that this key of config.json, which onnxembed does not know, changes nothing.",
)
@click.option(
    "--adapter", metavar="TASK", help="Of a model with adapters for several tasks: the one to merge, or none of them."
)
@click.option(
    "--task",
    type=click.Choice(TASKS),
    help="What to make of a model whose files allow several [default: what they, or its recipe, say].",
)
@click.option(
    "--activation",
    type=click.Choice(SCORE_ACTIVATIONS),
    help="Of a reranker: what makes scores of logits, whatever the files say.",
)
@click.option(
    "--plain-pairs", is_flag=True, help="Of a reranker with a chat template: it reads query and document without one."
)
@click.option(
    "--calibration",
    type=PATH,
    metavar="FILE",
    help="Of int16, int8 and int8w: texts to make and measure them with, one a line [default: a few dozen in many "
    "languages].",
)
@click.option(
    "--min-cosine",
    type=float,
    metavar="X",
    help="Of int16, int8 and int8w: the lowest cosine with the fp32 vector that a text may have [default: "
    + ", ".join(f"{each} for {name}" for name, each in MIN_COSINES.items())
    + "].",
)
@REVISION
@cache_options
def export(
    *,
    model: str,
    output: Path | None,
    pooling: tuple[PoolingMode, ...] | None,
    normalize: bool | None,
    max_length: int | None,
    recipe: str | None,
    no_verify: bool,
    force: bool,
    precision: tuple[Precision, ...],
    attention: Literal["auto"] | AttentionMode,
    engine: Literal["auto"] | Engine,
    packed: bool,
    pooling_out: bool,
    ignore_config_key: tuple[str, ...],
    adapter: str | None,
    task: Task | None,
    activation: ScoreActivation | None,
    plain_pairs: bool,
    calibration: Path | None,
    min_cosine: float | None,
    revision: str | None,
    cache_dir: Path | None,
    local_files_only: bool,
) -> None:
    """Make an ONNX folder from MODEL, the name of a model on the Hugging Face hub or a folder.

    \b
    onnxembed export sentence-transformers/all-MiniLM-L6-v2
    onnxembed export ./my-model -o my-model-onnx --precision fp32,fp16

    How texts become vectors is read from the model's files; what those of a published model leave out, from
    its recipe (see onnxembed recipes). What neither says is an error that names the option to pass; nothing
    is guessed. Where the extra [torch] is installed, the vectors are compared with
    sentence-transformers' before the folder appears.
    """
    require_export()
    from onnxembed.decisions.flags import Flags
    from onnxembed.export.pipeline import Options  # noqa: TID251
    from onnxembed.export.pipeline import export as run  # noqa: TID251

    options = Options(
        precisions=precision,
        flags=Flags(
            pooling=pooling,
            normalize=normalize,
            max_length=max_length,
            attention=None if attention == "auto" else attention,
            adapter=adapter,
            task=task,
            activation=activation,
            plain_pairs=plain_pairs,
        ),
        engine=engine,
        calibration=calibration,
        min_cosine=min_cosine,
        recipe=recipe,
        packed=packed,
        pooling_out=pooling_out,
        ignored_config_keys=ignore_config_key,
        force=force,
    )
    make(
        model,
        output,
        lambda folder, verify, progress: run(
            model,
            folder,
            options,
            hub=HubOptions(revision, cache_dir, local_files_only),
            verify=verify,
            progress=progress,
        ),
        no_verify=no_verify,
    )
