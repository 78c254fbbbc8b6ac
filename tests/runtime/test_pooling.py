"""Pooling in numpy, against its definition written out per text and against sentence-transformers."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxembed.manifest import POOLING_MODES, PoolingMode
from onnxembed.runtime.outputs.pooling import ACTIVATIONS, dense, normalize, pool

Array = NDArray[np.float32]

LENGTHS = (7, 1, 4, 7, 2)
TORCH_MODES = {"mean_sqrt_len": "mean_sqrt_len_tokens"}
TORCH_ACTIVATIONS = {
    "elu": "ELU",
    "gelu": "GELU",
    "hardsigmoid": "Hardsigmoid",
    "hardswish": "Hardswish",
    "hardtanh": "Hardtanh",
    "identity": "Identity",
    "leaky_relu": "LeakyReLU",
    "mish": "Mish",
    "relu": "ReLU",
    "relu6": "ReLU6",
    "selu": "SELU",
    "sigmoid": "Sigmoid",
    "silu": "SiLU",
    "softmax": "Softmax",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "tanh": "Tanh",
}

# torch asks for the axis of a Softmax; without one, it takes the last of a matrix, with a warning.
OPTIONS = {"Softmax": {"dim": 1}}

needs_torch = "compares with sentence-transformers, of the [torch] extra"


def batch(side: str) -> tuple[Array, NDArray[np.int64], list[Array]]:
    """Token embeddings [B, T, D], their mask, and the real tokens of each text; padding holds large values."""
    rng = np.random.default_rng(3)
    width = max(LENGTHS)
    tokens = np.full((len(LENGTHS), width, 6), 1e3, np.float32)
    mask = np.zeros((len(LENGTHS), width), np.int64)
    texts = []
    for row, length in enumerate(LENGTHS):
        text = rng.normal(-1, 2, (length, 6)).astype(np.float32)  # mostly negative: a maximum with 0 would show
        place = slice(0, length) if side == "right" else slice(width - length, width)
        tokens[row, place], mask[row, place] = text, 1
        texts.append(text)
    return tokens, mask, texts


def defined(text: Array, mode: PoolingMode) -> NDArray[np.float64]:
    """What a mode means for one text [T, D] without padding."""
    text64 = text.astype(np.float64)
    weights = np.arange(1, len(text) + 1)[:, None]
    result: NDArray[np.float64] = {
        "cls": text64[0],
        "lasttoken": text64[-1],
        "max": text64.max(axis=0),
        "mean": text64.mean(axis=0),
        "mean_sqrt_len": text64.sum(axis=0) / math.sqrt(len(text)),
        "weightedmean": (text64 * weights).sum(axis=0) / weights.sum(),
    }[mode]
    return result


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("mode", POOLING_MODES)
def test_each_mode_is_its_definition_whichever_side_is_padded(mode: PoolingMode, side: str) -> None:
    tokens, mask, texts = batch(side)
    pooled = pool(tokens, mask, [mode])
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled, [defined(text, mode) for text in texts], rtol=1e-5, atol=1e-6)


def test_modes_are_concatenated_in_the_order_given() -> None:
    tokens, mask, _ = batch("right")
    alone = {mode: pool(tokens, mask, [mode]) for mode in POOLING_MODES}
    for modes in [*permutations(POOLING_MODES, 2), POOLING_MODES]:
        expected = np.concatenate([alone[mode] for mode in modes], axis=1)
        np.testing.assert_array_equal(pool(tokens, mask, modes), expected)


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_a_text_of_one_token_is_that_token(mode: PoolingMode) -> None:
    tokens, mask, texts = batch("left")
    np.testing.assert_allclose(pool(tokens, mask, [mode])[1], texts[1][0], rtol=1e-6)


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_padding_changes_nothing_at_all(mode: PoolingMode) -> None:
    tokens, mask, texts = batch("right")
    alone = pool(texts[2][None], np.ones((1, LENGTHS[2]), np.int64), [mode])
    np.testing.assert_allclose(pool(tokens, mask, [mode])[2], alone[0], rtol=1e-6)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("modes", [*[(mode,) for mode in POOLING_MODES], POOLING_MODES, ("cls", "mean")], ids="+".join)
def test_pooling_is_that_of_sentence_transformers(modes: tuple[PoolingMode, ...], side: str) -> None:
    torch = pytest.importorskip("torch", reason=needs_torch)
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules", reason=needs_torch)
    tokens, mask, _ = batch(side)
    theirs = modules.Pooling(tokens.shape[-1], tuple(TORCH_MODES.get(mode, mode) for mode in modes))
    features = {"token_embeddings": torch.from_numpy(tokens), "attention_mask": torch.from_numpy(mask)}
    expected = theirs(features)["sentence_embedding"].numpy()
    np.testing.assert_allclose(pool(tokens, mask, modes), expected, rtol=1e-5, atol=1e-6)


# ---- Dense layers

X = np.array([[-200, -30, -5, -1, -0.1, 0, 0.1, 1, 5, 30, 200]], np.float32)


@pytest.mark.parametrize(
    ("activation", "at_one"),
    [
        ("identity", 1.0),
        ("tanh", math.tanh(1)),
        ("relu", 1.0),
        ("sigmoid", 1 / (1 + math.exp(-1))),
        ("silu", 1 / (1 + math.exp(-1))),
        ("gelu", (1 + math.erf(math.sqrt(0.5))) / 2),
    ],
)
def test_activations(activation: str, at_one: float) -> None:
    eye = np.eye(X.shape[1], dtype=np.float32)
    out = dense(X, eye, None, activation)  # extreme values must not warn of an overflow
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert out[0, 7] == pytest.approx(at_one, rel=1e-6)


def test_every_activation_is_tested() -> None:
    assert set(TORCH_ACTIVATIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_those_of_torch(activation: str) -> None:
    torch = pytest.importorskip("torch", reason=needs_torch)
    ours = dense(X, np.eye(X.shape[1], dtype=np.float32), None, activation)
    theirs: Any = getattr(torch.nn, TORCH_ACTIVATIONS[activation])(**OPTIONS.get(TORCH_ACTIVATIONS[activation], {}))
    np.testing.assert_allclose(ours, theirs(torch.from_numpy(X)).numpy(), rtol=1e-6, atol=5e-7)


def test_dense_is_x_times_weight_transposed_plus_bias() -> None:
    x = np.array([[1, 2]], np.float32)
    weight = np.array([[1, 0], [0, 10], [1, 1]], np.float32)  # (out, in)
    bias = np.array([100, 200, 300], np.float32)
    assert dense(x, weight, bias, "identity").tolist() == [[101, 220, 303]]
    assert dense(x, weight, None, "identity").tolist() == [[1, 20, 3]]


# ---- normalization


def test_normalized_vectors_have_length_one() -> None:
    vectors = np.random.default_rng(0).normal(0, 5, (50, 33)).astype(np.float32)
    unit = normalize(vectors)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(unit * np.linalg.norm(vectors, axis=1, keepdims=True), vectors, rtol=1e-5)


def test_a_zero_vector_stays_zero() -> None:
    assert normalize(np.zeros((2, 3), np.float32)).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_a_tiny_vector_is_divided_by_the_floor() -> None:
    assert normalize(np.array([[1e-13, 0]], np.float32))[0, 0] == pytest.approx(0.1, rel=1e-6)


def test_normalizing_no_vectors_gives_no_vectors() -> None:
    assert normalize(np.empty((0, 4), np.float32)).shape == (0, 4)


def test_normalization_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch", reason=needs_torch)
    vectors = np.random.default_rng(1).normal(0, 1, (20, 17)).astype(np.float32)
    vectors[3], vectors[4] = 0, vectors[4] * 1e-13
    theirs = torch.nn.functional.normalize(torch.from_numpy(vectors), dim=-1).numpy()
    np.testing.assert_allclose(normalize(vectors), theirs, rtol=1e-6, atol=1e-8)
