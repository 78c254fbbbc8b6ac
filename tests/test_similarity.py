"""Similarities and the search among dense vectors, compared with sentence-transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from onnxembed import OnnxEmbedder, semantic_search
from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.similarity import SIMILARITIES

QUERIES = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
DOCUMENTS = np.random.default_rng(1).normal(size=(70, 16)).astype(np.float32)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarities_are_those_of_sentence_transformers(name: str) -> None:
    module = pytest.importorskip("sentence_transformers")
    theirs = module.SimilarityFunction.to_similarity_fn(name)(QUERIES, DOCUMENTS).numpy()
    np.testing.assert_allclose(SIMILARITIES[name](QUERIES, DOCUMENTS), theirs, atol=1e-5)


@pytest.mark.parametrize("block", [7, 70, 1000])
@pytest.mark.parametrize("top_k", [1, 10, 70, 200])
def test_the_search_finds_what_sentence_transformers_finds(block: int, top_k: int) -> None:
    util = pytest.importorskip("sentence_transformers.util")
    ours = semantic_search(QUERIES, DOCUMENTS, top_k, block=block)
    theirs = util.semantic_search(QUERIES, DOCUMENTS, top_k=top_k)
    assert [[hit["corpus_id"] for hit in hits] for hits in ours] == [
        [hit["corpus_id"] for hit in hits] for hits in theirs
    ]
    np.testing.assert_allclose(
        [[hit["score"] for hit in hits] for hits in ours],
        [[hit["score"] for hit in hits] for hits in theirs],
        atol=1e-5,
    )


def test_one_query_is_a_row_and_equal_scores_keep_the_order_of_the_documents() -> None:
    (hits,) = semantic_search(QUERIES[0], np.repeat(QUERIES[:1], 5, axis=0), 3, block=2)
    assert [hit["corpus_id"] for hit in hits] == [0, 1, 2]
    with pytest.raises(UsageError, match="top_k is 0"):
        semantic_search(QUERIES, DOCUMENTS, 0)
    with pytest.raises(UsageError, match="the similarity is 'cos', not one of cosine, dot"):
        semantic_search(QUERIES, DOCUMENTS, function="cos")


def test_the_model_says_how_its_vectors_are_compared(artifact: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(artifact, tmp_path / "artifact")
    file = folder / "config_sentence_transformers.json"
    file.write_text(json.dumps({"similarity_fn_name": "dot"}))
    with OnnxEmbedder(folder) as model:
        assert model.similarity_fn_name == "dot"
        np.testing.assert_allclose(model.similarity(QUERIES, DOCUMENTS), QUERIES @ DOCUMENTS.T, atol=1e-5)
    file.unlink()
    with OnnxEmbedder(folder) as model, pytest.raises(ModelFilesError, match="says how vectors are compared"):
        model.similarity(QUERIES, DOCUMENTS)
