"""How often the proof refuses a graph that is right: models are opened many times, and each load runs its proof.

A small random model of every architecture is made and exported in fp32 and fp16, every second one in the portable form,
and compared with its reference, which leaves its proof. Artifacts named with --model join them, in every precision that
they have. Where the CPU computes in bf16, fp32 graphs are opened in it, too; what cannot be is left out, and said.
Loads go through all of them, with 1, 2 and 4 threads and each provider, in an order of --seed. The exit status is 1 if
one is refused.
"""

from __future__ import annotations

import itertools
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from benchmark.gpu_check import ARCHITECTURES
from benchmark.models import write_checkpoint
from onnxembed import OnnxEmbedder, OnnxEmbedError, OnnxReranker, commands
from onnxembed.errors import ProofError
from onnxembed.execution.opening import why_no_bf16
from onnxembed.manifest import PRECISIONS, Precision, read_manifest

LIMIT = 300
"""The longest texts of the small models, in tokens: longer than their windows."""

THREADS = (1, 2, 4)


@dataclass(frozen=True)
class Load:
    """One way of opening a graph."""

    folder: Path
    precision: Precision
    threads: int
    provider: str

    def run(self) -> None:
        """Open it, proof included; ProofError if it is refused."""
        kind = OnnxReranker if read_manifest(self.folder).reranking else OnnxEmbedder
        kind(self.folder, precision=self.precision, threads=self.threads, providers=self.provider, prove=True).close()

    def __str__(self) -> str:
        return f"{self.folder.name}, {self.precision}, {self.threads} threads, {self.provider}"


@click.command(help=(__doc__ or "").split(".", 1)[0] + ".")
@click.option("--model", "models", multiple=True, type=click.Path(path_type=Path), help="An artifact; may be repeated.")
@click.option("--provider", "providers", multiple=True, default=("cpu",), show_default=True, help="May be repeated.")
@click.option("--loads", default=1000, show_default=True, help="How many loads.")
@click.option("--minutes", default=10.0, show_default=True, help="Begin no further load after this time.")
@click.option("--seed", default=0, show_default=True, help="Decides the order.")
def main(*, models: tuple[Path, ...], providers: tuple[str, ...], loads: int, minutes: float, seed: int) -> None:
    with tempfile.TemporaryDirectory() as work:
        folders = [*models, *_small_models(Path(work))]
        ways = [
            Load(folder, precision, threads, provider)
            for folder in folders
            for threads, provider in itertools.product(THREADS, providers)
            for precision in _precisions(folder, provider)
        ]
        random.Random(seed).shuffle(ways)
        done, refused = _open_all(ways, loads, time.monotonic() + 60 * minutes)
    by_precision = ", ".join(f"{count} {precision}" for precision, count in sorted(done.items()))
    print(f"{done.total()} loads of {len(folders)} models ({by_precision}), {len(ways)} ways: {refused} refused")
    sys.exit(1 if refused or not done else 0)


def _precisions(folder: Path, provider: str) -> list[Precision]:
    """What an artifact is computed in: its graphs, and bf16 where the CPU has it."""
    own = read_manifest(folder).on_cpu
    bf16 = "fp32" in own and provider == "cpu" and not why_no_bf16()
    return [name for name in PRECISIONS if name in own or (name == "bf16" and bf16)]


def _open_all(ways: list[Load], loads: int, end: float) -> tuple[Counter[str], int]:
    """How many loads were made in each precision, and how many of them were refused."""
    done: Counter[str] = Counter()
    refused = 0
    for load in itertools.islice(itertools.cycle(ways), loads):
        if time.monotonic() > end:
            break
        try:
            load.run()
        except OnnxEmbedError as error:
            if load.precision == "bf16" and not isinstance(error, ProofError):
                print(f"left out, since it is not computed in bf16: {load}: {error}", flush=True)
                continue
            refused += 1
            print(f"FAIL  {load}: {error}", flush=True)
        done[load.precision] += 1
    return done, refused


def _small_models(work: Path) -> Iterator[Path]:
    """Artifacts of every architecture, with the proof that the reference gave."""
    for number, (name, architecture) in enumerate(ARCHITECTURES.items()):
        checkpoint, folder = work / f"{name} checkpoint", work / name
        pooling = "lasttoken" if architecture.attention == "causal" else "mean"
        write_checkpoint(checkpoint, architecture.config, limit=LIMIT, pooling=pooling, std=0.1)
        commands.export(
            checkpoint,
            folder,
            precision=("fp32", "fp16"),
            form="portable" if number % 2 else "fused",
            max_length=LIMIT,
            attention=architecture.attention or "auto",
        )
        yield folder


if __name__ == "__main__":
    main()
