"""Token embeddings with the places of their tokens, against sentence-transformers and transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from onnxembed import OnnxEmbedder, UsageError
from tiny_embedders import export_tiny

TEXTS = ["the cat sat", "", "of Paris, to be", "the cat sat"]


def test_token_embeddings_are_those_of_the_reference(model: OnnxEmbedder, checkpoint: Path) -> None:
    reference = pytest.importorskip("sentence_transformers").SentenceTransformer(str(checkpoint), device="cpu")
    for name, prompt in {None: "", "query": "to be: "}.items():
        embeddings = model.embed_tokens(TEXTS, prompt_name=name)
        assert isinstance(embeddings, Iterator)
        theirs = reference.encode(TEXTS, prompt_name=name, output_value="token_embeddings")
        whole = [prompt + text for text in TEXTS]
        encoded = reference.tokenizer(whole, return_offsets_mapping=True)
        for number, found in enumerate(embeddings):
            np.testing.assert_allclose(found.vectors, theirs[number].numpy(), atol=1e-5)
            assert list(found.tokens) == reference.tokenizer.convert_ids_to_tokens(encoded["input_ids"][number])
            spans = [whole[number][first:end] for first, end in encoded["offset_mapping"][number]]
            places = [TEXTS[number][first:end] for first, end in found.offsets]
            inside = [first >= len(prompt) for first, _ in encoded["offset_mapping"][number]]
            assert places == [span if own else "" for span, own in zip(spans, inside, strict=True)]
            assert len(found) == len(found.tokens) == len(found.offsets) == len(found.vectors)


def test_one_text_gives_one_result(model: OnnxEmbedder) -> None:
    found = model.embed_tokens("the cat")
    (among_others,) = model.embed_tokens(["the cat"])
    assert found.tokens == among_others.tokens == ("[CLS]", "the", "c", "##a", "##t", "[SEP]")
    np.testing.assert_array_equal(found.offsets, [[0, 0], [0, 3], [4, 5], [5, 6], [6, 7], [0, 0]])
    np.testing.assert_array_equal(found.vectors, among_others.vectors)
    with pytest.raises(UsageError, match="embed_tokens gives the vectors of tokens"):
        model.encode("the cat", output_value="token_embeddings")  # type: ignore[arg-type]


def test_tokens_are_pooled_by_the_runtime_or_by_the_graph(pooled_by_runtime: OnnxEmbedder, model: OnnxEmbedder) -> None:
    for found, expected in zip(pooled_by_runtime.embed_tokens(TEXTS), model.embed_tokens(TEXTS), strict=True):
        np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-5)


def test_a_graph_without_token_embeddings_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    folder = export_tiny(tmp_path)
    (folder / "onnxembed.json").unlink()
    graph = onnx.load(str(folder / "onnx/model.onnx"))
    graph.graph.output.remove(next(output for output in graph.graph.output if output.name == "token_embeddings"))
    (folder / "onnx/model.onnx_data").unlink(missing_ok=True)
    onnx.save(graph, str(folder / "onnx/model.onnx"))
    with OnnxEmbedder(folder) as model:
        assert model.encode("the cat").shape == (32,)
        with pytest.raises(UsageError, match="has no output token_embeddings, only sentence_embedding"):
            model.embed_tokens("the cat")
