"""STS-B (Spearman) and SciFact (nDCG@10) of one or more artifacts, from files given by path.

STS-B is a .csv without header: sentence1, sentence2, score. SciFact is a folder in BEIR layout:
corpus.jsonl, queries.jsonl, qrels/test.tsv. Queries and documents get the model's own prompts.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from benchmark.tasks import retrieval, sts
from onnxembed import OnnxEmbedder, OnnxEmbedError


@click.command(help=__doc__)
@click.argument("artifacts", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--precision", default="auto", show_default=True, help="Graphs to run, comma-separated.")
@click.option("--stsb", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="STS-B .csv file.")
@click.option("--scifact", type=click.Path(path_type=Path, exists=True, file_okay=False), help="SciFact folder.")
def main(artifacts: tuple[Path, ...], precision: str, stsb: Path | None, scifact: Path | None) -> None:
    if not stsb and not scifact:
        raise click.UsageError("give --stsb, --scifact or both")
    print(f"{'artifact':<32} {'precision':<10} {'task':<18} {'score':>8} {'seconds':>8}")
    for artifact in artifacts:
        for name in precision.split(","):
            with OnnxEmbedder(artifact, precision=name) as model:  # type: ignore[arg-type]
                for task, measure, path in (("STS-B spearman", sts, stsb), ("SciFact nDCG@10", retrieval, scifact)):
                    if path:
                        start = time.perf_counter()
                        score = measure(model, path)
                        seconds = time.perf_counter() - start
                        print(f"{artifact.name:<32} {name:<10} {task:<18} {score:8.4f} {seconds:8.1f}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except OnnxEmbedError as error:
        sys.exit(f"error: {error}")
