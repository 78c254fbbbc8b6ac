"""Similarities and the search among dense vectors, compared with sentence-transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed import OnnxEmbedder, paraphrase_mining, semantic_search
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


@pytest.mark.parametrize(("top_k", "max_pairs"), [(1, 500), (3, 500), (100, 500_000), (5, 7)])
def test_the_pairs_are_those_that_sentence_transformers_mines(top_k: int, max_pairs: int) -> None:
    torch = pytest.importorskip("torch")
    mine = pytest.importorskip("sentence_transformers").util.paraphrase_mining_embeddings
    vectors = np.random.default_rng(4).standard_normal((40, 6)).astype(np.float32)
    theirs = mine(torch.from_numpy(vectors), top_k=top_k, max_pairs=max_pairs)
    ours = paraphrase_mining(vectors, top_k, max_pairs=max_pairs, block=9)
    assert [(i, j) for _, i, j in ours] == [(i, j) for _, i, j in theirs]
    np.testing.assert_allclose([score for score, _, _ in ours], [score for score, _, _ in theirs], atol=1e-6)


def test_equal_texts_are_pairs_and_no_text_is_its_own() -> None:
    vectors = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    assert paraphrase_mining(vectors, top_k=1)[0] == (1.0, 0, 2)
    assert paraphrase_mining(vectors[:1]) == []
    with pytest.raises(UsageError, match="max_pairs"):
        paraphrase_mining(vectors, max_pairs=0)


def test_texts_and_models_are_no_embeddings(model: OnnxEmbedder) -> None:
    """sentence-transformers' paraphrase_mining takes a model and texts."""
    texts = ["the cat", "a text"]
    vectors = model.encode(texts)
    given: list[tuple[Any, Any]] = [(texts, vectors), (vectors, texts), ("the cat", "a text")]
    for compare in (model.similarity, model.similarity_pairwise, semantic_search):
        for a, b in given:
            with pytest.raises(UsageError, match="texts have no similarity of their own: give what the model's encode"):
                compare(a, b)
    with pytest.raises(UsageError, match="a model is no embedding: give what OnnxEmbedder's encode makes of the texts"):
        paraphrase_mining(model, texts)  # type: ignore[arg-type]
