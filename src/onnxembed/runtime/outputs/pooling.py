"""Pooling, Dense layers and normalization in numpy, for artifacts whose pooling is left to the runtime.

The definitions are those of sentence-transformers 6.2, as in onnxembed.export.graph.pooling: both give the same
vectors. Shapes: token embeddings [B, T, D] float32, mask [B, T] of 0 and 1, places [B, T]: those of the tokens to
pool, counted from the first real token as 1; 0 for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import erf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxembed.arrays import FloatArray
from onnxembed.manifest import MAX_OF_NOTHING, PoolingMode

Mask = NDArray[np.int64]
Places = NDArray[np.int64]


def pool(tokens: FloatArray, mask: Mask, modes: Sequence[PoolingMode], left_out: Mask | None = None) -> FloatArray:
    """Pool tokens [B, T, D] -> [B, len(modes) * D], several modes concatenated.

    Tokens where `left_out` [B, T] is 1 are not pooled; the others keep the places by which they are weighted.
    """
    places = mask.cumsum(axis=1) * mask
    places = places if left_out is None else places * (1 - left_out)
    return np.concatenate([_POOLINGS[mode](tokens, places) for mode in modes], axis=-1)


def prompt_mask(mask: Mask, length: int) -> Mask:
    """1 for the first tokens of each text, as many as the prompt has, and for the padding before them: [B, T]."""
    first = mask.argmax(axis=1)[:, None]
    covered: Mask = (np.arange(mask.shape[1])[None] < first + length).astype(np.int64)
    return covered


def dense(x: FloatArray, weight: FloatArray, bias: FloatArray | None, activation: str) -> FloatArray:
    """activation(x @ weight.T + bias): [B, in] -> [B, out]."""
    out = x @ weight.T
    if bias is not None:
        out = out + bias
    activated: FloatArray = ACTIVATIONS[activation](out).astype(np.float32)
    return activated


def normalize(vectors: FloatArray) -> FloatArray:
    """vectors / max(|vector|, 1e-12) along the last axis."""
    norms: FloatArray = np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True))
    floored: FloatArray = np.maximum(norms, np.float32(1e-12))
    return vectors / floored


def _cls(tokens: FloatArray, places: Places) -> FloatArray:
    """The first token to pool, which is not at position 0 if the padding is on the left."""
    return _pick(tokens, (places > 0).argmax(axis=1))


def _lasttoken(tokens: FloatArray, places: Places) -> FloatArray:
    """The last token to pool; zeros for a text without one."""
    pooled = places > 0
    last: FloatArray = _pick(tokens, places.shape[1] - 1 - pooled[:, ::-1].argmax(axis=1))
    last *= pooled.max(axis=1, keepdims=True)
    return last


def _pick(tokens: FloatArray, positions: NDArray[np.intp]) -> FloatArray:
    """The token at one position of each text: [B, T, D] -> [B, D]."""
    picked: FloatArray = tokens[np.arange(len(tokens)), positions]
    return picked


def _weighted(tokens: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Sum of weights [B, T] * tokens, and of the weights, [B, D] and [B, 1]."""
    total: FloatArray = np.einsum("btd,bt->bd", tokens, weights)
    count = np.maximum(weights.sum(axis=1, keepdims=True), np.float32(1e-9))
    return total, count


def _mean(tokens: FloatArray, places: Places) -> FloatArray:
    total, count = _weighted(tokens, (places > 0).astype(np.float32))
    return total / count


def _mean_sqrt_len(tokens: FloatArray, places: Places) -> FloatArray:
    total, count = _weighted(tokens, (places > 0).astype(np.float32))
    root: FloatArray = np.sqrt(count)
    return total / root


def _weightedmean(tokens: FloatArray, places: Places) -> FloatArray:
    """Weights 1, 2, 3, ... from the first real token."""
    total, count = _weighted(tokens, places.astype(np.float32))
    return total / count


def _max(tokens: FloatArray, places: Places) -> FloatArray:
    largest: FloatArray = np.where(places[..., None] > 0, tokens, np.float32(MAX_OF_NOTHING)).max(axis=1)
    return largest


_POOLINGS: dict[PoolingMode, Callable[[FloatArray, Places], FloatArray]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len": _mean_sqrt_len,
    "weightedmean": _weightedmean,
    "lasttoken": _lasttoken,
}


def _sigmoid(x: FloatArray) -> FloatArray:
    """1 / (1 + exp(-x)), without the overflow of exp."""
    y: FloatArray = np.exp(-np.logaddexp(np.float32(0), -x))
    return y


def _softplus(x: FloatArray) -> FloatArray:
    """log(1 + exp(x)), without the overflow of exp."""
    y: FloatArray = np.logaddexp(np.float32(0), x)
    return y


def _softmax(x: FloatArray) -> FloatArray:
    powers: FloatArray = np.exp(x - x.max(axis=-1, keepdims=True))
    y: FloatArray = powers / powers.sum(axis=-1, keepdims=True)
    return y


def _elu(x: FloatArray) -> FloatArray:
    """x where it is positive, else exp(x) - 1."""
    y: FloatArray = np.where(x > 0, x, np.expm1(np.minimum(x, np.float32(0))))
    return y


_erf = np.vectorize(erf, otypes=[np.float32])

# selu's scale, and the alpha of its exponential: https://arxiv.org/abs/1706.02515.
_SCALE, _ALPHA = 1.0507009873554805, 1.6732632423543772

# As torch.nn defines the classes of these names, made without arguments.
ACTIVATIONS: dict[str, Callable[[FloatArray], Any]] = {
    "elu": _elu,
    "gelu": lambda x: x * (1 + _erf(x * 0.5**0.5)) / 2,
    "hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "hardtanh": lambda x: np.clip(x, -1, 1),
    "identity": lambda x: x,
    "leaky_relu": lambda x: np.where(x > 0, x, np.float32(0.01) * x),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "relu": lambda x: np.maximum(x, np.float32(0)),
    "relu6": lambda x: np.clip(x, 0, 6),
    "selu": lambda x: _SCALE * np.where(x > 0, x, _ALPHA * _elu(x)),
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "softmax": _softmax,
    "softplus": _softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "tanh": np.tanh,
}
