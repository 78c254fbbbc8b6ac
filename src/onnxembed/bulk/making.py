"""Texts -> the columns of a part: vectors as Arrow arrays over numpy's memory, with token counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from onnxembed.arrays import Array, FloatArray
from onnxembed.bulk.arrow import pa
from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import UsageError
from onnxembed.manifest import TEXT_KINDS, Task, TextKind
from onnxembed.quantization import OutputDtype, Quantizing, needs_ranges, quantization_ranges, quantizing
from onnxembed.runtime.outputs.dense import dense_readout
from onnxembed.runtime.outputs.multi_vector import MultiVectorReadout, treats_alike
from onnxembed.runtime.outputs.readout import Readout
from onnxembed.runtime.outputs.sparse import SparseEmbedding, SparseReadout
from onnxembed.runtime.streaming import Block, windows

TOKEN_COUNT, TRUNCATED = "token_count", "truncated"
"""The columns that say how many tokens a text has after the cut, and whether it was cut."""

VECTOR_COLUMNS: dict[Task, tuple[str, ...]] = {
    "embedding": ("vector",),
    "sparse": ("indices", "values"),
    "multi_vector": ("vectors",),
}
"""The columns with the results, by task."""


@dataclass(frozen=True, eq=False)
class VectorOptions:
    """What is made of each text; None does what the model does."""

    task: Task | None = None
    """Dense vectors, sparse embeddings or the vectors of tokens; None takes the first that the model makes."""
    kind: TextKind | None = None
    """What the texts are, for a multi-vector model that treats queries and documents differently."""
    prompt: str | None = None
    prompt_name: str | None = None
    dimensions: int | None = None
    normalize: bool | None = None
    dtype: OutputDtype = "float32"
    ranges: FloatArray | None = None
    """The ranges of 8-bit vectors; those of the first part if None."""


class VectorMaker:
    """Makes the columns of texts with an open model. Safe to use from many threads.

    Raises UsageError for options that the model does not have.
    """

    def __init__(self, model: OnnxEmbedder, options: VectorOptions) -> None:
        manifest = model.manifest
        made = next(task for task in VECTOR_COLUMNS if task in manifest.tasks)
        self.task: Task = made if options.task is None else options.task
        self._model = model.model
        self._length: int | None = None
        if self.task == "embedding":
            section = manifest.require_embedding()
            readout = dense_readout(model.folder, section).with_options(options.dimensions, options.normalize)
            self.dimensions = readout.dimensions
            self.normalized = section.normalize.value if options.normalize is None else options.normalize
            self._readout: Readout[Any] = readout
        else:
            if options.dimensions is not None or options.normalize is not None or options.dtype != "float32":
                raise UsageError(f"dimensions, normalize and output_dtype are for dense vectors, not for {self.task}")
            self.normalized = False
            if self.task == "sparse":
                self.dimensions = manifest.require_sparse().dimension
                self._readout = SparseReadout(manifest.require_sparse())
            else:
                self._use_multi_vector(options)
        self.prompt = self._model.prompting.choose(options.prompt, options.prompt_name, options.kind)
        """What goes before every text."""
        if options.ranges is not None:
            quantizing(options.dtype, self.dimensions, options.ranges)  # refuses what does not fit
        self._quantizing = Quantizing(options.dtype, self.dimensions)

    def _use_multi_vector(self, options: VectorOptions) -> None:
        """Read the vectors of tokens."""
        section, kind = self._model.manifest.require_multi_vector(), options.kind
        if kind not in TEXT_KINDS and not treats_alike(section):
            raise UsageError("this model does not treat queries and documents alike: say what the texts are (--kind)")
        self.dimensions, self.normalized = section.dimension, section.normalize.value
        self._length = (section.query_length if kind == "query" else section.document_length).value
        self._readout = MultiVectorReadout(section, kind or "document")

    @property
    def needs_ranges(self) -> bool:
        """Whether vectors become numbers of 8 bits, which takes the range of each dimension."""
        return needs_ranges(self._quantizing.dtype)

    def columns(
        self, texts: Sequence[str], ranges: FloatArray | None = None, embedded: Callable[[int], None] | None = None
    ) -> tuple[dict[str, pa.Array], FloatArray | None]:
        """The columns of the texts, by name, and the ranges of 8-bit numbers, None for other types.

        `ranges` are those to use; without them, they are taken from these texts. `embedded` is told of each window
        how many texts it has.
        """
        blocks: list[Block[str, Any]] = []
        cut = partial(windows, texts, self.prompt)
        results = []
        for window, result in self._model.stream(
            cut,
            self._readout,
            prompt=self.prompt,
            max_length=self._length,
            notice=lambda block: blocks.append(_counted(block)),
        ):
            results.append(result)
            if embedded is not None:
                embedded(len(window))
        lengths = np.concatenate([np.empty(0, np.int64), *(block.lengths for block in blocks)])
        truncated = np.concatenate([np.empty(0, bool), *(block.cut for block in blocks)])
        if self.needs_ranges and ranges is None and texts:
            ranges = quantization_ranges(np.concatenate(results))
        return self._columns(results, lengths, truncated, ranges), ranges

    def _columns(
        self, results: list[Any], lengths: Array, truncated: Array, ranges: FloatArray | None = None
    ) -> dict[str, pa.Array]:
        if self.task == "embedding":
            made = {"vector": self._dense(results, ranges)}
        elif self.task == "sparse":
            made = _sparse([embedding for result in results for embedding in result])
        else:
            made = {"vectors": _multi_vector([vectors for result in results for vectors in result], self.dimensions)}
        return made | {TOKEN_COUNT: pa.array(lengths.astype(np.int32)), TRUNCATED: pa.array(truncated)}

    def _dense(self, results: list[FloatArray], ranges: FloatArray | None) -> pa.Array:
        """The vectors [N, D] of all windows, as lists of a fixed size over one array."""
        quantizing = replace(self._quantizing, ranges=ranges)
        vectors = np.empty((sum(map(len, results)), quantizing.width), quantizing.numpy_type)
        filled = 0
        while results:  # each window is freed as soon as it is copied
            window = results.pop(0)
            vectors[filled : filled + len(window)] = quantizing(window)
            filled += len(window)
        return fixed_lists(vectors)


def fixed_lists(vectors: Array) -> pa.Array:
    """Vectors [N, D] as an array of lists of D numbers, over the same memory."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).reshape(-1)), vectors.shape[1])


def vectors_of(column: pa.ChunkedArray | pa.Array) -> Array:
    """The vectors [N, D] of such an array; over its memory, if it is in one piece."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # an empty one
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    numbers: Array = array.flatten().to_numpy(zero_copy_only=False)
    return numbers.reshape(-1, array.type.list_size)


def _counted(block: Block[str, Any]) -> Block[str, Any]:
    """The block without what takes memory."""
    return block._replace(window=[], futures=[])


def _offsets(lengths: Iterator[int]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(np.fromiter(lengths, np.int64))]).astype(np.int32))


def _sparse(embeddings: list[SparseEmbedding]) -> dict[str, pa.Array]:
    """The ids that have a weight, and the weights, as two columns of lists."""
    offsets = _offsets(map(len, embeddings))
    indices = np.concatenate([np.empty(0, np.int32), *(embedding.indices for embedding in embeddings)])
    values = np.concatenate([np.empty(0, np.float32), *(embedding.values for embedding in embeddings)])
    return {
        "indices": pa.ListArray.from_arrays(offsets, pa.array(indices.astype(np.int32))),
        "values": pa.ListArray.from_arrays(offsets, pa.array(values)),
    }


def _multi_vector(matrices: list[FloatArray], dimension: int) -> pa.Array:
    """The vectors [T, D] of each text, as lists of lists of a fixed size."""
    vectors = np.concatenate([np.empty((0, dimension), np.float32), *matrices])
    return pa.ListArray.from_arrays(_offsets(map(len, matrices)), fixed_lists(vectors))
