"""`onnxembed verify`: compare an ONNX folder with its reference."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from onnxembed.cli.options import cache_options, json_option
from onnxembed.cli.texts import open_texts
from onnxembed.errors import UsageError, VerificationError


@click.command(short_help="Compare an ONNX folder with its reference.")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--against",
    metavar="MODEL",
    help="Hub name or folder of the original model [default: as recorded], or a live system: tei:URL, openai:URL, "
    "fastembed:NAME, sentence-transformers:NAME, transformers:NAME.",
)
@click.option("--revision", help="Branch, tag or commit of the original model.")
@click.option(
    "--texts",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="A .txt or .jsonl file of texts to compare in addition to the built-in ones.",
)
@click.option("--golden", is_flag=True, help="Compare with the numbers published in the recipe; needs no torch.")
@json_option
@cache_options
def verify(
    *,
    folder: Path,
    against: str | None,
    revision: str | None,
    texts: str | None,
    golden: bool,
    as_json: bool,
    cache_dir: Path | None,
    local_files_only: bool,
    refresh: bool,
    token: str | None,
) -> None:
    """Compare FOLDER, which `onnxembed export` wrote, with the original model run by sentence-transformers.

    Token ids and vectors are compared on built-in texts, some of them longer than the model's limit: each alone,
    all together, and padded on the left and on the right. The figures are recorded in the folder. If they exceed
    the limits, nothing is recorded and the exit code is 1. Needs the extra [torch].

    A live system is asked for its vectors or scores, as `onnxembed explain` asks it: if they differ, the verdict says
    why and the exit code is 1. Nothing is recorded, and torch is not needed.
    """
    if golden:
        if against or revision or texts:
            raise UsageError("--golden compares with published numbers: leave out --against, --revision and --texts")
        _verify_golden(folder, as_json=as_json)
        return
    more_texts: list[str] = []
    if texts is not None:
        with open_texts([texts]) as source:
            more_texts = list(source.texts)
    if against is not None and _is_live(against):
        _verify_live(folder, against, more_texts or None, as_json=as_json)
        return
    from onnxembed import commands
    from onnxembed.cli.printing import print_json, show
    from onnxembed.cli.progress import ProgressLine
    from onnxembed.manifest.describe import describe_verification

    with ProgressLine() as line:
        result = commands.verify(
            folder,
            against=against,
            texts=more_texts,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            refresh=refresh,
            token=token,
            progress=line,
        )
    if as_json:
        print_json(result)
        return
    for words in describe_verification(result.manifest):
        show(words)


def _is_live(against: str) -> bool:
    from onnxembed.explain import System

    return System.parse(against) is not None


def _verify_live(folder: Path, against: str, texts: list[str] | None, *, as_json: bool) -> None:
    """Print why a live system differs from the folder, if it does; the exit code says whether."""
    from onnxembed.cli import CHECK_FAILED
    from onnxembed.explain import System, explain_system

    system = System.parse(against)
    assert system is not None
    report = explain_system(folder, system, texts)
    click.echo(report.to_json() if as_json else "\n".join(report.lines()), nl=not as_json)
    if not report.same:
        sys.exit(CHECK_FAILED)


def _verify_golden(folder: Path, *, as_json: bool) -> None:
    from onnxembed import commands
    from onnxembed.cli.printing import print_json, show

    result = commands.verify_golden(folder)
    if as_json:
        print_json(result)
    else:
        for outcome in result.golden:
            show(f"{'ok' if outcome.passed else 'OFF'}: {outcome.description}", color=None if outcome.passed else "red")
    if result.failures:
        raise VerificationError(f"{result.failures} of the published numbers are not met")
