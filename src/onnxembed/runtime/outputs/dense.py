"""Dense embeddings: one vector for a text, from what the graph gives of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from onnxembed.arguments import whole_number
from onnxembed.arrays import FloatArray, IntArray
from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.manifest import Dense, Embedding
from onnxembed.runtime.outputs import pooling

Layer = tuple[FloatArray, FloatArray | None, str]
"""Weight (out, in), bias (out,) or None, and activation of a Dense layer."""


def load_layers(folder: Path, section: Embedding) -> list[Layer]:
    """The Dense layers that the graph leaves out; ModelFilesError for files that hold none."""
    return [_load(folder, layer, layer.weight) for layer in section.dense if layer.weight]


def dense_vectors(
    section: Embedding, layers: Sequence[Layer], output: FloatArray, feeds: Mapping[str, IntArray]
) -> FloatArray:
    """The graph's output [B, D], or the token embeddings [B, T, D] pooled and taken through the Dense layers."""
    if section.pooled_by == "graph":
        return output
    vectors = pooling.pool(output, feeds["attention_mask"], section.pooling.value)
    for weight, bias, activation in layers:
        vectors = pooling.dense(vectors, weight, bias, activation)
    return vectors


def finishing(section: Embedding, dimensions: int | None, normalize: bool | None) -> Callable[[FloatArray], FloatArray]:
    """What is done to vectors [N, D] in the end: cut to so many `dimensions`, scaled to length 1.

    None leaves either as the model does it. Raises UsageError for what cannot be had.
    """
    if dimensions is not None:
        whole_number("dimensions", dimensions, section.dimension)
    if not isinstance(normalize, bool | np.bool_ | None):
        raise UsageError(f"normalize is {normalize!r}, not True, False or None")
    wanted = section.normalize.value if normalize is None else normalize
    done = section.normalize.value and section.pooled_by == "graph"
    if done and not wanted:
        raise UsageError(
            "this artifact normalizes in its graph, so normalize=False cannot be had from it; "
            "export it with --no-normalize or --pooling-out"
        )
    cut = dimensions is not None and dimensions < section.dimension
    again = section.normalize_again

    def finish(vectors: FloatArray) -> FloatArray:
        vectors = vectors[:, :dimensions] if cut else vectors
        return pooling.normalize(vectors) if wanted and (cut or not done or again) else vectors

    return finish


def _load(folder: Path, layer: Dense, weight: str) -> Layer:
    if layer.activation not in pooling.ACTIVATIONS:
        known = ", ".join(pooling.ACTIVATIONS)
        raise ModelFilesError(f"{folder}: a Dense layer has activation {layer.activation!r}; known: {known}")
    try:
        bias = np.load(folder / layer.bias, allow_pickle=False) if layer.bias else None
        return np.load(folder / weight, allow_pickle=False), bias, layer.activation
    except (ValueError, EOFError) as error:
        raise ModelFilesError(f"{folder / weight} or its bias is no array: {error}") from error
