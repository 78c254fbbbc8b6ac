"""`onnxembed export`: make an ONNX folder from a model."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from onnxembed.cli.options import PATH, REVISION, cache_options
from onnxembed.errors import MissingExtraError, NoReferenceError, UsageError
from onnxembed.manifest import (
    ENGINES,
    MIN_COSINES,
    POOLING_MODES,
    PRECISIONS,
    SCORE_ACTIVATIONS,
    TASKS,
    AttentionMode,
    Engine,
    Manifest,
    PoolingMode,
    Precision,
    ScoreActivation,
    Task,
)

if TYPE_CHECKING:
    from onnxembed.hub import Fetched


@click.command(short_help="Make an ONNX folder from a model.")
@click.argument("model")
@click.option("-o", "--output", type=PATH, metavar="DIR", help="Folder to write [default: NAME-onnx, here].")
@click.option(
    "--precision",
    multiple=True,
    default=("fp32",),
    metavar="NAMES",
    help=f"Graphs to write: {', '.join(PRECISIONS)}, or several joined by commas [default: fp32].",
)
@click.option(
    "--pooling",
    metavar="NAMES",
    help=f"Pool like this, whatever the model's files say: {', '.join(POOLING_MODES)}, or several joined by +.",
)
@click.option(
    "--normalize/--no-normalize", default=None, help="Scale vectors to length 1 or do not, whatever the files say."
)
@click.option("--max-length", type=int, help="Cut texts to this many tokens, whatever the files say.")
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
@click.option("--recipe", metavar="NAME", help="Follow this recipe [default: that of a hub model, if there is one].")
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
    help="Of int8 and int8w: texts to make and measure them with, one a line [default: a few dozen in many languages].",
)
@click.option(
    "--min-cosine",
    type=float,
    metavar="X",
    help="Of int8 and int8w: the lowest cosine with the fp32 vector that a text may have [default: "
    + ", ".join(f"{each} for {name}" for name, each in MIN_COSINES.items())
    + "].",
)
@click.option("--no-verify", is_flag=True, help="Do not compare the vectors with the reference's.")
@click.option("--force", is_flag=True, help="Replace the ONNX folder that is there.")
@REVISION
@cache_options
def export(
    *,
    model: str,
    output: Path | None,
    precision: tuple[str, ...],
    pooling: str | None,
    normalize: bool | None,
    max_length: int | None,
    attention: Literal["auto"] | AttentionMode,
    engine: Literal["auto"] | Engine,
    recipe: str | None,
    packed: bool,
    pooling_out: bool,
    ignore_config_key: tuple[str, ...],
    adapter: str | None,
    task: Task | None,
    activation: ScoreActivation | None,
    plain_pairs: bool,
    calibration: Path | None,
    min_cosine: float | None,
    no_verify: bool,
    force: bool,
    revision: str | None,
    cache_dir: Path | None,
    offline: bool,
) -> None:
    """Make an ONNX folder from MODEL, the name of a model on the Hugging Face hub or a folder.

    \b
    onnxembed export sentence-transformers/all-MiniLM-L6-v2
    onnxembed export ./my-model -o my-model-onnx --precision fp32,fp16

    How texts become vectors is read from the model's files; what those of a published model leave out, from
    its recipe (see onnxembed recipes). What neither says is an error that names the option to pass; nothing
    is guessed. Where the extra [torch] is installed, the vectors are compared
    with sentence-transformers' before the folder appears.
    """
    require_export()
    from onnxembed.describe import describe_output, describe_verification, megabytes
    from onnxembed.export.pipeline import Options  # noqa: TID251
    from onnxembed.export.pipeline import export as run  # noqa: TID251
    from onnxembed.export.verify import lacking, self_check, verify_against  # noqa: TID251
    from onnxembed.progress import ProgressLine
    from onnxembed.resolve import Flags

    options = Options(
        precisions=_precisions(precision),
        flags=Flags(
            pooling=parse_pooling(pooling),
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
    output = output or default_output(model)
    unverified = "--no-verify" if no_verify else lacking()
    later = f"; to verify: onnxembed verify {output}"
    notes = []

    def check(draft: Path, made: Manifest, source: Fetched) -> Manifest:
        nonlocal unverified, later
        if not unverified:
            try:
                return verify_against(draft, made, source.folder, progress=line)
            except NoReferenceError as error:
                unverified, later = str(error), ""
        notes.append(self_check(draft))
        return made

    with ProgressLine() as line:
        manifest = run(
            model,
            output,
            options,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=offline,
            verify=check,
            progress=line,
        )
    size = sum(record.bytes for record in manifest.files.values())
    click.echo(f"{output}: {describe_output(manifest)}, {megabytes(size)}")
    if unverified:
        notes.append(f"not verified ({unverified}){later}")
    for note in (*notes, *describe_verification(manifest)):
        click.echo(note)


def require_export() -> None:
    """Raise MissingExtraError where the extra [export] is not installed."""
    missing = [name for name in ("onnx", "ml_dtypes") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"export needs {' and '.join(missing)}: pip install 'onnxembed[export]'")


def default_output(model: str) -> Path:
    """The model's own name, also when it is given as "." or as a hub id."""
    folder = Path(model).expanduser()
    return Path(f"{folder.resolve().name if folder.is_dir() else folder.name}-onnx")


def _precisions(options: Sequence[str]) -> tuple[Precision, ...]:
    names = [name.strip() for option in options for name in option.split(",")]
    for name in names:
        if name not in PRECISIONS:
            raise UsageError(f"--precision: {name!r} is not one of {', '.join(PRECISIONS)}")
    return tuple(dict.fromkeys(names))  # type: ignore[arg-type]  # checked above


def parse_pooling(option: str | None) -> tuple[PoolingMode, ...] | None:
    """The modes of --pooling; UsageError for one that there is not."""
    if option is None:
        return None
    names = option.split("+")
    for name in names:
        if name not in POOLING_MODES:
            raise UsageError(f"--pooling: {name!r} is not one of {', '.join(POOLING_MODES)}")
    return tuple(names)  # type: ignore[arg-type]  # checked above
