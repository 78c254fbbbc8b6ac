"""How much quality each precision of an artifact costs.

STS-B (Spearman) and SciFact (nDCG@10) of every graph; the least and mean cosine of its vectors to those of the
first one on held-back paragraphs; and the least cosine of a text's vector alone to its vector among all others.
`--dtypes` measures SciFact for each type that the vectors can be kept in, instead.
Where this machine's CPU computes in bf16, the fp32 graph in bf16 is one line more. scripts/quality starts it with
`--data`, a folder with stsb/ and scifact/; without it the texts are made up and there are no scores.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmark.corpora import held_back
from benchmark.report import table
from benchmark.tasks import collection, retrieval, retrieval_by_dtype, sts
from onnxembed import OnnxEmbedder, OnnxEmbedError
from onnxembed.arrays import FloatArray
from onnxembed.execution.opening import why_no_bf16
from onnxembed.manifest import read_manifest
from onnxembed.runtime.outputs.pooling import normalize

COLUMNS = ["precision", "MB", "STS-B", "SciFact", "min cosine", "mean cosine", "alone and among others"]

DTYPE_COLUMNS = ["type", "bytes a document", "SciFact"]


@click.command(help=__doc__)
@click.argument("artifacts", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of the data sets.")
@click.option(
    "--texts", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Held-back texts, one per line."
)
@click.option("--count", type=int, default=1000, show_default=True, help="How many held-back texts to use.")
@click.option(
    "--scifact/--no-scifact",
    default=True,
    show_default=True,
    help="SciFact takes minutes per graph.",
)
@click.option("--dtypes", is_flag=True, help="SciFact for each type of the vectors, of the first graph.")
@click.option("--json", "raw", type=click.Path(path_type=Path, dir_okay=False), help="Write the raw numbers here.")
def main(
    *,
    artifacts: tuple[Path, ...],
    data: Path | None,
    texts: Path | None,
    count: int,
    scifact: bool,
    dtypes: bool,
    raw: Path | None,
) -> None:
    if dtypes:
        if data is None:
            raise click.UsageError("--dtypes needs --data")
        for artifact in artifacts:
            print(f"## {artifact}\n\n{table(DTYPE_COLUMNS, dtype_rows(artifact, data / 'scifact'))}\n")
        return
    held = texts.read_text(encoding="utf-8").splitlines()[:count] if texts else held_back(data, count).texts
    results = {str(artifact): measure(artifact, held, data, scifact=scifact) for artifact in artifacts}
    for name, rows in results.items():
        print(f"## {name}, {len(held)} held-back texts\n\n{table(COLUMNS, [row(*item) for item in rows.items()])}\n")
    if raw:
        raw.write_text(json.dumps(results, indent=1), encoding="utf-8")


def measure(artifact: Path, held: list[str], data: Path | None, *, scifact: bool) -> dict[str, dict[str, float]]:
    """The figures of every variant, by precision; the first variant is the reference."""
    reference: FloatArray | None = None
    rows: dict[str, dict[str, float]] = {}
    variants = dict(read_manifest(artifact).variants)
    variants.pop("bf16", None)  # a graph for GPUs
    if why_not := why_no_bf16():
        print(f"bf16 is not measured: {why_not}", file=sys.stderr)
    elif "fp32" in variants:
        variants["bf16"] = variants["fp32"]
    for precision, variant in variants.items():
        chosen: Any = precision
        with OnnxEmbedder(artifact, precision=chosen, providers="cpu") as model:
            among = normalize(model.encode(held))
            some = range(0, len(held), max(1, len(held) // 200))
            alone = normalize(np.stack([model.encode(held[index]) for index in some]))
            reference = among if reference is None else reference
            cosines = (among * reference).sum(axis=1)
            rows[precision] = {
                "bytes": sum((artifact / name).stat().st_size for name in (variant.file, variant.data) if name),
                "min_cosine": float(cosines.min()),
                "mean_cosine": float(cosines.mean()),
                "alone": float((alone * among[list(some)]).sum(axis=1).min()),
            }
            if data:
                rows[precision]["stsb"] = sts(model, data / "stsb/stsb-en-test.csv")
                if scifact:
                    rows[precision]["scifact"] = retrieval(model, data / "scifact")
    return rows


def dtype_rows(artifact: Path, scifact: Path) -> list[list[str]]:
    """A line for each type of the vectors, and way of searching."""
    with OnnxEmbedder(artifact) as model:
        results = retrieval_by_dtype(collection(model, scifact))
    return [[name, str(size), f"{score:.4f}"] for name, (size, score) in results.items()]


def row(precision: str, figures: dict[str, float]) -> list[str]:
    """One line of the table."""
    scores = [f"{figures[task]:.4f}" if task in figures else "" for task in ("stsb", "scifact")]
    cosines = [f"{figures[name]:.6f}" for name in ("min_cosine", "mean_cosine")]
    return [precision, f"{figures['bytes'] / 1e6:.0f}", *scores, *cosines, f"{figures['alone']:.7f}"]


if __name__ == "__main__":
    try:
        main()
    except (OnnxEmbedError, ValueError) as problem:
        sys.exit(f"error: {problem}")
