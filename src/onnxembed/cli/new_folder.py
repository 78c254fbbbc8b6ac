"""What `export` and `adopt` share: writing an ONNX folder, verifying it, and reporting what was made."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxembed.cli.options import PATH, force_option, json_option, options
from onnxembed.errors import MissingExtraError, NoReferenceError, UsageError
from onnxembed.manifest import POOLING_MODES, SCORE_ACTIVATIONS, TASKS, Manifest, PoolingMode

if TYPE_CHECKING:
    from onnxembed.export.artifact.record_manifest import Verify  # noqa: TID251
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


def require_export() -> None:
    """Raise MissingExtraError unless the extra [export] is installed."""
    missing = [name for name in ("onnx", "ml_dtypes") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"export needs {' and '.join(missing)}: pip install 'onnxembed[export]'")


def default_output(model: str) -> Path:
    """The folder that is written if the caller names none: the model's name, also for "." and for a hub id."""
    folder = Path(os.path.expanduser(model))
    return Path(f"{folder.resolve().name if folder.is_dir() else folder.name}-onnx")


class DraftVerifier:
    """Compares a finished draft with the reference; runs its graphs without one if that is not possible.

    Args:
        output: where the folder will appear, for messages.
        no_verify: the flag --no-verify.
        has_weights: whether the folder of a model contains weights to compare with.
        progress: called as the comparison goes on.
    """

    def __init__(
        self, output: Path, *, no_verify: bool, has_weights: Callable[[Path], bool], progress: Progress
    ) -> None:
        self.notes: list[str] = []
        """What to tell the user about a draft that was not compared."""
        self._output, self._no_verify, self._has_weights, self._progress = output, no_verify, has_weights, progress

    def __call__(self, draft: Path, manifest: Manifest, source: Fetched) -> Manifest:
        """The manifest, with the figures of the comparison if there was one."""
        from onnxembed.verify.comparison import Comparison
        from onnxembed.verify.verify import missing_requirements, self_check, verify_against

        obstacle = "--no-verify" if self._no_verify else missing_requirements()
        cure = f"; to verify: onnxembed verify {self._output}"
        if not self._has_weights(source.folder):
            obstacle, cure = obstacle or "its weights are not beside the graph", f"{cure} --against MODEL"
        if not obstacle:
            try:
                return verify_against(Comparison(draft, manifest, source.folder, progress=self._progress))
            except NoReferenceError as error:
                obstacle, cure = str(error), ""
        self.notes = [self_check(draft), f"not verified ({obstacle}){cure}"]
        return manifest


def write_and_verify(
    output: Path, write: Write, *, no_verify: bool, has_weights: Callable[[Path], bool] = lambda folder: True
) -> tuple[Manifest, Sequence[str]]:
    """Have `write` make the folder and verify it; returns its manifest, and notes about what was not verified.

    Raises whatever `write` does, and VerificationError for vectors that are wrong.
    """
    from onnxembed.cli.progress import ProgressLine

    with ProgressLine() as line:
        verifier = DraftVerifier(output, no_verify=no_verify, has_weights=has_weights, progress=line)
        manifest = write(output, verifier, line)
    return manifest, verifier.notes


def report(output: Path, manifest: Manifest, notes: Sequence[str], *, as_json: bool) -> None:
    """Print what was made, and how well it was verified."""
    from onnxembed.cli.describe import describe_output, describe_overruled, describe_verification, megabytes
    from onnxembed.cli.printing import print_json

    if as_json:
        print_json({"folder": output, "notes": notes, "manifest": manifest})
        return
    for line in describe_overruled(manifest):
        click.echo(line)
    size = sum(record.bytes for record in manifest.files.values())
    click.echo(f"{output}: {describe_output(manifest)}, {megabytes(size)}")
    for line in (*notes, *describe_verification(manifest)):
        click.echo(line)
