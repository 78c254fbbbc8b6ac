"""Ray on this machine beside the plain job, and the measured parts of how time grows with nodes."""

from __future__ import annotations

import logging
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmark.bulk.work import Unwatched, Work, run
from onnxembed import OnnxEmbedder
from onnxembed.arrays import FloatArray
from onnxembed.bulk.chunks import Chunk, pending
from onnxembed.bulk.inputs import find_inputs, open_inputs
from onnxembed.bulk.making import TOKEN_COUNT, TRUNCATED, VectorMaker, VectorOptions, fixed_lists
from onnxembed.bulk.ray import compute_on_ray
from onnxembed.bulk.rows import Columns
from onnxembed.bulk.run import Compute, Made, Watch, compute_here

SHARE = 12
"""Each run on Ray, and each plain one beside it, has this part of the large job's texts."""

PARTS = 8
"""An even number: two actors then have equally much to do."""


class Times(Unwatched):
    """Notes when texts are done."""

    def __init__(self) -> None:
        self.done: list[tuple[float, int]] = []
        self.cpu = 0.0
        """The CPU seconds that this process had used when embedding began."""

    def begin(self, share: float, done: Any) -> None:
        self.cpu = time.process_time()
        self.done.append((time.perf_counter(), 0))

    def advance(self, texts: int, share: float) -> None:
        self.done.append((time.perf_counter(), texts))


def ray_beside_plain(work: Work) -> None:
    """Two actors of one thread each beside a plain job of two, in the order plain, Ray, Ray, plain.

    The rate of Ray is that from the first pair of parts on: its actors, which a job starts anew, are counted apart.
    """
    import ray

    count = work.texts // SHARE
    inputs = work.parquet(count)
    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    opening = partial(OnnxEmbedder, work.model)
    on_ray = compute_on_ray("auto", opening, VectorOptions(), threads=1, actors=2)
    computes: dict[str, Compute] = {"plain": compute_here, "ray": on_ray}
    figures: dict[str, Any] = {"texts": count, "plain": [], "ray": []}
    outputs = {name: work.folder / f"ray-{name}" for name in ("plain", "ray")}
    for name in ("plain", "ray", "ray", "plain"):
        shutil.rmtree(outputs[name], ignore_errors=True)
        times, begun = Times(), time.perf_counter()
        run(
            partial(opening, threads=2),
            inputs,
            outputs[name],
            watch=times,
            part_rows=count // PARTS,
            compute=computes[name],
        )
        seconds = time.perf_counter() - begun
        first = 1 if name == "plain" else 2  # a window, or the first part of each actor
        texts = sum(texts for _, texts in times.done[first + 1 :])
        steady = texts / (times.done[-1][0] - times.done[first][0])
        to_first = times.done[1][0] - times.done[0][0]
        figures[name].append({"seconds": seconds, "steady_texts_per_second": steady, "first_result_seconds": to_first})
        work.record.keep("ray", figures, done=False)
    figures["transport"] = _transport(ray, work)
    ray.shutdown()
    plain, on_actors = (
        float(np.mean([turn["steady_texts_per_second"] for turn in figures[name]])) for name in ("plain", "ray")
    )
    figures["share_of_plain"] = on_actors / plain
    figures["share_of_plain_with_start"] = sum(turn["seconds"] for turn in figures["plain"]) / sum(
        turn["seconds"] for turn in figures["ray"]
    )
    files = {path.name for path in outputs["plain"].glob("*.parquet")}
    figures["equal_bytes"] = all(
        (outputs["plain"] / name).read_bytes() == (outputs["ray"] / name).read_bytes() for name in files
    )
    work.record.keep("ray", figures, done=True)


def shared_parts(work: Work) -> None:
    """What the process that leads a job on a cluster does by itself, and what each actor does once.

    CPU seconds are given, too: other programs that run on the machine change them little.
    Texts per second of reading alone, and of a job that reads and writes and embeds nothing; seconds that a process
    takes to import the package and open the model; bytes that are hashed in a second.
    """
    inputs = work.parquet(work.texts)
    begun = time.perf_counter()
    files = find_inputs([str(inputs)], lambda stage, done, total: None)
    hashing = time.perf_counter() - begun
    opened = open_inputs(files, Columns("text", None, ()))
    begun, used = time.perf_counter(), time.process_time()
    for _ in pending(opened, {}, 16384):
        pass
    reading, reading_cpu = time.perf_counter() - begun, time.process_time() - used
    output = work.folder / "unembedded"
    shutil.rmtree(output, ignore_errors=True)
    times = Times()
    run(work.open, inputs, output, compute=compute_nothing, watch=times)
    both, both_cpu = time.perf_counter() - times.done[0][0], time.process_time() - times.cpu
    program = f"from onnxembed import OnnxEmbedder; OnnxEmbedder({str(work.model)!r}, threads=1).encode('a')"
    opening = []
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(5):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True)
        opening.append(time.perf_counter() - begun)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    opening_cpu = (ended.ru_utime + ended.ru_stime - children.ru_utime - children.ru_stime) / len(opening)
    figures = {
        "reading_texts_per_second": work.texts / reading,
        "reading_texts_per_cpu_second": work.texts / reading_cpu,
        "reading_and_writing_texts_per_second": work.texts / both,
        "reading_and_writing_texts_per_cpu_second": work.texts / both_cpu,
        "import_open_and_first_vector_cpu_seconds": opening_cpu,
        "hashing_mb_per_second": files[0].bytes / hashing / 1e6,
        "import_open_and_first_vector_seconds": float(np.median(opening)),
    }
    work.record.keep("shared parts", figures, done=True)


def compute_nothing(
    chunks: Iterator[Chunk], maker: VectorMaker, ranges: FloatArray | None, watch: Watch
) -> Iterator[Made]:
    """Random unit vectors, which compress no better than real ones."""
    largest = np.random.default_rng(0).normal(size=(16384, maker.dimensions)).astype(np.float32)
    largest /= np.linalg.norm(largest, axis=1, keepdims=True)
    for chunk in chunks:
        yield Made(chunk, random_columns(largest, len(chunk.texts)), None)


def random_columns(vectors: FloatArray, count: int) -> dict[str, Any]:
    import pyarrow as pa

    counts = {TOKEN_COUNT: pa.array(np.full(count, 9, np.int32)), TRUNCATED: pa.array(np.zeros(count, bool))}
    return {"vector": fixed_lists(vectors[:count]), **counts}


class Echo:
    """An actor that takes texts and gives vectors back, without a model."""

    def __init__(self, dimension: int) -> None:
        self._vectors = np.random.default_rng(0).normal(size=(16384, dimension)).astype(np.float32)

    def columns(self, texts: list[str]) -> dict[str, Any]:
        return random_columns(self._vectors, len(texts))


def _transport(ray: Any, work: Work) -> dict[str, float]:
    """Texts per second, and per CPU second of this process, that go to actors and come back as vectors.

    Nothing is embedded.
    """
    opened = open_inputs(
        find_inputs([str(work.parquet(work.texts))], lambda stage, done, total: None), Columns("text", None, ())
    )
    chunks = [chunk.texts for chunk in pending(opened, {}, 16384)]
    with work.open() as model:
        dimension = model.dimension
    actors = [ray.remote(num_cpus=1)(Echo).remote(dimension) for _ in range(2)]
    ray.get([actor.columns.remote(["a"]) for actor in actors])
    begun, used = time.perf_counter(), time.process_time()
    under_way: list[Any] = []
    for number, texts in enumerate(chunks):
        under_way.append(actors[number % 2].columns.remote(texts))
        if len(under_way) == 4:
            ray.get(under_way.pop(0))
    ray.get(under_way)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    return {"texts_per_second": work.texts / seconds, "texts_per_cpu_second": work.texts / cpu}
