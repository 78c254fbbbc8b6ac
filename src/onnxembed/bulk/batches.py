"""Batches of rows -> the same rows with their vectors: one callable for Ray, Spark, Dask and datasets."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from threading import Lock
from typing import Any, Unpack

from onnxembed.bulk.arrow import pa
from onnxembed.bulk.making import VectorMaker, VectorOptions, vectors_of
from onnxembed.bulk.model_options import ModelOptions
from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import UsageError
from onnxembed.quantization import needs_ranges
from onnxembed.runtime.given import given_texts

_MAKERS: dict[bytes, VectorMaker] = {}
_OPENING = Lock()


class EmbedBatch:
    """Adds vectors to batches of rows. It pickles as its arguments; each process opens the model once.

    A batch is a dictionary of columns (Ray Data, datasets), a pandas data frame (Dask), an Arrow table, or an iterator
    of any of these (Spark's mapInPandas); the result is of the same kind, with the columns `vector` (or `indices` and
    `values`, or `vectors`), `token_count` and `truncated`. Texts of equal length run together, so batches should hold
    1024 rows or more.

    Args:
        model: a folder, or the hub id of a repository, as for OnnxEmbedder. A folder must be at the same path
            wherever batches are embedded.
        column: the column with the texts.
        vectors: what is made of each text; by default the model's dense vectors, float32.
        options: the arguments of OnnxEmbedder, such as `threads` and `precision`.

    Raises UsageError for 8-bit vectors without ranges, which would be other ones in each batch.
    """

    def __init__(
        self,
        model: str,
        column: str = "text",
        *,
        vectors: VectorOptions | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        self.model, self.column, self.options = str(model), column, options
        self.vectors = vectors or VectorOptions()
        if needs_ranges(self.vectors.dtype) and self.vectors.ranges is None:
            raise UsageError(f"{self.vectors.dtype} vectors of batches need ranges, which are the same for all of them")

    def __call__(self, batch: Any) -> Any:
        """The batch with its vectors. Raises UsageError for a batch without the column, or with other than texts."""
        if isinstance(batch, Iterator):
            return map(self, batch)
        if isinstance(batch, pa.Table | pa.RecordBatch):
            made = self._columns(batch)
            table = pa.table(batch) if isinstance(batch, pa.RecordBatch) else batch
            for name, array in made.items():
                table = table.append_column(name, array)
            return table
        if hasattr(batch, "assign"):  # a data frame
            return batch.assign(**{name: _objects(array) for name, array in self._columns(batch).items()})
        return {**batch, **{name: _numpy(array) for name, array in self._columns(batch).items()}}

    def _columns(self, batch: Any) -> dict[str, pa.Array]:
        names = batch.schema.names if isinstance(batch, pa.Table | pa.RecordBatch) else list(batch)
        if self.column not in names:
            raise UsageError(f"the batch has no column {self.column!r}; it has: {', '.join(map(str, names))}")
        texts = list(given_texts(batch[self.column], self.column).items)
        columns, _ = self._maker().columns(texts, self.vectors.ranges)
        return columns

    def _maker(self) -> VectorMaker:
        """What makes vectors in this process."""
        key = pickle.dumps((self.model, sorted(self.options.items()), self.vectors))
        with _OPENING:
            if key not in _MAKERS:
                _MAKERS[key] = VectorMaker(OnnxEmbedder(self.model, **self.options), self.vectors)
            return _MAKERS[key]


def _numpy(array: pa.Array) -> Any:
    """A column as numpy has it: vectors as one array [N, D], lists as an array of arrays."""
    if pa.types.is_fixed_size_list(array.type):
        return vectors_of(array)
    return array.to_numpy(zero_copy_only=False)


def _objects(array: pa.Array) -> Any:
    """A column as pandas has it: vectors as a list of arrays over one memory."""
    values = _numpy(array)
    return list(values) if values.ndim > 1 else values
