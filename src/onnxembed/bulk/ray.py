"""Ray: `EmbedBatch` for `map_batches` of Ray Data, and jobs whose chunks are embedded by actors of a cluster.

In a job, this process reads the inputs and writes the parts, so that nodes need no shared disk; actors, each of which
opens the model once, embed the chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from onnxembed.arrays import FloatArray
from onnxembed.bulk.batches import EmbedBatch
from onnxembed.bulk.chunks import Chunk
from onnxembed.bulk.making import VectorMaker, VectorOptions
from onnxembed.bulk.run import Compute, Made, Watch
from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import MissingExtraError, UsageError

__all__ = ["EmbedBatch", "compute_on_ray"]

RETRIES = 3
"""How often a chunk is tried again when its actor or its node is lost."""

LOCAL = "local"
"""The address that starts Ray on this machine."""


def compute_on_ray(
    address: str,
    open_model: Callable[..., OnnxEmbedder],
    vectors: VectorOptions,
    *,
    threads: int | None = None,
    actors: int | None = None,
) -> Compute:
    """What embeds chunks on a Ray cluster, in order.

    Args:
        address: of the cluster, "auto" for the one that this machine belongs to, or "local" to start Ray here.
        open_model: opens the model in each actor; it is pickled, and takes `threads`.
        vectors: what is made of each text.
        threads: the CPUs and threads of each actor; all of the smallest node if None.
        actors: how many actors there are; as many as the cluster has CPUs for if None.

    Raises MissingExtraError without the package ray, and UsageError for a cluster that cannot be reached or has no
    room for an actor.
    """
    try:
        import ray
        from ray.util import ActorPool
    except ImportError as error:
        raise MissingExtraError(f"--ray needs ray ({error}): pip install 'ray[data]'") from error

    def compute(chunks: Iterator[Chunk], maker: VectorMaker, ranges: FloatArray | None, watch: Watch) -> Iterator[Made]:
        own = not ray.is_initialized()  # a caller that is connected already stays connected
        if own:
            _connect(ray, address)
        try:
            each, count = _room(ray, threads, actors)
            actor: Any = ray.remote(num_cpus=each, max_restarts=RETRIES, max_task_retries=RETRIES)(_Actor)
            pool = ActorPool([actor.remote(open_model, vectors, each) for _ in range(count)])
            yield from _in_order(pool, chunks, maker, ranges, most=2 * count, watch=watch)
        except ray.exceptions.RayError as error:
            raise UsageError(f"Ray could not embed a chunk ({_cause(error)}); run the same command again") from error
        finally:
            if own:
                ray.shutdown()

    return compute


class _Actor:
    """Embeds the texts of chunks."""

    def __init__(self, open_model: Callable[..., OnnxEmbedder], vectors: VectorOptions, threads: int) -> None:
        self._maker = VectorMaker(open_model(threads=threads), vectors)

    def columns(self, texts: list[str], ranges: FloatArray | None) -> Any:
        return self._maker.columns(texts, ranges)


def _in_order(
    pool: Any, chunks: Iterator[Chunk], maker: VectorMaker, ranges: FloatArray | None, *, most: int, watch: Watch
) -> Iterator[Made]:
    """Each chunk with its columns; at most `most` are under way."""
    pending: deque[Chunk] = deque()

    def made() -> Made:
        nonlocal ranges
        chunk = pending.popleft()
        columns, ranges = pool.get_next()
        watch.advance(len(chunk.texts), chunk.share)
        return Made(chunk, columns, ranges)

    for chunk in chunks:
        pool.submit(lambda actor, values: actor.columns.remote(*values), (chunk.texts, ranges))
        pending.append(chunk)
        # The first texts decide the ranges of 8-bit vectors, which all others need.
        while pending and (len(pending) >= most or (maker.needs_ranges and ranges is None)):
            yield made()
    while pending:
        yield made()


def _connect(ray: Any, address: str) -> None:
    try:
        if address == LOCAL:
            ray.init(include_dashboard=False, logging_level="error", log_to_driver=False)
        else:
            ray.init(address=address, logging_level="error", log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(f"there is no Ray cluster at {address} ({_cause(error)})") from error


def _room(ray: Any, threads: int | None, actors: int | None) -> tuple[int, int]:
    """The CPUs of each actor, and how many actors there are room for."""
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    nodes = [cpus for cpus in nodes if cpus]
    each = threads or (min(nodes) if nodes else 1)
    room = sum(cpus // each for cpus in nodes)
    if room < (actors or 1):
        raise UsageError(f"the Ray cluster has room for {room} actors of {each} CPUs, not {actors or 1}: see --threads")
    return each, actors or room


def _cause(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else type(error).__name__
