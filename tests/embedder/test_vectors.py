"""OnnxEmbedder's vectors, cut, normalized or not, and pooled in the graph or by the runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed import OnnxEmbedder
from onnxembed.decisions.flags import Flags
from onnxembed.errors import UsageError
from onnxembed.export.plan import Options
from onnxembed.manifest import POOLING_MODES, PoolingMode
from tiny_embedders import DENSE, EDGE_TEXTS, Array, D, assert_vectors_equal, export_tiny


def is_normalized(vectors: Array) -> bool:
    return bool(np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6))


@pytest.mark.parametrize("dimensions", [1, 8, D - 1, D, np.int64(8)])
def test_vectors_are_cut_and_normalized_again(model: OnnxEmbedder, dimensions: int) -> None:
    whole, cut = model.encode(EDGE_TEXTS), model.encode(EDGE_TEXTS, dimensions=dimensions)
    expected = whole[:, :dimensions] / np.linalg.norm(whole[:, :dimensions], axis=1, keepdims=True)
    assert_vectors_equal(cut, expected.astype(np.float32))
    assert is_normalized(cut)
    assert_vectors_equal(np.stack(list(model.embed(EDGE_TEXTS, dimensions=dimensions))), cut)


@pytest.mark.parametrize("dimensions", [0, -1, D + 1, 8.0, "8", True, [8]])
def test_impossible_dimensions_are_refused(model: OnnxEmbedder, dimensions: Any) -> None:
    with pytest.raises(UsageError, match=rf"^dimensions is .*, not a whole number from 1 to this model's {D}$"):
        model.encode(EDGE_TEXTS, dimensions=dimensions)


def test_a_model_that_normalizes(model: OnnxEmbedder) -> None:
    assert is_normalized(model.encode(EDGE_TEXTS))
    assert_vectors_equal(model.encode(EDGE_TEXTS, normalize=True), model.encode(EDGE_TEXTS))
    with pytest.raises(
        UsageError, match=r"normalizes in its graph, .*; export it with --no-normalize or --pooling-out"
    ):
        model.encode(EDGE_TEXTS, normalize=False)


def test_vectors_of_the_graph_are_not_changed(model: OnnxEmbedder) -> None:
    for text, tokens in zip(EDGE_TEXTS, model.tokenize(EDGE_TEXTS), strict=True):
        feeds = {"input_ids": tokens.ids[None], "attention_mask": np.ones((1, len(tokens)), np.int64)}
        (given,) = model.model.backend.run(["sentence_embedding"], {**feeds, "token_type_ids": tokens.type_ids[None]})
        np.testing.assert_array_equal(model.encode([text]), given)


def test_a_model_that_does_not_normalize(raw: OnnxEmbedder, model: OnnxEmbedder) -> None:
    vectors = raw.encode(EDGE_TEXTS)
    assert not is_normalized(vectors)
    assert_vectors_equal(raw.encode(EDGE_TEXTS, normalize=False), vectors)
    assert_vectors_equal(raw.encode(EDGE_TEXTS, normalize=True), model.encode(EDGE_TEXTS))
    assert_vectors_equal(raw.encode(EDGE_TEXTS, dimensions=8), vectors[:, :8])
    assert is_normalized(raw.encode(EDGE_TEXTS, dimensions=8, normalize=True))


def test_a_model_whose_normalization_is_left_to_the_runtime(
    pooled_by_runtime: OnnxEmbedder, raw: OnnxEmbedder, model: OnnxEmbedder
) -> None:
    assert_vectors_equal(pooled_by_runtime.encode(EDGE_TEXTS), model.encode(EDGE_TEXTS))
    assert_vectors_equal(pooled_by_runtime.encode(EDGE_TEXTS, normalize=True), model.encode(EDGE_TEXTS))
    assert_vectors_equal(pooled_by_runtime.encode(EDGE_TEXTS, normalize=False), raw.encode(EDGE_TEXTS))
    assert is_normalized(pooled_by_runtime.encode(EDGE_TEXTS, dimensions=8))
    assert_vectors_equal(
        pooled_by_runtime.encode(EDGE_TEXTS, dimensions=8, normalize=False), raw.encode(EDGE_TEXTS)[:, :8]
    )


@pytest.mark.parametrize("normalize", ["no", "", 0, 1, 0.5, []])
def test_a_value_that_is_neither_true_nor_false_is_refused(model: OnnxEmbedder, normalize: Any) -> None:
    with pytest.raises(UsageError, match=r"^normalize is .*, not True, False or None$"):
        model.encode(EDGE_TEXTS, normalize=normalize)


@pytest.mark.parametrize(
    ("modes", "checkpoint"),
    [
        *[((mode,), {}) for mode in POOLING_MODES],
        (("mean", "max", "cls"), {"normalize": False}),
        (("mean",), {"dense": DENSE}),
        (("cls", "lasttoken"), {"dense": ((2 * D, 5, "torch.nn.modules.activation.Sigmoid"),), "normalize": False}),
    ],
    ids=str,
)
def test_pooling_left_to_the_runtime_gives_the_vectors_of_pooling_in_the_graph(
    tmp_path: Path, modes: tuple[PoolingMode, ...], checkpoint: dict[str, Any]
) -> None:
    flags = Flags(pooling=modes)
    with (
        OnnxEmbedder(export_tiny(tmp_path / "baked", Options(flags=flags), **checkpoint)) as baked,
        OnnxEmbedder(export_tiny(tmp_path / "out", Options(flags=flags, pooling_out=True), **checkpoint)) as out,
    ):
        assert out.manifest.require_embedding().pooled_by == "runtime"
        assert_vectors_equal(out.encode(EDGE_TEXTS), baked.encode(EDGE_TEXTS))
