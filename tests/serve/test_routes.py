"""The routes: their vectors are the library's, and their answers and errors those that each family's clients read."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("msgspec", reason="pip install 'onnxembed[serve]'")

import msgspec

from onnxembed import OnnxEmbedder, OnnxReranker
from onnxembed.serve.app import ENDPOINTS
from tiny_embedders import texts_of_many_lengths

TEXTS = ["the cat", "a", "it was that of the and to in is", "", "the cat"]


@pytest.fixture(scope="module")
def embedder(artifact: Path) -> Any:
    with OnnxEmbedder(artifact) as embedder:
        yield embedder


def close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(np.array(ours, np.float32), theirs, rtol=0, atol=1e-6)


def post(client: Any, path: str, **body: Any) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    kind = next(each.answered for each in ENDPOINTS if each.path == path)
    msgspec.json.decode(answer.content, type=kind)  # what /openapi.json says of it
    return answer.json()


def refusal(client: Any, path: str, **body: Any) -> tuple[int, Any]:
    answer = client.post(path, json=body)
    return answer.status_code, answer.json()


def test_embed_gives_the_vectors_of_the_library(client: Any, embedder: OnnxEmbedder) -> None:
    close(post(client, "/embed", inputs=TEXTS), embedder.encode(TEXTS))
    alone = np.array(post(client, "/embed", inputs="the cat"), np.float32)
    assert np.array_equal(alone, embedder.encode(["the cat"]))  # to the last bit
    many = texts_of_many_lengths(700)
    close(post(client, "/embed", inputs=many), embedder.encode(many))


def test_the_root_does_what_the_default_model_does(client: Any, embedder: OnnxEmbedder) -> None:
    close(post(client, "/", inputs=["a"]), embedder.encode(["a"]))
    compared = post(client, "/", inputs={"source_sentence": "the cat", "sentences": ["the cat", "a"]})
    vectors = embedder.encode(["the cat", "a"])
    close(compared, vectors @ vectors[0])


def test_prompts_dimensions_and_truncation(client: Any, embedder: OnnxEmbedder) -> None:
    close(post(client, "/embed", inputs="a", prompt_name="title"), embedder.encode(["a"], prompt_name="title"))
    close(post(client, "/embed", inputs="a", input_type="query"), embedder.encode_query(["a"]))
    close(post(client, "/embed", inputs="a", dimensions=8), embedder.encode(["a"], dimensions=8))
    close(post(client, "/embed", inputs="a", normalize=False), embedder.encode(["a"]))  # as the model makes them
    long = "the " * 30 + "cat"
    right = post(client, "/embed", inputs=long, truncation_direction="Right")
    assert right != post(client, "/embed", inputs=long, truncation_direction="left")
    with pytest.warns(UserWarning, match=r"(was|were) cut"):
        close(right, embedder.encode([long]))
    status, error = refusal(client, "/embed", inputs=long, truncate=False)
    assert (status, error["error_type"]) == (422, "Validation")
    assert error["error"].endswith("must have less than 21 tokens. Given: 35")


def test_token_ids_are_taken_as_they_are(client: Any, embedder: OnnxEmbedder) -> None:
    ids = embedder.tokenize(["the cat"])[0].ids.tolist()
    close(post(client, "/embed", inputs=ids), embedder.encode(["the cat"]))
    close(post(client, "/embed", inputs=[ids, "a"]), embedder.encode(["the cat", "a"]))
    close([post(client, "/v1/embeddings", input=ids)["data"][0]["embedding"]], embedder.encode(["the cat"]))


@pytest.mark.parametrize("ids", [[9906, 1917], [5, 6], [0]])
def test_token_ids_of_another_tokenizer_are_refused_with_the_switch(client: Any, ids: list[int]) -> None:
    status, error = refusal(client, "/v1/embeddings", input=ids)
    assert status == 422
    assert "check_embedding_ctx_length=False" in error["error"]["message"]


def test_openai_gives_numbers_or_base64_and_counts_tokens(client: Any, embedder: OnnxEmbedder) -> None:
    vectors = embedder.encode(TEXTS)
    plain = post(client, "/v1/embeddings", input=TEXTS, model="tiny")
    close([each["embedding"] for each in plain["data"]], vectors)
    assert [each["index"] for each in plain["data"]] == [0, 1, 2, 3, 4]
    assert (plain["object"], plain["model"]) == ("list", "tiny")
    tokens = sum(len(each) for each in embedder.tokenize(TEXTS))
    assert plain["usage"]["prompt_tokens"] == plain["usage"]["total_tokens"] == tokens
    coded = post(client, "/v1/embeddings", input=TEXTS, encoding_format="base64")
    close([np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in coded["data"]], vectors)


def test_scores_are_those_of_the_library(client: Any, reranker: Path) -> None:
    documents = ["it was that", "a", "they have not had this"]
    with OnnxReranker(reranker) as model:
        logits = model.score("the cat", documents, raw_scores=True)
    order = np.argsort(-logits).tolist()
    ranked = post(client, "/rerank", query="the cat", texts=documents, return_text=True)
    assert [each["index"] for each in ranked] == order
    assert [each["text"] for each in ranked] == [documents[at] for at in order]
    close([each["score"] for each in ranked], 1 / (1 + np.exp(-logits[order])))
    raw = post(client, "/rerank", query="the cat", texts=documents, raw_scores=True)
    close([each["score"] for each in raw], logits[order])
    for path in ("/v1/rerank", "/v2/rerank"):
        best = post(client, path, query="the cat", documents=[*documents[:2], {"text": documents[2]}], top_n=2)
        assert [each["index"] for each in best["results"]] == order[:2]
    pairs = post(client, "/predict", inputs=[["the cat", document] for document in documents], raw_scores=True)
    close([each[0]["score"] for each in pairs], logits)


def test_weaviate_finds_its_routes(client: Any, embedder: OnnxEmbedder) -> None:
    answer = post(client, "/vectors", text="the cat", config={"pooling_strategy": "masked_mean", "task_type": "query"})
    close(answer["vector"], embedder.encode_query("the cat"))
    assert answer["dim"] == 32
    assert client.get("/.well-known/ready").status_code == client.get("/.well-known/live").status_code == 204
    assert client.get("/meta").json()["decisions"][0]["embedding"]["pooling"]["value"] == ["mean"]


def test_tokens_and_their_texts(client: Any) -> None:
    (tokens,) = post(client, "/tokenize", inputs="The cat")
    assert [each["text"] for each in tokens][:2] == ["[CLS]", "The"]
    assert (tokens[0]["special"], tokens[0]["start"], tokens[1]["start"], tokens[1]["stop"]) == (True, None, 0, 3)
    assert post(client, "/decode", ids=[each["id"] for each in tokens]) == ["the c ##a ##t"]


def test_models_are_found_by_name_and_by_what_they_do(client: Any) -> None:
    assert [each["id"] for each in client.get("/v1/models").json()["data"]] == ["tiny", "ranker"]
    status, error = refusal(client, "/v1/embeddings", input="a", model="gone")
    assert (status, error["error"]["code"]) == (404, "model_not_found")
    assert "served are: tiny, ranker" in error["error"]["message"]
    status, error = refusal(client, "/embed", inputs="a", model="ranker")
    assert (status, error["error_type"]) == (424, "Backend")
    assert client.get("/info").json()["model_type"] == {"embedding": {"pooling": "mean"}}


@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        ("/embed", b'{"inputs": "a"', 400, "JSON"),
        ("/embed", b'{"inputs": "\xff"}', 400, "UTF-8"),
        ("/embed", b'{"inputs": "\\ud800"}', 400, "JSON"),
        ("/embed", b'{"inputs": NaN}', 400, "JSON"),
        ("/embed", b'{"inputs": ' + b"[" * 100_000, 422, "$.inputs[0][0]"),
        ("/embed", b'{"x": ' + b"[" * 100_000, 400, "nested"),
        ("/embed", b'{"inputs": []}', 400, "empty"),
        ("/embed", b'{"inputs": ["a", {}]}', 422, "$.inputs[1]"),
        ("/embed", b"{}", 422, "inputs"),
        ("/embed", b'{"inputs": "a", "dimensions": 99}', 422, "dimensions"),
        ("/embed", b'{"inputs": "a", "prompt_name": "gone"}', 422, "query, title"),
        ("/v1/embeddings", b'{"input": 1}', 422, "$.input"),
        ("/v2/rerank", b'{"query": "a", "documents": []}', 400, "empty"),
        ("/vectors", b'{"text": 1}', 422, "$.text"),
        ("/embed_sparse", b'{"inputs": "a"}', 424, "sparse"),
        ("/gone", b"{}", 404, "no such route"),
    ],
)
def test_bad_requests_are_refused_in_the_words_of_their_family(
    client: Any, path: str, body: bytes, status: int, word: str
) -> None:
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert "Traceback" not in answer.text
    error = answer.json()
    message = {"/v1/embeddings": lambda: error["error"]["message"], "/v2/rerank": lambda: error["message"]}
    assert word in message.get(path, lambda: error["error"])()


def test_other_methods_and_types_are_refused(client: Any) -> None:
    assert client.get("/embed").status_code == 405
    assert client.get("/v1/embeddings").json()["error"]["code"] == "method"
    assert client.post("/embed", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415


def test_times_and_counts_are_reported(client: Any) -> None:
    answer = client.post("/embed", json={"inputs": "the cat"})
    assert answer.headers["x-compute-type"] == "cpu"
    assert answer.headers["x-compute-characters"] == "7"
    assert int(answer.headers["x-compute-tokens"]) > 3
    text = client.get("/metrics").text
    for name in ('te_request_count{method="POST"}', "te_request_duration_bucket", "onnxembed_tokens_total"):
        assert name in text


def test_the_document_describes_every_route(client: Any) -> None:
    described = client.get("/openapi.json").json()
    assert {*described["paths"]} == {each.path for each in ENDPOINTS}
    assert "EmbedAsked" in described["components"]["schemas"]


def test_a_browser_gets_the_page_and_a_probe_does_not(client: Any) -> None:
    page = client.get("/", headers={"accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert "://" not in page.text.replace("http://www.w3.org", "")
    assert client.get("/").content == b""


def test_texts_are_cut_to_the_tokens_that_vllms_clients_ask_for(client: Any, artifact: Path) -> None:
    text = "the cat of that it was the cat"
    asked = {"input": text, "model": "tiny"}
    with OnnxEmbedder(artifact, max_length=4) as embedder, pytest.warns(UserWarning, match="max_length=4 tokens"):
        cut = embedder.encode(text)
    with OnnxEmbedder(artifact) as embedder:
        whole = embedder.encode(text)

    def answer(tokens: int) -> Any:
        return client.post("/v1/embeddings", json={**asked, "truncate_prompt_tokens": tokens})

    for tokens, vector in ((4, cut), (-1, whole), (10_000, whole)):
        assert np.allclose(answer(tokens).json()["data"][0]["embedding"], vector, atol=1e-5)
    assert answer(4).json()["usage"]["prompt_tokens"] == 4
    for tokens in (0, 2, -2):
        assert (answer(tokens).status_code, answer(tokens).json()["error"]["type"]) == (422, "invalid_request_error")
    assert client.get("/v1/models").json()["data"][0]["max_model_len"] == embedder.max_length
