"""Requests and answers that other projects publish: the requests are accepted, the answers have the same shape.

Facts from the README and the API reference of text-embeddings-inference, OpenAI's reference of embeddings, those of
Cohere (rerank, v2) and Jina (reranker), and Weaviate's container for text2vec-transformers, shortened.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

pytest.importorskip("msgspec", reason="pip install 'onnxembed[serve]'")


class Example(NamedTuple):
    """One request with the answer that is published for it; a list in it stands for lists of any length."""

    path: str
    request: Any
    answer: Any


TEI = [
    Example("/embed", {"inputs": "What is Deep Learning?"}, [[0.0064]]),
    Example("/embed", {"inputs": ["Today is a nice day", "I like you"]}, [[0.1]]),
    Example("/embed", {"inputs": "My name is Olivier", "truncate": False, "normalize": True}, [[0.0]]),
    Example("/embed_all", {"inputs": "What is Deep Learning?"}, [[[0.1]]]),
    Example(
        "/rerank",
        {"query": "What is Deep Learning?", "texts": ["Deep Learning is not...", "Deep learning is..."]},
        [{"index": 0, "score": 0.99}],
    ),
    Example(
        "/rerank",
        {"query": "What is Deep Learning?", "texts": ["Deep Learning is..."], "return_text": True, "raw_scores": False},
        [{"index": 0, "score": 1.0, "text": "Deep Learning is ..."}],
    ),
    Example(
        "/similarity",
        {"inputs": {"source_sentence": "What is Deep Learning?", "sentences": ["What is Machine Learning?"]}},
        [0.9],
    ),
    Example(
        "/tokenize",
        {"inputs": "My name is Olivier and I", "add_special_tokens": False},
        [[{"id": 0, "text": "test", "special": False, "start": 0, "stop": 2}]],
    ),
    Example("/decode", {"ids": [5, 6, 7], "skip_special_tokens": True}, ["test"]),
]

OTHERS = [
    Example(
        "/v1/embeddings",
        {"input": "The food was delicious and the waiter was kind", "model": "tiny", "encoding_format": "float"},
        {
            "object": "list",
            "data": [{"object": "embedding", "embedding": [0.0023], "index": 0}],
            "model": "text-embedding-ada-002",
            "usage": {"prompt_tokens": 8, "total_tokens": 8},
        },
    ),
    Example(
        "/v2/rerank",
        {
            "model": "ranker",
            "query": "What is the capital of the United States?",
            "top_n": 2,
            "documents": ["Carson City is the capital of Nevada.", "Washington, D.C.", "Capital punishment"],
        },
        {
            "results": [{"index": 1, "relevance_score": 0.99}],
            "id": "07734bd2-2473-4f07-94e1-0d9f0e6843cf",
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        },
    ),
    Example(
        "/v1/rerank",
        {
            "model": "ranker",
            "query": "Organic skincare products for sensitive skin",
            "documents": ["Organic skincare with aloe vera", "New makeup trends"],
            "top_n": 1,
            "return_documents": True,
        },
        {
            "model": "jina-reranker-v2-base-multilingual",
            "results": [{"index": 0, "relevance_score": 0.95, "document": {"text": "Organic skincare"}}],
            "usage": {"total_tokens": 815},
        },
    ),
    Example(
        "/vectors",
        {"text": "Some text to vectorize", "config": {"pooling_strategy": "masked_mean", "task_type": "passage"}},
        {"text": "Some text to vectorize", "vector": [0.1], "dim": 384},
    ),
]


@pytest.mark.parametrize("example", TEI + OTHERS, ids=lambda example: example.path)
def test_a_published_request_gets_an_answer_of_the_published_shape(client: Any, example: Example) -> None:
    answer = client.post(example.path, json=example.request)
    assert answer.status_code == 200, answer.text
    assert_shape(answer.json(), example.answer, example.path)


@pytest.mark.parametrize(
    ("request_", "status", "answer"),
    [
        ({"inputs": []}, 400, {"error": "`inputs` cannot be empty", "error_type": "Empty"}),
        ({"inputs": "a", "prompt_name": "absent"}, 422, {"error": "", "error_type": "Validation"}),
        ({"inputs": "the " * 50, "truncate": False}, 422, {"error": "", "error_type": "Validation"}),
    ],
)
def test_a_published_error_has_the_published_status_and_shape(
    client: Any, request_: Any, status: int, answer: dict[str, str]
) -> None:
    refused = client.post("/embed", json=request_)
    assert (refused.status_code, refused.json()["error_type"]) == (status, answer["error_type"])
    assert_shape(refused.json(), answer, "/embed")


def assert_shape(ours: Any, published: Any, place: str) -> None:
    """Fail for a value of another type, for a key that is missing, and for an empty list."""
    if isinstance(published, float):
        assert isinstance(ours, float | int), place
    else:
        assert type(ours) is type(published), place
    if isinstance(published, list):
        assert ours, place
        for number, each in enumerate(ours):
            assert_shape(each, published[0], f"{place}[{number}]")
    if isinstance(published, dict):
        for key, value in published.items():
            assert key in ours, f"{place}.{key}"
            assert_shape(ours[key], value, f"{place}.{key}")
