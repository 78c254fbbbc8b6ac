"""`onnxembed verify`: compare an ONNX folder with its reference."""

from __future__ import annotations

from pathlib import Path

import click

from onnxembed.cli.options import cache_options
from onnxembed.cli.texts import opened
from onnxembed.errors import UsageError, VerificationError
from onnxembed.hub.source import HubOptions


@click.command(short_help="Compare an ONNX folder with its reference.")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--against", metavar="MODEL", help="Hub name or folder of the original model [default: as recorded].")
@click.option("--revision", help="Branch, tag or commit of --against.")
@click.option(
    "--texts",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Compare on the texts of this .txt or .jsonl file, too.",
)
@click.option("--golden", is_flag=True, help="Compare with the numbers that its recipe gives instead; without torch.")
@cache_options
def verify(
    *,
    folder: Path,
    against: str | None,
    revision: str | None,
    texts: str | None,
    golden: bool,
    cache_dir: Path | None,
    local_files_only: bool,
) -> None:
    """Compare FOLDER, which `onnxembed export` wrote, with the original model run by sentence-transformers.

    Token ids and vectors are compared on built-in texts: each alone, all together, padded left and
    right, and longer than the model's limit. The figures are recorded in the folder; when they are over the
    limits, nothing is, and the exit code is 2. Needs the extra [torch].
    """
    if golden:
        if against or revision or texts:
            raise UsageError("--golden compares with published numbers: not with --against, --revision or --texts")
        _verify_golden(folder)
        return
    from onnxembed.cli.describe import describe_verification
    from onnxembed.cli.progress import ProgressLine
    from onnxembed.verify.verify import verify as run

    more: list[str] = []
    if texts is not None:
        with opened([texts]) as source:
            more = list(source)
    with ProgressLine() as line:
        manifest = run(
            folder,
            against=against,
            hub=HubOptions(revision, cache_dir, local_files_only),
            texts=more,
            progress=line,
        )
    for words in describe_verification(manifest):
        click.echo(words)


def _verify_golden(folder: Path) -> None:
    from onnxembed.verify.published import check_golden

    failures = 0
    for outcome in check_golden(folder):
        failures += not outcome.held
        click.echo(f"{'ok' if outcome.held else 'OFF'}: {outcome.words}")
    if failures:
        raise VerificationError(f"{failures} of the published numbers are not met")
