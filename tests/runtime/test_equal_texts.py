"""Equal texts are computed once, but work in place on one result leaves the others as they are."""

from __future__ import annotations

import numpy as np
import pytest

from onnxembed import OnnxEmbedder
from onnxembed.export.pipeline import export
from tiny_heads import write_bge_m3

TEXTS = ["the cat", "a", "the cat", "the cat"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OnnxEmbedder:
    folder = tmp_path_factory.mktemp("equal")
    export(write_bge_m3(folder / "checkpoint"), folder / "artifact")
    return OnnxEmbedder(folder / "artifact")


def test_sparse_embeddings(model: OnnxEmbedder) -> None:
    first, _, second, third = model.encode_sparse(TEXTS)
    before = second.values.copy()
    first.values[:] *= 10
    first.indices[:] += 1
    np.testing.assert_array_equal(second.values, before)
    np.testing.assert_array_equal(third.indices, first.indices - 1)


def test_vectors_of_tokens(model: OnnxEmbedder) -> None:
    first, _, second, third = model.encode_multi_vector(TEXTS)
    before = second.copy()
    first *= 0.5
    second *= 1.0
    np.testing.assert_array_equal(third, before)


def test_all_kinds_at_once(model: OnnxEmbedder) -> None:
    made = model.encode_all(TEXTS)
    assert made.dense is not None
    assert made.sparse is not None
    assert made.multi_vector is not None
    before = made.dense[2].copy(), made.sparse[2].values.copy(), made.multi_vector[2].copy()
    made.dense[0] = 0
    made.sparse[0].values[:] = 0
    made.multi_vector[0][:] = 0
    for kind, kept in zip((made.dense[2], made.sparse[2].values, made.multi_vector[2]), before, strict=True):
        np.testing.assert_array_equal(kind, kept)


def test_streams_and_tokens(model: OnnxEmbedder) -> None:
    first, _, second, _ = model.embed(TEXTS)
    first[:] = 0
    assert second.any()
    tokens = model.tokenize(TEXTS)
    tokens[0].ids[:] = 0
    assert tokens[2].ids.any()


def test_one_text_gives_each_kind_by_itself(model: OnnxEmbedder) -> None:
    alone, among = model.encode_all("the cat"), model.encode_all(["the cat"])
    assert alone.dense is not None
    assert alone.sparse is not None
    assert alone.multi_vector is not None
    assert among.dense is not None
    assert among.sparse is not None
    assert among.multi_vector is not None
    np.testing.assert_array_equal(alone.dense, among.dense[0])
    np.testing.assert_array_equal(alone.sparse.values, among.sparse[0].values)
    np.testing.assert_array_equal(alone.multi_vector, among.multi_vector[0])
    np.testing.assert_array_equal(model.encode_sparse("the cat").values, alone.sparse.values)
    np.testing.assert_array_equal(model.encode_multi_vector("the cat"), alone.multi_vector)
