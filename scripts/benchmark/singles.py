"""One short query at a time: onnxembed, with and without `spin`, and FastEmbed, beside the time to read the weights.

    PYTHONPATH=scripts python -m benchmark.singles DIR CHECKPOINT --python fastembed PATH

Much of the time goes into reading the weights, and how fast that is depends on where in memory they lie. So each system
runs in several processes, started and asked in turn. The time to read is that of an array as large as the weights of
the graph's products.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import click
import numpy as np

from benchmark.bench import FOLDER, MODELS
from benchmark.client import Client
from benchmark.entries import lines
from benchmark.flops import count
from benchmark.models import Model
from benchmark.report import table
from benchmark.rounds import alternate, percentile
from onnxembed.execution.cores import available_threads

QUERIES = (
    "how do I reset my password",
    "capital of france",
    "best hiking trails near the lake",
    "python list comprehension example",
    "symptoms of vitamin d deficiency in adults",
    "what is a mortgage",
)
PROCESSES = 3
AT_ONCE = 60
"""Queries that one process answers before it is another's turn; four before them are not counted."""


@click.command(help=__doc__)
@click.argument("artifact", type=FOLDER)
@click.argument("checkpoint", type=FOLDER)
@click.option("--python", "pythons", multiple=True, nargs=2, metavar="SYSTEM PATH", help="As for scripts/bench.")
@click.option("--threads", type=int, default=available_threads(), show_default="all")
@click.option("--rounds", type=int, default=8, show_default=True)
def main(*, artifact: Path, checkpoint: Path, pythons: tuple[tuple[str, str], ...], threads: int, rounds: int) -> None:
    model = Model(artifact.name, artifact, checkpoint)
    interpreters = {"onnxembed": Path(sys.executable)} | {name: Path(path).absolute() for name, path in pythons}
    found = lines(model, interpreters, threads, "cpu", MODELS / "bench")
    entries = []
    for entry in found.entries:
        if entry.system == "onnxembed":
            spinning = replace(entry, label=f"{entry.label}, spin", settings={**entry.settings, "spin": True})
            entries += [entry, spinning]
        elif entry.system == "fastembed" and entry.batches:
            entries.append(entry)
    with ExitStack() as stack:
        work = Path(stack.enter_context(TemporaryDirectory()))
        corpora = work / "corpora.json"
        corpora.write_text(json.dumps({"queries": {"texts": QUERIES, "query": None}}), encoding="utf-8")
        clients: dict[tuple[str, int], Client] = {}
        for process in range(PROCESSES):
            for number, entry in enumerate(entries):
                log = work / f"worker-{process}-{number}.log"
                client = stack.enter_context(Client(entry.python, threads, log))
                client.ask("load", system=entry.system, settings=dict(entry.settings), corpora=str(corpora))
                client.ask("single", corpus="queries", first=0, count=AT_ONCE)
                clients[entry.label, process] = client
        seconds: dict[str, list[list[float]]] = {entry.label: [[] for _ in range(PROCESSES)] for entry in entries}
        for label, process in alternate(list(clients), rounds):
            client = clients[label, process]
            client.ask("single", corpus="queries", first=0, count=4)
            answer = client.ask("single", corpus="queries", first=0, count=AT_ONCE)
            seconds[label][process] += answer["seconds"]
    rows = [
        [label, *(f"{value * 1e3:.2f}" for value in figures(times)), " ".join(f"{median(t) * 1e3:.2f}" for t in times)]
        for label, times in seconds.items()
    ]
    size = count(artifact / model.manifest.variants["fp32"].file).token * 2  # a weight of 4 bytes makes 2 operations
    rows.append([f"reading {size / 1e6:.1f} MB", f"{reading(size, threads) * 1e3:.2f}", "", ""])
    print(f"{threads} threads, milliseconds\n\n{table(['system', 'p50', 'p90', 'p50 of each process'], rows)}")
    print("".join(f"\n- {label}: {reason}" for label, reason in found.absent.items() if "FastEmbed" in label))


def figures(processes: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The medians over the processes of p50 and p90."""
    return median(map(median, processes)), median(percentile(times, 0.9) for times in processes)


def reading(size: int, threads: int) -> float:
    """Seconds in which this many threads read an array of this many bytes together: a median."""
    parts = np.array_split(np.ones(size // 4, np.float32), threads)
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(60):
            start = time.perf_counter()
            list(pool.map(np.max, parts))
            seconds.append(time.perf_counter() - start)
    return median(seconds)


if __name__ == "__main__":
    main()
