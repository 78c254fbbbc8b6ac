"""onnxembed, FastEmbed and sentence-transformers on the same texts, weights, threads and machine, in one run.

Each system runs in a process of its own environment. Rounds alternate between the systems, so that other load on
the machine affects all alike, and their vectors are compared, so that none is fast because it is wrong.
scripts/bench makes the environments; without it, name them with --python: a system without one is "not installed".
With --device cuda the models have random weights in common shapes, in fp16.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from benchmark import memory
from benchmark.client import SCRIPTS, WorkerError
from benchmark.corpora import corpora, reranking
from benchmark.entries import Device, lines
from benchmark.measure import Plan, Result, measure
from benchmark.models import SHAPES, Model, make
from benchmark.report import report
from onnxembed import OnnxEmbedError
from onnxembed.execution.cores import available_threads

MODELS = SCRIPTS.parent / "models"
MINILM = MODELS / "all-MiniLM-L6-v2-onnx", MODELS / "all-MiniLM-L6-v2"
DEFAULT_SCALE: dict[Device, float] = {"cpu": 1.0, "cuda": 2.0}
REQUIREMENTS = {
    "onnxembed": "onnxembed[cpu]",
    "fastembed": "fastembed",
    "sentence-transformers": "sentence-transformers",
}
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(help=__doc__)
@click.option(
    "--model", "models", multiple=True, nargs=2, type=FOLDER, help="An artifact and its checkpoint; may be repeated."
)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    type=click.Choice(tuple(SHAPES)),
    help="A shape for random weights.",
)
@click.option("--layers", type=int, help="How many layers to give shapes.")
@click.option("--precision", help="Precisions to export shapes in [default: fp32; fp16 on cuda].")
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="Folder with the tokenizer for shapes [default: all-MiniLM-L6-v2 if it is here, else made-up words].",
)
@click.option("--data", type=FOLDER, help="Folder with scifact/ and stsb/; without it the texts are made up.")
@click.option("--device", type=click.Choice(("cpu", "cuda")), default="cpu", show_default=True)
@click.option("--threads", type=int, help="Threads of each system [default: all that this process may use].")
@click.option("--rounds", type=int, default=5, show_default=True)
@click.option("--scale", type=float, help="Factor for the size of the corpora [default: 1; 2 on cuda].")
@click.option("--corpus", "chosen", multiple=True, help="Measure only this corpus; may be repeated.")
@click.option(
    "--clock",
    type=click.Choice(("wall", "cpu")),
    default="wall",
    show_default=True,
    help="Time that counts; cpu is for busy cores, with --threads 1.",
)
@click.option(
    "--python", "pythons", multiple=True, nargs=2, metavar="SYSTEM PATH", help="The Python of a system's environment."
)
@click.option(
    "--memory",
    "short",
    type=int,
    metavar="N",
    help="Measure only memory, over a stream of N short texts and N/500 long ones.",
)
@click.option("--long-text", type=int, metavar="TOKENS", help="Measure only one text of this length.")
@click.option("--quick", is_flag=True, help="A smoke test: few texts, two rounds.")
@click.option("--minutes", type=float, help="Start no further model after this time.")
@click.option("--json", "raw", type=FILE, help="Write the raw numbers here.")
@click.option("--plot", type=FILE, help="Write a picture (PNG) here; needs matplotlib.")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=MODELS / "bench",
    show_default="models/bench",
    help="Where shapes and traced graphs are kept.",
)
def main(
    *,
    models: tuple[tuple[Path, Path], ...],
    shapes: tuple[str, ...],
    layers: int | None,
    precision: str | None,
    tokenizer: Path | None,
    data: Path | None,
    device: Device,
    threads: int | None,
    rounds: int,
    scale: float | None,
    chosen: tuple[str, ...],
    clock: str,
    pythons: tuple[tuple[str, str], ...],
    short: int | None,
    long_text: int | None,
    quick: bool,
    minutes: float | None,
    raw: Path | None,
    plot: Path | None,
    work: Path,
) -> None:
    interpreters = {"onnxembed": Path(sys.executable)} | {name: Path(path).absolute() for name, path in pythons}
    threads = threads or available_threads()
    work.mkdir(parents=True, exist_ok=True)
    if not models and not shapes:
        models, shapes = ((MINILM,), ()) if device == "cpu" else ((), tuple(SHAPES))
    precision = precision or ("fp32" if device == "cpu" else "fp16")
    if tokenizer is None and MINILM[1].is_dir():
        tokenizer = MINILM[1]
    # Each model is made when its turn comes: large ones take long, and by then the earlier results are printed.
    waiting: list[tuple[str, Callable[[], Model]]] = [
        *((artifact.name, partial(Model, artifact.name, artifact, checkpoint)) for artifact, checkpoint in models),
        *(
            (shape, partial(make, shape, precision, tokenizer, work, layers, packed=device == "cuda"))
            for shape in shapes
        ),
    ]
    end = time.monotonic() + minutes * 60 if minutes else math.inf
    if short or long_text:
        first = waiting[0][1]()
        values = _memory(first, interpreters["onnxembed"], threads, short=short, long_text=long_text, plot=plot)
        if raw:
            raw.write_text(json.dumps(values, indent=1), encoding="utf-8")
    else:
        plan = Plan(
            threads,
            device,
            rounds=2 if quick else rounds,
            singles=5 if quick else 40,
            clock="seconds" if clock == "wall" else "cpu_seconds",
            warm_seconds=0.1 if quick else 5.0,
        )
        footprints = (
            {}
            if quick or device == "cuda"
            else {name: _footprint(name, python) for name, python in interpreters.items() if name in REQUIREMENTS}
        )
        results: list[Result] = []
        for name, get in waiting:
            if results and time.monotonic() > end:
                print(f"## {name}\n\nnot measured: {minutes:g} minutes were over\n", flush=True)
                continue
            model = get()
            size = (scale or DEFAULT_SCALE[device]) / (32 if quick else 1)
            if model.manifest.reranking:
                texts = reranking(data, scale=size)
            else:
                texts = corpora(data, scale=size, books=device == "cuda" and not quick)
            texts = {name: corpus for name, corpus in texts.items() if not chosen or name in chosen}
            results.append(_one(model, texts, plan, interpreters, work))
            print(report(results[-1], footprints), flush=True)
            values = {"footprints": footprints, "results": [result.to_json() for result in results]}
            if raw:  # after each model, in case the run is stopped
                raw.write_text(json.dumps(values, indent=1), encoding="utf-8")
        if plot:
            from benchmark.plot import plot_throughput

            plot_throughput(results, plot)


def _one(model: Model, texts: Any, plan: Plan, pythons: dict[str, Path], work: Path) -> Result:
    with TemporaryDirectory() as scratch:
        return measure(model, lines(model, pythons, plan.threads, plan.device, work), texts, plan, Path(scratch))


def _memory(
    model: Model, python: Path, threads: int, *, short: int | None, long_text: int | None, plot: Path | None
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    with TemporaryDirectory() as scratch:
        if short:
            counts = {"short": short, "long": max(1, short // 500)}
            values["streams"] = memory.streams(model, python, threads, counts, Path(scratch))
            print(memory.stream_table(values["streams"]), flush=True)
            if plot:
                from benchmark.plot import plot_memory

                plot_memory(values["streams"], plot)
        if long_text:
            values["long_text"] = memory.long_text(model, python, threads, long_text, Path(scratch))
            print(memory.long_text_table(model.name, long_text, values["long_text"]), flush=True)
    return values


def _footprint(system: str, python: Path) -> dict[str, Any]:
    """Installed size and import time, measured in the system's own environment."""
    script = SCRIPTS / "benchmark/footprint.py"
    module = system.replace("-", "_")
    done = subprocess.run([python, script, REQUIREMENTS[system], module], capture_output=True, text=True, check=True)
    values: dict[str, Any] = json.loads(done.stdout)
    return values


if __name__ == "__main__":
    try:
        main()
    except (OnnxEmbedError, WorkerError, OSError, ValueError, RuntimeError) as problem:
        sys.exit(f"error: {problem}")
