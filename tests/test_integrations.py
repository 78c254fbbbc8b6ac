"""The blocks of docs/integrations.md, run as they stand with the real packages, where these are installed."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed import OnnxEmbedder, OnnxReranker
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from tiny import write_sentence_bert
from tiny_rerankers import write_reranker

DOCUMENT = Path(__file__).parents[1] / "docs/integrations.md"
TEXTS = ["the cat", "a dog", "is it in the text"]

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny models by the names of the document; the embedder has a prompt for each kind of text."""
    folder = tmp_path_factory.mktemp("integrations")
    prompts = {"query": "is it: ", "document": "the text: "}
    export(write_sentence_bert(folder / "own", prompts=prompts), folder / "all-MiniLM-L6-v2-onnx", Options())
    export(write_reranker(folder / "reranker"), folder / "bge-reranker-base-onnx", Options())
    return folder


@pytest.fixture
def run(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a block of a section, as a module, in the folder of the models."""
    monkeypatch.chdir(models)
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def run_block(section: str, *packages: str, place: int = 0) -> Any:
        for package in packages:
            pytest.importorskip(package, reason=f"needs {package}, which is no dependency of onnxembed")
        text = DOCUMENT.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
        block = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)[place]
        names.append(f"block_of_{section.lower()}_{place}")
        (tmp_path / f"{names[-1]}.py").write_text(block, encoding="utf-8")
        return import_module(names[-1])

    yield run_block
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def queries(models: Path) -> Any:
    with OnnxEmbedder(models / "all-MiniLM-L6-v2-onnx") as model:
        assert not np.allclose(model.encode_query(TEXTS), model.encode_document(TEXTS))
        return model.encode_query(TEXTS)


@pytest.fixture
def documents(models: Path) -> Any:
    with OnnxEmbedder(models / "all-MiniLM-L6-v2-onnx") as model:
        return model.encode_document(TEXTS)


def close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_langchain(run: Run, queries: Any, documents: Any) -> None:
    embeddings = run("LangChain", "langchain_core").embeddings
    store = import_module("langchain_core.vectorstores").InMemoryVectorStore.from_texts(TEXTS, embeddings)
    close([store.store[key]["vector"] for key in store.store], documents)
    best = int((documents @ queries[1]).argmax())
    assert store.similarity_search(TEXTS[1], k=1)[0].page_content == TEXTS[best]
    for own in (embeddings, copy.deepcopy(embeddings), pickle.loads(pickle.dumps(embeddings))):
        close(asyncio.run(own.aembed_query(TEXTS[0])), queries[0])
        close(own.embed_documents(TEXTS), documents)


def test_a_reranker_in_langchain(run: Run, models: Path) -> None:
    compressor = run("LangChain", "langchain_core", place=1).compressor
    document = import_module("langchain_core.documents").Document
    kept = compressor.compress_documents([document(page_content=text) for text in TEXTS], "the cat")
    with OnnxReranker(models / "bge-reranker-base-onnx") as model:
        assert [each.page_content for each in kept] == [TEXTS[each.index] for each in model.rank("the cat", TEXTS)]
    assert len(kept) == len(TEXTS)


def test_llama_index(run: Run, queries: Any, documents: Any) -> None:
    embedding = run("LlamaIndex", "llama_index.core").embedding
    for own in (embedding, copy.deepcopy(embedding), pickle.loads(pickle.dumps(embedding))):
        close(own.get_text_embedding_batch(TEXTS), documents)
        close(own.get_query_embedding(TEXTS[1]), queries[1])
    close(asyncio.run(embedding.aget_query_embedding(TEXTS[2])), queries[2])
    close(asyncio.run(embedding.aget_text_embedding_batch(TEXTS)), documents)
    nodes = [import_module("llama_index.core.schema").TextNode(text=text) for text in TEXTS]
    pipeline = import_module("llama_index.core.ingestion").IngestionPipeline(transformations=[embedding])
    close([node.embedding for node in pipeline.run(nodes=nodes)], documents)


def test_haystack(run: Run, queries: Any, documents: Any) -> None:
    made = run("Haystack", "haystack")
    haystack = import_module("haystack")
    pipeline = haystack.Pipeline()
    pipeline.add_component("documents", made.document_embedder)
    pipeline.add_component("text", made.text_embedder)
    again = haystack.Pipeline.loads(pipeline.dumps(), allowed_modules=[made.__name__])
    for own in (pipeline, again):
        given = {"documents": {"documents": [haystack.Document(content=text) for text in TEXTS]}}
        results = own.run({**given, "text": {"text": TEXTS[0]}})
        close([each.embedding for each in results["documents"]["documents"]], documents)
        close(results["text"]["embedding"], queries[0])


def test_chroma(run: Run, queries: Any, documents: Any, tmp_path: Path) -> None:
    function = run("Chroma", "chromadb").function
    chromadb = import_module("chromadb")
    client = chromadb.PersistentClient(str(tmp_path / "chroma"))
    collection = client.create_collection("texts", embedding_function=function)
    collection.add(ids=["0", "1", "2"], documents=TEXTS)
    again = client.get_collection("texts")  # with the function that the collection names
    close(again.get(include=["embeddings"])["embeddings"], documents)
    found = again.query(query_texts=[TEXTS[1]], n_results=3)
    distances = 1 - documents @ queries[1]
    assert [int(each) for each in found["ids"][0]] == np.argsort(distances).tolist()
    close(found["distances"][0], np.sort(distances))
    assert again.configuration["hnsw"]["space"] == "cosine"
