"""What making an ONNX folder has in common, whether its graph is exported or adopted."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxembed.cli.options import PATH, options
from onnxembed.errors import MissingExtraError, NoReferenceError, UsageError
from onnxembed.manifest import POOLING_MODES, Manifest, PoolingMode

if TYPE_CHECKING:
    from onnxembed.export.pipeline import Verify  # noqa: TID251
    from onnxembed.export.progress import Progress  # noqa: TID251
    from onnxembed.hub.source import Fetched

    Write = Callable[[Path, Verify, Progress], Manifest]


def _pooling(context: click.Context, option: click.Parameter, value: str | None) -> tuple[PoolingMode, ...] | None:
    if value is None:
        return None
    names = value.split("+")
    for name in names:
        if name not in POOLING_MODES:
            raise UsageError(f"--pooling: {name!r} is not one of {', '.join(POOLING_MODES)}")
    return tuple(names)  # type: ignore[arg-type]  # checked above


making_options = options(
    click.option("-o", "--output", type=PATH, metavar="DIR", help="Folder to write [default: NAME-onnx, here]."),
    click.option(
        "--pooling",
        metavar="NAMES",
        callback=_pooling,
        help=f"Pool like this, whatever the model's files say: {', '.join(POOLING_MODES)}, or several joined by +.",
    ),
    click.option(
        "--normalize/--no-normalize", default=None, help="Scale vectors to length 1 or do not, whatever the files say."
    ),
    click.option("--max-length", type=int, metavar="N", help="Cut texts to this many tokens, whatever the files say."),
    click.option(
        "--recipe", metavar="NAME", help="Follow this recipe [default: that of a hub model, if there is one]."
    ),
    click.option("--no-verify", is_flag=True, help="Do not compare the vectors with the reference's."),
    click.option("--force", is_flag=True, help="Replace the ONNX folder that is there."),
)


def require_export() -> None:
    """Raise MissingExtraError where the extra [export] is not installed."""
    missing = [name for name in ("onnx", "ml_dtypes") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"export needs {' and '.join(missing)}: pip install 'onnxembed[export]'")


def make(
    model: str,
    output: Path | None,
    write: Write,
    *,
    no_verify: bool,
    has_weights: Callable[[Path], bool] = lambda source: True,
) -> None:
    """Have `write` make the folder, compare it with the reference, and say what was made and how sure it is.

    Where the comparison cannot be, for want of an extra, of a reference or of the weights in the model's
    folder, the graphs are run all the same, and what was not done is said.
    """
    from onnxembed.cli.describe import describe_output, describe_verification, megabytes
    from onnxembed.cli.progress import ProgressLine
    from onnxembed.verify.verify import lacking, self_check, verify_against

    output = output or _default_output(model)
    hindrance = "--no-verify" if no_verify else lacking()
    notes: list[str] = []

    def check(draft: Path, made: Manifest, source: Fetched) -> Manifest:
        why, later = hindrance, f"; to verify: onnxembed verify {output}"
        if not has_weights(source.folder):
            why, later = why or "its weights are not beside the graph", f"{later} --against MODEL"
        if not why:
            try:
                return verify_against(draft, made, source.folder, progress=line)
            except NoReferenceError as error:
                why, later = str(error), ""
        notes.extend((self_check(draft), f"not verified ({why}){later}"))
        return made

    with ProgressLine() as line:
        manifest = write(output, check, line)
    size = sum(record.bytes for record in manifest.files.values())
    click.echo(f"{output}: {describe_output(manifest)}, {megabytes(size)}")
    for note in (*notes, *describe_verification(manifest)):
        click.echo(note)


def _default_output(model: str) -> Path:
    """The model's own name, also when it is given as "." or as a hub id."""
    folder = Path(model).expanduser()
    return Path(f"{folder.resolve().name if folder.is_dir() else folder.name}-onnx")
