"""`onnxembed verify`: compare an ONNX folder with its proof, or with the original model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from onnxembed.cli.options import CacheArguments, HubArguments, cache_options, json_option, provider_options
from onnxembed.cli.texts import open_texts
from onnxembed.errors import UsageError, VerificationError
from onnxembed.hub.model_files import local_folder
from onnxembed.manifest import PRECISIONS, Precision

if TYPE_CHECKING:
    from onnxembed.proof.compare import Figure


class ProofArguments(HubArguments):
    """The graph to verify, where it comes from, and where it runs."""

    precision: Precision | None
    providers: str
    device_ids: tuple[int, ...] | None
    threads: int | None
    max_length: int | None


@click.command(short_help="Compare an ONNX folder with what its model should give.")
@click.argument("model")
@provider_options
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="The graph to compare with the proof [default: all that the provider can run].",
)
@click.option(
    "--max-length", type=int, metavar="N", help="Compare with the proof what has at most N tokens [default: all]."
)
@click.option(
    "--against",
    metavar="MODEL",
    help="Compare with the original model, its hub name or folder, or with a live system: tei:URL, openai:URL, "
    "fastembed:NAME, sentence-transformers:NAME, transformers:NAME.",
)
@click.option("--revision", help="Branch, tag or commit of the original model, or of MODEL if that is on the hub.")
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
    model: str,
    providers: str,
    device_ids: tuple[int, ...] | None,
    threads: int | None,
    precision: Precision | None,
    max_length: int | None,
    against: str | None,
    revision: str | None,
    texts: str | None,
    golden: bool,
    as_json: bool,
    **cache: Unpack[CacheArguments],
) -> None:
    """Compare what MODEL gives with what it should give: a folder that `onnxembed export` wrote, or a hub repository.

    \b
    onnxembed verify my-model-onnx
    onnxembed verify org/my-model-onnx
    onnxembed verify my-model-onnx --provider cuda --precision fp16
    onnxembed verify my-model-onnx --against org/my-model

    Compares with the proof in the folder: results of the original model for some texts, some of them longer than its
    limit, alone, in the runs that are made of them, in pairs and with padding. Needs no torch. --against runs the
    original model with sentence-transformers, compares more, records the figures in the folder, and needs the extra
    [torch]. The exit code is 1 if a limit is broken.

    A live system is asked for its vectors or scores, as `onnxembed explain` asks it: if they differ, the verdict says
    why and the exit code is 1. Nothing is recorded, and torch is not needed.
    """
    folder = None if local_folder(model, None) is None else Path(model).expanduser()
    placed = bool(precision or threads or device_ids or providers != "auto" or max_length is not None)
    if golden and folder is not None:
        if against or revision or texts or placed:
            raise UsageError(
                "--golden compares the graph on the CPU with published numbers: leave out --against, --revision, "
                "--texts, --precision, --provider, --device-id, --threads and --max-length"
            )
        _verify_golden(folder, as_json=as_json)
        return
    if not (golden or against or texts or (revision and folder)):
        _verify_proof(
            model,
            as_json=as_json,
            revision=revision,
            precision=precision,
            providers=providers,
            device_ids=device_ids,
            threads=threads,
            max_length=max_length,
            **cache,
        )
        return
    if folder is None:
        raise UsageError(
            f"{model} is on the hub, where only its proof is compared: download it for --against, --texts and --golden "
            f"(hf download {model} --local-dir DIR)"
        )
    if placed:
        raise UsageError(
            "--precision, --provider, --device-id, --threads and --max-length are for the proof: leave out --against"
        )
    more_texts: list[str] = []
    if texts is not None:
        with open_texts([texts]) as source:
            more_texts = list(source.texts)
    if against is not None and _is_live(against):
        if revision:
            raise UsageError(f"--revision names a version of the original model, and {against} is a system that runs")
        _verify_live(folder, against, more_texts or None, as_json=as_json)
        return
    _verify_reference(folder, against, more_texts, revision, as_json=as_json, **cache)


def _verify_reference(
    folder: Path,
    against: str | None,
    texts: list[str],
    revision: str | None,
    *,
    as_json: bool,
    **cache: Unpack[CacheArguments],
) -> None:
    """Compare an ONNX folder with the original model, which may be given by a path or a hub id."""
    from onnxembed import commands
    from onnxembed.cli.printing import print_json, show
    from onnxembed.cli.progress import ProgressLine
    from onnxembed.manifest.describe import describe_verification

    with ProgressLine() as line:
        result = commands.verify(folder, against=against, texts=texts, revision=revision, progress=line, **cache)
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


def _verify_proof(model: str, *, as_json: bool, **arguments: Unpack[ProofArguments]) -> None:
    from onnxembed import commands
    from onnxembed.cli.printing import print_json

    result = commands.verify_proof(model, **arguments)
    if as_json:
        print_json(result)
    else:
        click.echo(f"{model} against its proof, made by {result.reference}")
        for graph in result.graphs:
            click.echo(f"\n{graph.precision} on {graph.provider}, {graph.threads} threads")
            click.echo(f"{'':<22}{'run':<14}{'items':>5}{'min cosine':>12}{'max diff':>10}  allowed")
            for figure in graph.figures:
                click.echo(_line(figure))
    if not result.passed:
        raise VerificationError("limits are broken: this graph does not give the model's own results here")


def _line(figure: Figure) -> str:
    """A line of the table, at most 80 columns wide."""
    cosine = "" if figure.min_cosine is None else f"{figure.min_cosine:.7f}"
    allowed = figure.required.get("min_cosine", figure.required.get("max_abs_diff"))
    words = "any" if allowed is None else f"{allowed:g}"
    verdict = "  BROKEN" if figure.fault else ""
    return (
        f"{figure.part:<22}{figure.way:<14}{figure.items:>5}{cosine:>12}{figure.max_abs_diff:>10.1e}  {words}{verdict}"
    )


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
