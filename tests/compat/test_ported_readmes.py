"""The examples for texts in the READMEs of FastEmbed 0.9.1 and sentence-transformers 6.2, with other names alone.

Each test has the lines of an example in their order. Imports and the names of models are replaced; lines about images,
a server and training are left out. No line of either README changes in more than a name.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxruntime import get_available_providers

from foreign import foreign
from onnxembed import OnnxEmbedder, OnnxReranker
from onnxembed.compat.fastembed import (
    Device,
    LateInteractionTextEmbedding,
    ModelSource,
    PoolingType,
    SparseTextEmbedding,
    TextCrossEncoder,
    TextEmbedding,
)
from onnxembed.errors import ProviderError, UsageError
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import FILE_NAME
from tiny_heads import write_bge_m3, write_colbert_encoder, write_masked_lm
from tiny_rerankers import write_reranker

# The texts of the examples are long for the tokenizer of tiny models, which knows few words.
pytestmark = pytest.mark.filterwarnings("ignore:.*and (was|were) cut")

KINDS: tuple[Any, ...] = (TextEmbedding, SparseTextEmbedding, LateInteractionTextEmbedding, TextCrossEncoder)

DOCUMENTS = ["This is built to be faster and lighter.", "fastembed is supported by and maintained by Qdrant."]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("ported")
    made = {
        "sparse": write_bge_m3(folder / "sparse"),
        "splade": write_masked_lm(folder / "splade", pooling={"pooling_strategy": "max"}),
        "colbert": write_colbert_encoder(folder / "colbert"),
        "reranker": write_reranker(folder / "reranker"),
    }
    for name, checkpoint in made.items():
        export(checkpoint, folder / f"{name}-onnx", Options())
    checkpoints = {f"{name} checkpoint": str(path) for name, path in made.items()}
    return {name: str(folder / f"{name}-onnx") for name in made} | checkpoints


def test_dense_vectors_of_fastembed(artifact: Path) -> None:
    documents: list[str] = DOCUMENTS
    embedding_model = TextEmbedding(str(artifact))
    embeddings_generator = embedding_model.embed(documents)
    embeddings_list = list(embedding_model.embed(documents))
    assert len(embeddings_list[0]) == embedding_model.embedding_size == 32
    model = TextEmbedding(model_name=str(artifact))
    embeddings = list(model.embed(documents, batch_size=256, parallel=0))
    np.testing.assert_allclose(embeddings, list(embeddings_generator), atol=1e-6)
    np.testing.assert_allclose(embeddings, model.model.encode(documents), atol=1e-6)
    query = next(model.query_embed(query="the cat"))
    np.testing.assert_allclose(query, model.model.encode_query("the cat"), atol=1e-6)
    assert len(list(model.passage_embed(texts=documents))) == 2
    assert TextEmbedding(model_name="any", specific_model_path=str(artifact), lazy_load=True).model.dimension == 32
    with pytest.raises(UsageError, match="TextEmbedding does not take model"):
        TextEmbedding(model=str(artifact))


def test_arguments_of_fastembed_by_their_places(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """(model_name, cache_dir, threads, providers, cuda, device_ids, lazy_load), as FastEmbed 0.9.1 has them."""
    model = TextEmbedding(str(artifact), None, 1, ["CPUExecutionProvider"], False, None, True)
    assert (model.model.threads, model.model.provider) == (1, "CPUExecutionProvider")
    vectors = list(model.embed(DOCUMENTS, 256, 0))
    for cuda in (False, "cpu", Device.CPU):
        np.testing.assert_allclose(list(TextEmbedding(str(artifact), cuda=cuda).embed(DOCUMENTS)), vectors, atol=1e-6)
    asked: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(TextEmbedding, "_opened_as", lambda _, model, **opening: asked.append(opening["providers"]))
        for device in (False, True, Device.AUTO):
            TextEmbedding(str(artifact), cuda=device)
        TextEmbedding(str(artifact))
    assert asked == ["cpu", "cuda", "auto", "auto"]
    for gpu in (True, "cuda", Device.CUDA):
        if "CUDAExecutionProvider" not in get_available_providers():
            with pytest.raises(ProviderError, match=r"onnxembed\[gpu\]"):
                TextEmbedding(str(artifact), cuda=gpu)
    with pytest.raises(UsageError, match=r"TextEmbedding\('own'\)\.embedding_size"):
        TextEmbedding.get_embedding_size("own")


def test_tokens_are_counted_as_in_fastembed(artifact: Path, models: dict[str, str]) -> None:
    texts = ["the cat", "a text"]
    sparse, late = SparseTextEmbedding(models["sparse"]), LateInteractionTextEmbedding(models["colbert"])
    for model in (TextEmbedding(str(artifact)), sparse, late):
        counted = sum(len(tokens) for tokens in model.model.tokenize(texts))
        assert model.token_count(texts, batch_size=1024) == counted > 4
    assert late.embedding_size == next(late.query_embed(query="the cat")).shape[1]
    queries = list(sparse.query_embed(query=texts))
    assert [each.as_dict() for each in queries] == [each.as_dict() for each in sparse.model.embed_sparse(texts)]
    encoder = TextCrossEncoder(models["reranker"])
    pairs = [("the cat", text) for text in texts]
    assert encoder.token_count(iter(pairs)) == sum(len(tokens) for tokens in encoder.model.tokenize(pairs))
    scores = list(encoder.rerank(query="the cat", documents=texts, batch_size=64, parallel=None))
    np.testing.assert_allclose(scores, list(encoder.rerank("the cat", texts)), atol=1e-6)


def test_other_models_of_fastembed(models: dict[str, str]) -> None:
    sparse = SparseTextEmbedding(model_name=models["sparse"])
    embeddings = list(sparse.embed(DOCUMENTS))
    assert len(embeddings[0].indices) == len(embeddings[0].values) > 0
    late = LateInteractionTextEmbedding(model_name=models["colbert"])
    vectors = list(late.embed(DOCUMENTS))
    assert vectors[0].ndim == 2
    assert len(list(late.query_embed("the cat"))) == 1
    encoder = TextCrossEncoder(model_name=models["reranker"])
    scores = list(encoder.rerank("the cat", DOCUMENTS))
    pairs = list(encoder.rerank_pairs([("the cat", document) for document in DOCUMENTS]))
    np.testing.assert_allclose(scores, pairs, atol=1e-6)
    np.testing.assert_allclose(scores, encoder.model.score("the cat", DOCUMENTS, raw_scores=True), atol=1e-6)


@pytest.fixture
def nothing_added(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (TextEmbedding, TextCrossEncoder):
        monkeypatch.setattr(kind, "_added", {})


def test_custom_models_of_fastembed(
    checkpoint: Path, models: dict[str, str], tmp_path: Path, nothing_added: None
) -> None:
    graph = str(foreign(checkpoint, tmp_path / "graph", "", "token_embeddings"))
    documents = ["the cat", "a text"]
    TextEmbedding.add_custom_model(
        model="intfloat/multilingual-e5-small",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=graph),  # can be used with an `url` to load files from a private storage
        dim=32,
        model_file="onnx/model.onnx",
    )
    model = TextEmbedding(model_name="intfloat/multilingual-e5-small")
    embeddings = list(model.embed(documents))
    with OnnxEmbedder(graph) as own:
        np.testing.assert_array_equal(embeddings, own.encode(documents))
    reranker = shutil.copytree(models["reranker"], tmp_path / "reranker")
    (reranker / FILE_NAME).unlink()
    TextCrossEncoder.add_custom_model(
        model="Xenova/ms-marco-MiniLM-L-4-v2",
        model_file="onnx/model.onnx",
        sources=ModelSource(hf=str(reranker)),
    )
    encoder = TextCrossEncoder(model_name="Xenova/ms-marco-MiniLM-L-4-v2")
    pairs = [("What is AI?", "Artificial intelligence is ..."), ("What is ML?", "Machine learning is ...")]
    np.testing.assert_array_equal(list(encoder.rerank_pairs(pairs)), encoder.model.score_pairs(pairs, raw_scores=True))


def test_custom_models_that_are_not_what_was_said(checkpoint: Path, tmp_path: Path, nothing_added: None) -> None:
    graph = ModelSource(hf=str(foreign(checkpoint, tmp_path / "graph", "", "token_embeddings")))
    TextEmbedding.add_custom_model("own/wide", PoolingType.MEAN, True, graph, dim=64)
    with pytest.raises(UsageError, match="own/Wide was added with dim=64, and its vectors have 32"):
        TextEmbedding("own/Wide")
    TextEmbedding.add_custom_model("own/cls", PoolingType.CLS, True, graph, dim=32)
    with pytest.warns(UserWarning, match="not the model's own vectors: --pooling: cls instead of mean"):
        TextEmbedding("own/cls")
    with pytest.raises(UsageError, match="own/CLS was added already"):
        TextEmbedding.add_custom_model("own/CLS", PoolingType.CLS, True, graph, dim=32)
    with pytest.raises(UsageError, match="no source on the hub"):
        TextEmbedding.add_custom_model("own/url", PoolingType.CLS, True, ModelSource(url="https://..."), dim=32)
    with pytest.raises(UsageError, match="output_name='x': the output is found by itself"):
        TextEmbedding.add_custom_model("own/named", PoolingType.CLS, True, graph, dim=32, output_name="x")


def test_the_list_of_models_of_fastembed(nothing_added: None) -> None:
    """Names by task, where FastEmbed has them too; the keys are FastEmbed's."""
    listed = {kind: [model["model"] for model in kind.list_supported_models()] for kind in KINDS}
    assert "BAAI/bge-small-en-v1.5" in listed[TextEmbedding]
    assert "prithivida/Splade_PP_en_v1" in listed[SparseTextEmbedding]
    assert "colbert-ir/colbertv2.0" in listed[LateInteractionTextEmbedding]
    assert "BAAI/bge-reranker-base" in listed[TextCrossEncoder]
    assert len({*map(tuple, listed.values())}) == 4
    TextEmbedding.add_custom_model("own/model", PoolingType.MEAN, True, ModelSource(hf="own/m"), dim=9, license="mit")
    assert TextEmbedding.get_embedding_size("own/Model") == 9
    last = TextEmbedding.list_supported_models()[-1]
    assert {key: last[key] for key in ("model", "sources", "model_file", "license", "dim")} == {
        "model": "own/model",
        "sources": {"hf": "own/m", "url": None},
        "model_file": "onnx/model.onnx",
        "license": "mit",
        "dim": 9,
    }


def test_embedding_models_of_sentence_transformers(artifact: Path, checkpoint: Path) -> None:
    model = OnnxEmbedder(str(artifact))
    sentences = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    embeddings = model.encode(sentences)
    assert embeddings.shape == (3, 32)
    similarities = model.similarity(embeddings, embeddings)
    reference = pytest.importorskip("sentence_transformers").SentenceTransformer(str(checkpoint), device="cpu")
    theirs = reference.encode(sentences)
    np.testing.assert_allclose(similarities, reference.similarity(theirs, theirs), atol=1e-5)
    pairwise = model.similarity_pairwise(embeddings, embeddings[::-1])
    np.testing.assert_allclose(pairwise, reference.similarity_pairwise(theirs, theirs[::-1].copy()), atol=1e-5)
    assert model.similarity_fn_name == reference.similarity_fn_name == "cosine"


def test_rerankers_of_sentence_transformers(models: dict[str, str]) -> None:
    model = OnnxReranker(models["reranker"])
    query = "How many people live in Berlin?"
    passages = ["Berlin had a population of 3,520,031.", "In 2013 around 600,000 were registered."]
    scores = model.predict([(query, passage) for passage in passages])
    assert scores.shape == (2,)
    ranks = model.rank(query, passages, return_documents=True)
    for rank in ranks:
        assert rank["text"] == passages[rank["corpus_id"]]
        assert f"{rank['score']:.2f}" == f"{scores[rank['corpus_id']]:.2f}"
    assert model.predict((query, passages[0])).shape == ()


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_sparse_models_of_sentence_transformers(models: dict[str, str]) -> None:
    """SparseEncoder has another name, and so has its encode: encode_sparse."""
    model = OnnxEmbedder(models["splade"])
    sentences = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    embeddings = model.encode_sparse(sentences)
    reference = pytest.importorskip("sentence_transformers").SparseEncoder(models["splade checkpoint"], device="cpu")
    theirs = reference.encode(sentences)
    assert embeddings.shape == tuple(theirs.shape)
    similarities = model.similarity(embeddings, embeddings)
    np.testing.assert_allclose(similarities, reference.similarity(theirs, theirs).cpu(), rtol=1e-4, atol=1e-5)
    pairwise = model.similarity_pairwise(embeddings, embeddings)
    np.testing.assert_allclose(pairwise, np.diag(similarities), rtol=1e-5)
    stats = OnnxEmbedder.sparsity(embeddings)
    expected = reference.sparsity(theirs)
    assert stats == pytest.approx(expected)
    assert model.similarity_fn_name == reference.similarity_fn_name == "dot"
    assert model.encode_query(sentences).shape == embeddings.shape
    with pytest.raises(UsageError, match="sparse embeddings are compared here"):
        model.similarity(np.zeros((2, 3), np.float32), embeddings)


def test_multi_vector_models_of_sentence_transformers(models: dict[str, str]) -> None:
    model = OnnxEmbedder(models["colbert"])
    queries = ["What is the capital of France?"]
    documents = ["Paris is the capital of France.", "Berlin is the capital of Germany."]
    query_embeddings = model.encode_query(queries)
    document_embeddings = model.encode_document(documents)
    assert query_embeddings[0].ndim == document_embeddings[0].ndim == 2
    scores = model.similarity(query_embeddings, document_embeddings)
    sentence_transformers = pytest.importorskip("sentence_transformers")
    reference = sentence_transformers.MultiVectorEncoder(models["colbert checkpoint"], device="cpu")
    theirs = reference.similarity(reference.encode_query(queries), reference.encode_document(documents))
    np.testing.assert_allclose(scores, theirs.cpu(), rtol=1e-4)
    assert model.similarity_fn_name == reference.similarity_fn_name == "maxsim"
    with pytest.raises(UsageError, match="multi-vector embeddings"):
        model.similarity(query_embeddings, np.zeros(3, np.float32))


def test_other_kinds_have_async_forms(models: dict[str, str]) -> None:
    sparse, late = OnnxEmbedder(models["splade"]), OnnxEmbedder(models["colbert"])
    embedding = asyncio.run(sparse.aencode_sparse("the cat"))
    np.testing.assert_array_equal(embedding.indices, sparse.encode_sparse("the cat").indices)
    vectors = asyncio.run(late.aencode_multi_vector(["the cat"], kind="query"))
    np.testing.assert_array_equal(vectors[0], late.encode_multi_vector("the cat", kind="query"))
