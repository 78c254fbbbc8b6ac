"""Dense embeddings: one vector for each text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onnxembed.arguments import whole_number
from onnxembed.arrays import Array, Feeds, FloatArray
from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.manifest import Dense, Embedding
from onnxembed.quantization import Quantizing
from onnxembed.runtime.outputs import pooling
from onnxembed.runtime.outputs.readout import PROMPT_MASK, wrong_width

Layer = tuple[FloatArray, FloatArray | None, str]
"""Weight (out, in), bias (out,) or None, and activation of a Dense layer."""


@dataclass(frozen=True)
class DenseReadout:
    """Reads vectors [B, D]: pools token embeddings if the graph does not, then truncates and normalizes."""

    section: Embedding
    outputs: tuple[str, ...]
    layers: tuple[Layer, ...]
    """The Dense layers that the graph leaves to the runtime."""
    dimensions: int
    """Vectors are truncated to this many numbers."""
    normalize: bool
    """Whether vectors are scaled to length 1 at the end."""

    def with_options(self, dimensions: int | None, normalize: bool | None) -> DenseReadout:
        """The same readout, truncating to `dimensions` and normalizing or not; None does what the model does.

        Raises UsageError for a value that is not possible, and for `normalize=False` when the graph normalizes.
        """
        section = self.section
        size = section.dimension if dimensions is None else whole_number("dimensions", dimensions, section.dimension)
        if not isinstance(normalize, bool | np.bool_ | None):
            raise UsageError(f"normalize is {normalize!r}, not True, False or None")
        wanted = section.normalize.value if normalize is None else bool(normalize)
        normalized = section.normalize.value and section.pooled_by == "graph"
        if normalized and not wanted:
            raise UsageError(
                "this artifact normalizes in its graph, so normalize=False is not possible; "
                "export it with --no-normalize or --pooling-out"
            )
        again = size < section.dimension or not normalized or section.normalize_again
        return replace(self, dimensions=size, normalize=wanted and again)

    def none(self) -> FloatArray:
        """The vectors of no texts, [0, dimensions]."""
        return np.empty((0, self.dimensions), np.float32)

    def prepare(self, feeds: Feeds) -> Feeds:
        """The feeds, unchanged."""
        return feeds

    def read(self, outputs: Sequence[FloatArray], feeds: Feeds) -> FloatArray:
        """Vectors [B, D], from the graph's sentence embeddings [B, D] or token embeddings [B, T, D]."""
        (vectors,) = outputs
        if self.section.pooled_by == "runtime":
            modes = self.section.pooling.value
            vectors = pooling.pool(vectors, feeds["attention_mask"], modes, feeds.get(PROMPT_MASK))
            for weight, bias, activation in self.layers:
                vectors = pooling.dense(vectors, weight, bias, activation)
        if vectors.shape[-1] != self.section.dimension:
            raise wrong_width(vectors, self.section.dimension, "embedding.dimension")
        if self.dimensions < self.section.dimension:
            vectors = vectors[:, : self.dimensions]
        return pooling.normalize(vectors) if self.normalize else vectors


@dataclass(frozen=True)
class QuantizedReadout:
    """Reads the vectors of another readout, as another type."""

    dense: DenseReadout
    quantizing: Quantizing

    @property
    def outputs(self) -> Sequence[str]:
        """The names of the graph's outputs to fetch."""
        return self.dense.outputs

    def none(self) -> Array:
        """The vectors of no texts, [0, width]."""
        return np.empty((0, self.quantizing.width), self.quantizing.numpy_type)

    def prepare(self, feeds: Feeds) -> Feeds:
        """The inputs to run."""
        return self.dense.prepare(feeds)

    def read(self, outputs: Sequence[FloatArray], feeds: Feeds) -> Array:
        """Vectors [B, width], of the type that was asked for."""
        return self.quantizing(self.dense.read(outputs, feeds))


def dense_readout(folder: Path, section: Embedding) -> DenseReadout:
    """The readout of an artifact's dense embeddings, as the model makes them.

    Raises ModelFilesError for a Dense layer's file that is not an array of the layer's shape.
    """
    layers = tuple(_load(folder, layer, layer.weight) for layer in section.dense if layer.weight)
    normalize = section.normalize.value and (section.pooled_by == "runtime" or section.normalize_again)
    return DenseReadout(section, (section.graph_output,), layers, section.dimension, normalize)


def _load(folder: Path, layer: Dense, weight: str) -> Layer:
    if layer.activation not in pooling.ACTIVATIONS:
        supported = ", ".join(pooling.ACTIVATIONS)
        raise ModelFilesError(f"{folder}: a Dense layer has activation {layer.activation!r}; known: {supported}")
    try:
        bias = np.load(folder / layer.bias, allow_pickle=False) if layer.bias else None
        matrix = np.load(folder / weight, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ModelFilesError(f"{folder / weight} or its bias is not an array: {error}") from error
    wanted = (layer.out_features, layer.in_features)
    if matrix.shape != wanted or (bias is not None and bias.shape != wanted[:1]):
        raise ModelFilesError(
            f"{folder / weight} or its bias has another shape than embedding.dense says: {wanted[0]} numbers from "
            f"{wanted[1]}"
        )
    return matrix, bias, layer.activation
