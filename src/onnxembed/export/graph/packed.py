"""The packed form of a graph: all texts of a run in one row without padding, for CUDA.

Layers see one text of N tokens, [1, N, D]. Attention keeps the texts apart (`attention.Packed`), positions are an
input, and pooling finds each text by where it ends. The inputs are those of onnxembed.execution.packing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from onnx import TensorProto

from onnxembed.execution.packing import ENDS, INPUT_IDS, OFFSETS, POSITIONS, TOKEN_TYPES
from onnxembed.export.graph import pooling
from onnxembed.export.graph.attention import Mask, Packed
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.graph.inputs import B, running_sum
from onnxembed.manifest import PoolingMode

N, S, ENDS_SIZE = "tokens", "longest", "batch_plus_1"


class PackedInputs:
    """Token ids, positions and segment ids int64 [N], and where the texts are; builders see one text of N tokens."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.input_ids = self._row(INPUT_IDS)
        self._ends = graph.input(ENDS, TensorProto.INT32, (ENDS_SIZE,))
        self._offsets = graph.input(OFFSETS, TensorProto.INT32, (B, S))

    def _row(self, name: str) -> Value:
        """An input int64 [N] as [1, N]."""
        return self._graph.op("Unsqueeze", self._graph.input(name, TensorProto.INT64, (N,)), self._graph.integers(0))

    @cached_property
    def token_type_ids(self) -> Value:
        """Segment ids [1, N]."""
        return self._row(TOKEN_TYPES)

    @cached_property
    def positions(self) -> Value:
        """The position of each token in its text, int64 [N]."""
        return self._graph.input(POSITIONS, TensorProto.INT64, (N,))

    def position_rows(self, table: str) -> Value:
        """The rows of a table of the checkpoint for the positions of the tokens: [N, D]."""
        return self._graph.op("Gather", self._graph.weight(table), self.positions)

    def running_count(self, marks: Value) -> Value:
        """How many tokens of its text are marked up to each token, itself included: int64 [1, N]."""
        g = self._graph
        count = running_sum(g, marks)
        tokens, longest = g.op("Shape", marks, start=1, end=2), g.op("Shape", self._offsets, start=1, end=2)
        # The offsets give each token's place in its text, even where positions do not count from the first token.
        offsets = g.op("Slice", g.op("Reshape", self._offsets, g.integers(-1)), g.integers(0), tokens)
        places = g.op("Mod", g.op("Cast", offsets, to=TensorProto.INT64), longest)
        indices = g.op("Range", g.integer(0), g.op("Squeeze", tokens), g.integer(1))
        firsts = g.op("Sub", indices, places)  # of the text of each token
        marked = g.op("Sub", count, g.op("Gather", g.op("Sub", count, marks), firsts, axis=1))
        return g.hint_shape(marked, TensorProto.INT64, (1, N))

    @cached_property
    def mask(self) -> Mask:
        """Nothing is masked, and texts are kept apart."""
        return Mask(self._offsets, "", packed=Packed(self._offsets, self._ends))

    def pool(self, tokens: Value, modes: Sequence[PoolingMode]) -> Value:
        """One vector for each text, of its tokens float32 [1, N, D] -> [B, len(modes) * D]."""
        g = self._graph
        rows = g.op("Squeeze", tokens, g.integers(0))  # [N, D]
        ends = g.op("Cast", self._ends, to=TensorProto.INT64)
        starts = g.op("Slice", ends, g.integers(0), g.integers(-1))
        ends = g.op("Slice", ends, g.integers(1), g.integers(2**31 - 1))
        picked = {"cls": lambda: starts, "lasttoken": lambda: g.op("Sub", ends, g.integer(1))}
        if all(mode in picked for mode in modes):
            vectors = [g.op("Gather", rows, picked[mode]()) for mode in modes]
            return vectors[0] if len(vectors) == 1 else g.op("Concat", *vectors, axis=-1)
        return pooling.pool(g, *self._unpacked(rows, starts, ends), modes)

    def _unpacked(self, rows: Value, starts: Value, ends: Value) -> tuple[Value, Value]:
        """The tokens [N, D] padded on the right, [B, S, D], and their mask int64 [B, S]."""
        g = self._graph
        longest = g.op("Squeeze", g.op("Shape", self._offsets, start=1, end=2))
        slots = g.op("Unsqueeze", g.op("Range", g.integer(0), longest, g.integer(1)), g.integers(0))  # [1, S]
        starts, ends = (g.op("Unsqueeze", x, g.integers(1)) for x in (starts, ends))  # [B, 1]
        places = g.op("Add", starts, slots)
        last = g.op("Sub", g.op("Shape", rows, start=0, end=1), g.integer(1))
        mask = g.op("Cast", g.op("Less", places, ends), to=TensorProto.INT64)
        return g.op("Gather", rows, g.op("Min", places, last)), mask
