"""Dense, sparse and multi-vector embeddings of the same texts, from one run of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from onnxembed.arrays import Feeds, FloatArray
from onnxembed.runtime.model import OpenModel
from onnxembed.runtime.outputs.sparse import SparseEmbedding
from onnxembed.runtime.streaming import Job, items
from onnxembed.tokenizer.texts import Tokens

Read = Callable[[FloatArray, Feeds], Iterable[Any]]
"""Makes one kind of embedding of each text from the graph's output for a run, and what was fed for it."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The kinds that were asked for, each in the order of the texts; None for the others.

    `dense` float32 [N, D], `sparse` one for each text, `multi_vector` float32 [T, D] for each text.
    """

    dense: FloatArray | None
    sparse: list[SparseEmbedding] | None
    multi_vector: list[FloatArray] | None


def joint_job(runner: OpenModel, reads: Mapping[str, Read]) -> Job[Sequence[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Of each text, what the `reads` make of the outputs of their names, all computed in one run."""

    def compute(tokens: list[Tokens]) -> Sequence[tuple[Any, ...]]:
        feeds = runner.feeds(tokens)
        outputs = zip(reads.values(), runner.run(list(reads), feeds), strict=True)
        return list(zip(*(read(output, feeds) for read, output in outputs), strict=True))

    return Job(compute, items)


def columns(blocks: Iterable[list[tuple[Any, ...]]], kinds: int) -> list[list[Any]]:
    """Of rows of so many kinds, a list for each kind."""
    rows = list(chain.from_iterable(blocks))
    return [[row[kind] for row in rows] for kind in range(kinds)]
