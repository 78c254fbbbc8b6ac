"""The layers between the pooling and the vectors, in numpy, so that they can be left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from onnxembed.arrays import FloatArray
from onnxembed.errors import OnnxEmbedError
from onnxembed.facts.facts import read_facts
from onnxembed.facts.modules import DenseFacts, LayerNormFacts
from onnxembed.facts.modules import Layer as LayerFacts
from onnxembed.manifest import Manifest
from onnxembed.runtime.outputs import pooling
from onnxembed.runtime.outputs.dense import DenseReadout

# As sentence-transformers' LayerNorm module and the graph have it.
_EPS = 1e-5


@dataclass(frozen=True)
class Layer:
    """One layer: its kind, "dense", "layer norm" or "normalize", and what it makes of vectors [N, D]."""

    kind: str
    apply: Callable[[FloatArray], FloatArray]


def read_layers(folder: Path, manifest: Manifest, readout: DenseReadout) -> list[Layer] | None:
    """The layers after the pooling, in order; None if only the graph has them."""
    section = manifest.require_embedding()
    if readout.layers or not (section.dense or section.layers):
        return [Layer("dense", partial(_dense, *layer)) for layer in readout.layers]
    try:
        post = read_facts(folder).post
        return None if post.token_layers else [_read(layer) for layer in post.layers]
    except (OnnxEmbedError, ImportError):
        return None


def through(layers: Sequence[Layer], vectors: FloatArray, left_out: Sequence[str]) -> FloatArray:
    """What the layers make of vectors [N, D], without those of some kinds."""
    for layer in layers:
        if layer.kind not in left_out:
            vectors = layer.apply(vectors)
    return vectors


def _dense(weight: FloatArray, bias: FloatArray | None, activation: str, vectors: FloatArray) -> FloatArray:
    return pooling.dense(vectors, weight, bias, activation)


def _residual(
    weight: FloatArray, bias: FloatArray | None, activation: str, beside: FloatArray | None, vectors: FloatArray
) -> FloatArray:
    kept = vectors if beside is None else vectors @ beside.T
    return pooling.dense(vectors, weight, bias, activation) + kept


def _layer_norm(weight: FloatArray, bias: FloatArray, vectors: FloatArray) -> FloatArray:
    centered = vectors - vectors.mean(axis=-1, keepdims=True)
    spread = np.sqrt(np.square(centered).mean(axis=-1, keepdims=True) + np.float32(_EPS))
    normed: FloatArray = centered / spread * weight + bias
    return normed


def _read(facts: LayerFacts) -> Layer:
    """A layer with its weights, which lie in the folder as safetensors. Needs the extra [export]."""
    from onnxembed.export.graph.pooling import dense_weights, layer_norm_weights, residual_weight

    if isinstance(facts, DenseFacts):
        weight, bias = dense_weights(facts)
        if not facts.residual:
            return Layer("dense", partial(_dense, weight, bias, facts.activation))
        beside = residual_weight(facts) if facts.in_features != facts.out_features else None
        return Layer("dense", partial(_residual, weight, bias, facts.activation, beside))
    if isinstance(facts, LayerNormFacts):
        return Layer("layer norm", partial(_layer_norm, *layer_norm_weights(facts).values()))
    return Layer("normalize", pooling.normalize)
