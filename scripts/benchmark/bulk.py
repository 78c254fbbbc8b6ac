"""What bulk jobs cost and whether they keep their promises: rates, kills, loading and search, with a real model.

Run it in an environment with onnxembed[cpu,bulk] and the databases to measure; see --help. Every part is bounded by the
number of texts, and prints one line of JSON for each figure.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from onnxembed import OnnxEmbedder
from onnxembed.arrays import Array
from onnxembed.bulk.load import load
from onnxembed.bulk.making import VectorOptions, vectors_of
from onnxembed.bulk.rows import Columns
from onnxembed.bulk.run import JobOptions, embed_files


def say(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


def varied(texts: Path, count: int) -> Iterator[str]:
    """So many different texts: the lines of all files in a folder, repeated with a number."""
    lines = [line.split("\t")[0] for file in sorted(texts.rglob("tatoeba*")) for line in file.open(encoding="utf-8")]
    for number in range(count):
        turn, place = divmod(number, len(lines))
        yield lines[place].strip() + (f" {turn}" if turn else "")


class Watch:
    """Notes the peak memory when a tenth of the texts is embedded, and at the end."""

    def __init__(self, total: int) -> None:
        self._total, self._texts = total, 0
        self.peaks: dict[str, float] = {}

    def stage(self, name: str, done: int, total: int) -> None: ...

    def begin(self, share: float, done: Any) -> None: ...

    def advance(self, texts: int, share: float) -> None:
        self._texts += texts
        if self._texts * 10 >= self._total:
            self.peaks.setdefault("first_tenth_mb", peak())
        self.peaks["end_mb"] = peak()


def peak() -> float:
    """The largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def job(model: Path, source: Path, output: Path, watch: Any, id_column: str | None = None) -> None:
    embed_files(
        lambda: OnnxEmbedder(model),
        [str(source)],
        output,
        columns=Columns("text", id_column, ()),
        vectors=VectorOptions(),
        options=JobOptions(),
        watch=watch,
    )


def rate(model: Path, texts: Path, count: int, folder: Path) -> None:
    """Texts per second of `encode` and of a job, one after another, and again in the other order."""
    given = list(varied(texts, count))
    pq.write_table(pa.table({"text": given}), folder / "in.parquet")

    def encode(turn: int) -> None:
        with OnnxEmbedder(model) as embedder:
            for _ in embedder.embed(given):
                pass

    def bulk(turn: int) -> None:
        watch = Watch(count)
        job(model, folder / "in.parquet", folder / f"out{turn}", watch)
        size = sum(path.stat().st_size for path in (folder / f"out{turn}").glob("*.parquet"))
        say(figure="memory and size", **watch.peaks, output_mb=size / 1e6)

    measures: tuple[tuple[str, Callable[[int], None]], ...] = (("bulk", bulk), ("encode", encode))
    for turn, order in enumerate((measures, measures[::-1])):
        for name, run in order:
            started = time.perf_counter()
            run(turn)
            say(figure=name, turn=turn, texts_per_second=count / (time.perf_counter() - started))


def kills(model: Path, texts: Path, count: int, folder: Path, times: int) -> None:
    """A job killed at random moments: equal bytes, and the seconds that each kill costs."""
    (folder / "in.txt").write_text("".join(f"{text}\n" for text in varied(texts, count)), encoding="utf-8")

    def command(output: str) -> list[str]:
        line = [sys.executable, "-m", "onnxembed", "embed", model, folder / "in.txt", "-o", f"{folder / output}/"]
        return [*map(str, line), "--part-rows", "2048"]

    started = time.perf_counter()
    subprocess.run(command("whole"), check=True, capture_output=True)
    alone = time.perf_counter() - started
    moments, total, killed = random.Random(1), 0.0, 0
    for _ in range(times):
        started = time.perf_counter()
        with subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                process.wait(moments.uniform(1, 2 * alone / times + 2))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                killed += 1
        total += time.perf_counter() - started
        if process.returncode == 0:
            break
    started = time.perf_counter()
    subprocess.run(command("killed"), check=True, capture_output=True)
    total += time.perf_counter() - started
    names = sorted(path.name for path in (folder / "whole").glob("*.parquet"))
    equal = all((folder / "whole" / name).read_bytes() == (folder / "killed" / name).read_bytes() for name in names)
    say(figure="kills", kills=killed, equal=equal, seconds_lost_per_kill=(total - alone) / max(1, killed))


def loading(output: Path, stores: list[str]) -> None:
    """Rows per second into each store, and that loading again doubles nothing."""
    for store in stores:
        for turn in ("first", "again"):
            for record in (output / "_job").glob("loaded-*.json"):
                record.unlink()
            started = time.perf_counter()
            loaded = load(output, store, lambda done, total: None)
            seconds = time.perf_counter() - started
            say(
                figure=f"load, {turn}",
                store=loaded.target.scheme,
                rows_per_second=loaded.rows / seconds,
                rows=loaded.rows,
            )
            say(figure="rows in the collection", store=loaded.target.scheme, count=loaded.count)


def search(corpus: Path, queries: Path, qrels: Path, stores: list[str]) -> None:
    """SciFact's nDCG@10 of jobs' vectors: by numpy, and by an exact search in each store, which gets the corpus."""
    table, asked = pq.read_table(corpus), pq.read_table(queries)
    ids, vectors = table["id"].to_pylist(), vectors_of(table["vector"])
    relevant: dict[str, dict[str, int]] = {}
    for line in qrels.read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        relevant.setdefault(query, {})[document] = int(grade)
    questions = {
        id: vector
        for id, vector in zip(asked["id"].to_pylist(), vectors_of(asked["vector"]), strict=True)
        if id in relevant
    }

    def by_numpy(vector: Array) -> list[str]:
        return [ids[place] for place in np.argsort(-(vectors @ vector), kind="stable")[:10]]

    def score(find: Callable[[Array], list[str]]) -> float:
        return float(np.mean([ndcg(find(vector), relevant[id]) for id, vector in questions.items()]))

    say(figure="nDCG@10", store="numpy", value=round(score(by_numpy), 5), queries=len(questions))
    for uri in stores:
        load(corpus, uri, lambda done, total: None)
        find = SEARCHES[uri.partition(":")[0]](uri)
        say(figure="nDCG@10", store=uri.partition(":")[0], value=round(score(find), 5))


def ndcg(found: list[str], relevant: dict[str, int], k: int = 10) -> float:
    """https://en.wikipedia.org/wiki/Discounted_cumulative_gain, with the gain linear in the relevance."""
    gains = [relevant.get(document, 0) for document in found[:k]]
    ideal = sorted(relevant.values(), reverse=True)[:k]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    return float(np.dot(gains, discounts[: len(gains)]) / np.dot(ideal, discounts[: len(ideal)]))


def _place(uri: str) -> tuple[str, str]:
    folder, _, name = uri.partition(":")[2].rpartition("/")
    return folder, name


def search_lancedb(uri: str) -> Callable[[Array], list[str]]:
    import lancedb

    folder, name = _place(uri)
    table: Any = lancedb.connect(folder).open_table(name)
    return lambda vector: [row["id"] for row in table.search(vector).distance_type("cosine").limit(10).to_list()]


def search_qdrant(uri: str) -> Callable[[Array], list[str]]:
    from qdrant_client import QdrantClient

    folder, name = _place(uri)
    client: Any = QdrantClient(path=folder)
    return lambda vector: [point.payload["id"] for point in client.query_points(name, query=vector, limit=10).points]


def search_milvus(uri: str) -> Callable[[Array], list[str]]:
    from pymilvus import MilvusClient

    folder, name = _place(uri)
    client: Any = MilvusClient(folder)
    client.load_collection(name)
    return lambda vector: [hit["id"] for hit in client.search(name, [vector], limit=10)[0]]


def search_chroma(uri: str) -> Callable[[Array], list[str]]:
    import chromadb

    folder, name = _place(uri)
    collection: Any = chromadb.PersistentClient(folder).get_collection(name, embedding_function=None)
    return lambda vector: list(collection.query(query_embeddings=vector[None], n_results=10)["ids"][0])


def search_postgres(uri: str) -> Callable[[Array], list[str]]:
    import psycopg

    base, _, query = uri.partition("?")
    database, _, name = base.removeprefix("postgres").rpartition("/")
    connection: Any = psycopg.connect(f"postgresql{database}?{query}")
    statement = f"SELECT id FROM {name} ORDER BY vector <=> %s::vector LIMIT 10"  # no index: exact

    def find(vector: Array) -> list[str]:
        return [id for (id,) in connection.execute(statement, [str(vector.tolist())]).fetchall()]

    return find


SEARCHES: dict[str, Callable[[str], Callable[[Array], list[str]]]] = {
    "lancedb": search_lancedb,
    "qdrant": search_qdrant,
    "milvus": search_milvus,
    "chroma": search_chroma,
    "postgres": search_postgres,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("rate", "kills"):
        command = commands.add_parser(name)
        command.add_argument("model", type=Path)
        command.add_argument("texts", type=Path, help="a folder with files of Tatoeba")
        command.add_argument("--count", type=int, default=200_000 if name == "rate" else 20_000)
        command.add_argument("--times", type=int, default=20)
    command = commands.add_parser("load")
    command.add_argument("output", type=Path, help="the folder of a finished job")
    command.add_argument("stores", nargs="+", metavar="URI")
    command = commands.add_parser("search")
    command.add_argument("corpus", type=Path, help="the folder of a job over SciFact's corpus, by its ids")
    command.add_argument("queries", type=Path, help="the folder of a job over its queries, by their ids")
    command.add_argument("qrels", type=Path)
    command.add_argument("stores", nargs="*", metavar="URI")
    given = parser.parse_args()
    if given.command == "load":
        loading(given.output, given.stores)
    elif given.command == "search":
        search(given.corpus, given.queries, given.qrels, given.stores)
    else:
        with TemporaryDirectory() as folder:
            if given.command == "rate":
                rate(given.model, given.texts, given.count, Path(folder))
            else:
                kills(given.model, given.texts, given.count, Path(folder), given.times)


if __name__ == "__main__":
    main()
