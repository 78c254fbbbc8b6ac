"""The server, tried with the real clients; each test is skipped where its package is not installed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("msgspec", reason="pip install 'onnxembed[serve]'")

from onnxembed import OnnxEmbedder, OnnxReranker
from serving import on_a_thread

TEXTS = ["the cat", "it was that", "a"]

# Clients warn of their own dependencies; that is not what is tested.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def url(artifact: Path, reranker: Path) -> Iterator[str]:
    """A server on a thread, with the embedder and the reranker."""
    with on_a_thread(f"tiny={artifact}", f"ranker={reranker}") as (_, port):
        yield f"http://127.0.0.1:{port}"
    gc.collect()  # connections that clients did not close, while warnings are ignored


@pytest.fixture(scope="module")
def vectors(artifact: Path) -> Any:
    with OnnxEmbedder(artifact) as embedder:
        return embedder.encode(TEXTS)


@pytest.fixture(scope="module")
def order(reranker: Path) -> list[int]:
    """The texts' order for the query "the cat"."""
    with OnnxReranker(reranker) as model:
        return [each.index for each in model.rank("the cat", TEXTS)]


def close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(np.array(ours, np.float32), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_openai(url: str, vectors: Any, form: Any) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    made = client.embeddings.create(model="tiny", input=TEXTS, **form)
    assert made.usage.total_tokens > 10
    if form.get("encoding_format") != "base64":
        close([each.embedding for each in made.data], vectors)
    assert [model.id for model in client.models.list()] == ["tiny", "ranker"]
    with pytest.raises(openai.NotFoundError, match="served are: tiny, ranker"):
        client.embeddings.create(model="gone", input="a")
    with pytest.raises(openai.UnprocessableEntityError, match="dimensions"):
        client.embeddings.create(model="tiny", input="a", dimensions=9999)


def test_openai_async(url: str, vectors: Any) -> None:
    openai = pytest.importorskip("openai")

    async def ask() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            return await asyncio.gather(*(client.embeddings.create(model="tiny", input=text) for text in TEXTS))

    close([each.data[0].embedding for each in asyncio.run(ask())], vectors)


def test_the_inference_client_at_the_root(url: str, vectors: Any) -> None:
    hub = pytest.importorskip("huggingface_hub")
    client = hub.InferenceClient(model=url)
    close(client.feature_extraction(TEXTS), vectors)
    close(
        client.feature_extraction("the cat", normalize=True, truncate=True, truncation_direction="right"), vectors[:1]
    )
    close(client.sentence_similarity("the cat", other_sentences=TEXTS), vectors @ vectors[0])


def test_langchain_openai(url: str, vectors: Any) -> None:
    langchain = pytest.importorskip("langchain_openai")
    options: dict[str, Any] = {"base_url": f"{url}/v1", "api_key": "none", "model": "tiny"}
    embeddings = langchain.OpenAIEmbeddings(check_embedding_ctx_length=False, **options)
    close(embeddings.embed_documents(TEXTS), vectors)
    close(embeddings.embed_query("the cat"), vectors[0])


def test_llama_index_embeddings(url: str, vectors: Any) -> None:
    module = pytest.importorskip("llama_index.embeddings.text_embeddings_inference")
    embedding = module.TextEmbeddingsInference(model_name="tiny", base_url=url, embed_batch_size=2)
    close(embedding.get_text_embedding_batch(TEXTS), vectors)
    close(asyncio.run(embedding.aget_text_embedding("the cat")), vectors[0])


def test_llama_index_reranker(url: str, order: list[int]) -> None:
    module = pytest.importorskip("llama_index.postprocessor.tei_rerank")
    schema = pytest.importorskip("llama_index.core.schema")
    nodes = [schema.NodeWithScore(node=schema.TextNode(text=text)) for text in TEXTS]
    ranker = module.TextEmbeddingInference(base_url=url, top_n=3)
    ranked = ranker.postprocess_nodes(nodes, query_bundle=schema.QueryBundle("the cat"))
    assert [TEXTS.index(node.text) for node in ranked] == order


def test_chroma(url: str, vectors: Any) -> None:
    module = pytest.importorskip("chromadb.utils.embedding_functions")
    for path in ("", "/embed"):
        close(np.array(module.HuggingFaceEmbeddingServer(url=url + path)(TEXTS)), vectors)


def test_haystack(url: str, vectors: Any, order: list[int]) -> None:
    embedders = pytest.importorskip("haystack_integrations.components.embedders.huggingface_api")
    haystack = pytest.importorskip("haystack")
    where: dict[str, Any] = {"api_type": "text_embeddings_inference", "api_params": {"url": url}}
    text = embedders.HuggingFaceAPITextEmbedder(**where, token=None)
    close(text.run("the cat")["embedding"], vectors[0])
    many = embedders.HuggingFaceAPIDocumentEmbedder(**where, token=None)
    made = many.run([haystack.Document(content=text) for text in TEXTS])["documents"]
    close([each.embedding for each in made], vectors)
    rankers = pytest.importorskip("haystack_integrations.components.rankers.huggingface_api")
    ranker = rankers.HuggingFaceTEIRanker(url=url, token=None)
    ranked = ranker.run("the cat", [haystack.Document(content=text) for text in TEXTS])["documents"]
    assert [TEXTS.index(each.content) for each in ranked] == order


def test_pymilvus(url: str, vectors: Any) -> None:
    model = pytest.importorskip("pymilvus.model.dense", exc_type=ImportError)
    close(model.TEIEmbeddingFunction(api_url=url, dimensions=32).encode_documents(TEXTS), vectors)


def test_litellm(url: str, vectors: Any, order: list[int]) -> None:
    litellm = pytest.importorskip("litellm")
    made = litellm.embedding(model="openai/tiny", input=TEXTS, api_base=f"{url}/v1", api_key="none")
    close([each["embedding"] for each in made.data], vectors)
    ranked = litellm.rerank(
        model="cohere/ranker", query="the cat", documents=TEXTS, api_base=f"{url}/v2/rerank", api_key="none"
    )
    assert [each["index"] for each in ranked.results] == order


def test_cohere(url: str, order: list[int]) -> None:
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2(api_key="none", base_url=url)
    ranked = client.rerank(model="ranker", query="the cat", documents=TEXTS, top_n=2)
    assert [each.index for each in ranked.results] == order[:2]
    older = cohere.Client(api_key="none", base_url=url)
    documents = older.rerank(model="ranker", query="the cat", documents=TEXTS, return_documents=True).results
    assert [each.document.text for each in documents] == [TEXTS[at] for at in order]


def test_mteb(url: str, vectors: Any, order: list[int], artifact: Path, reranker: Path) -> None:
    wrappers = pytest.importorskip("mteb.models.openai_wrappers")
    texts: dict[str, Any] = {"task_metadata": None, "hf_split": "test", "hf_subset": "default"}
    quiet = {"show_progress_bar": False}
    plain = wrappers.OpenAIAPIEncodeWrapper(url, "tiny", use_chat_template=False)
    with OnnxEmbedder(artifact) as embedder:
        assert plain.max_length == embedder.max_length
    close(plain.encode([{"text": TEXTS}], **texts, **quiet), vectors)
    short = wrappers.OpenAIAPIEncodeWrapper(url, "tiny", use_chat_template=False, max_length=4)
    with OnnxEmbedder(artifact, max_length=4) as embedder:
        close(short.encode([{"text": TEXTS}], **texts, **quiet), embedder.encode(TEXTS))
    for bad, reason in ((-2, "truncate_prompt_tokens"), (2, "special tokens")):
        refused = wrappers.OpenAIAPIEncodeWrapper(url, "tiny", use_chat_template=False, max_length=bad)
        with pytest.raises(RuntimeError, match=reason):
            refused.encode([{"text": TEXTS}], **texts, **quiet)
    ranker = wrappers.OpenAIAPIRerankWrapper(url, "ranker")
    scores = ranker.predict([{"text": ["the cat"] * 3}], [{"text": TEXTS}], **texts, **quiet)
    assert list(np.argsort(-np.array(scores), kind="stable")) == order
