"""Dense, sparse and multi-vector embeddings of the same texts, from one run of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnxembed.arrays import Feeds, FloatArray
from onnxembed.runtime.outputs.readout import Readout
from onnxembed.runtime.outputs.sparse import SparseEmbedding


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The kinds of embeddings that were asked for, each in the order of the texts; None for the others.

    `dense` is float32 [N, D]; `sparse` has one embedding, and `multi_vector` one float32 [T, D], for each text.
    """

    dense: FloatArray | None
    sparse: list[SparseEmbedding] | None
    multi_vector: list[FloatArray] | None


@dataclass(frozen=True, eq=False)
class TextEmbeddings:
    """The kinds of embeddings of one text that were asked for; None for the others.

    `dense` is float32 [D], and `multi_vector` float32 [T, D].
    """

    dense: FloatArray | None
    sparse: SparseEmbedding | None
    multi_vector: FloatArray | None


class JointReadout:
    """Reads a tuple for each text, with one item of each of several readouts."""

    def __init__(self, readouts: Sequence[Readout[Any]]) -> None:
        self.outputs = [name for readout in readouts for name in readout.outputs]
        self._readouts = readouts

    def prepare(self, feeds: Feeds) -> Feeds:
        """The inputs as all readouts want them, one after another."""
        for readout in self._readouts:
            feeds = readout.prepare(feeds)
        return feeds

    def read(self, outputs: Sequence[FloatArray], feeds: Feeds) -> list[tuple[Any, ...]]:
        """The items of each text, in the order of the readouts."""
        remaining = iter(outputs)
        results = [readout.read([next(remaining) for _ in readout.outputs], feeds) for readout in self._readouts]
        return list(zip(*results, strict=True))
