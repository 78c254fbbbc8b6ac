"""The options of other packages, and how far a stream reads ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed import OnnxEmbedder, OnnxReranker
from onnxembed.errors import UsageError
from tiny_embedders import EDGE_TEXTS, LONG, D, assert_vectors_equal, export_tiny, texts_of_many_lengths


@pytest.mark.parametrize(
    "harmless",
    [
        {"batch_size": 2},
        {"batch_size": 1, "read_ahead": 3},
        {"show_progress_bar": False, "convert_to_numpy": True, "convert_to_tensor": False},
        {"normalize_embeddings": True, "output_value": "sentence_embedding", "precision": "float32"},
        {"device": None, "parallel": 4, "truncate_dim": None, "prompt": "", "prompt_name": None},
    ],
)
def test_what_asks_for_the_same_is_taken(model: OnnxEmbedder, harmless: dict[str, Any]) -> None:
    texts = texts_of_many_lengths(40)
    assert_vectors_equal(model.encode(texts, **harmless), model.encode(texts))
    assert_vectors_equal(np.stack(list(model.embed(texts, **harmless))), model.encode(texts))


def test_other_names_mean_the_same(model: OnnxEmbedder) -> None:
    assert_vectors_equal(model.encode(EDGE_TEXTS, truncate_dim=8), model.encode(EDGE_TEXTS, dimensions=8))
    with pytest.raises(UsageError, match=r"^encode was given dimensions twice, as 4 and as 8$"):
        model.encode(EDGE_TEXTS, dimensions=4, truncate_dim=8)


@pytest.mark.parametrize(
    ("argument", "substitute"),
    [
        ({"convert_to_tensor": True}, r"^encode does not take convert_to_tensor=True: torch.from_numpy"),
        ({"convert_to_numpy": False}, "list"),
        ({"output_value": "token_embeddings"}, "tokens"),
        ({"device": "cuda"}, "providers"),
        ({"pool": {}}, "threads"),
        ({"max_length": 3}, "when the model is opened"),
    ],
)
def test_the_rest_names_its_substitute(model: OnnxEmbedder, argument: dict[str, Any], substitute: str) -> None:
    with pytest.raises(UsageError, match=substitute):
        model.encode(EDGE_TEXTS, **argument)


def test_a_run_holds_no_more_texts_than_batch_size(model: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    run = type(model.model.backend).run

    def counting(backend: Any, outputs: Any, feeds: Any) -> Any:
        sizes.append(len(feeds["input_ids"]))
        return run(backend, outputs, feeds)

    monkeypatch.setattr(type(model.model.backend), "run", counting)
    model.encode([f"the {word}" for word in "abcdefghij"], batch_size=3)
    assert sorted(sizes) == [1, 3, 3, 3]
    with pytest.raises(UsageError, match="batch_size is 0, not a positive whole number"):
        model.encode("the", batch_size=0)


@pytest.mark.parametrize("ahead", [1, 2, 3, 10, 100])
def test_no_more_texts_are_read_than_read_ahead_says(model: OnnxEmbedder, ahead: int) -> None:
    read = 0

    def source() -> Iterator[str]:
        nonlocal read
        for number in range(300):
            read += 1
            yield f"the {number}"

    for given, _ in enumerate(model.embed(source(), read_ahead=ahead)):
        assert read <= given + ahead or read == 300
    assert given == 299


def test_a_text_that_is_too_long_is_an_error_where_that_is_asked_for(model: OnnxEmbedder) -> None:
    with pytest.raises(UsageError, match=r"^texts\[2\] is longer than max_length=20 tokens \(truncate='error'\)$"):
        model.encode(["the", "a", LONG, "of"], truncate="error")
    with pytest.raises(UsageError, match=r"^texts\[3\] is longer"):
        list(model.embed(["the", "a", "of", LONG], truncate="error", read_ahead=1))
    assert model.encode(["the"], truncate="error").shape == (1, D)
    assert [tokens.truncated for tokens in model.tokenize(["the", LONG])] == [False, True]
    with pytest.raises(UsageError, match="truncate is 'no', not cut or error"):
        model.encode("the", truncate="no")  # type: ignore[arg-type]


def test_tokens_have_their_names(model: OnnxEmbedder) -> None:
    assert model.tokenize("the cat").tokens[:2] == ("[CLS]", "the")
    assert len(model.tokenize("the cat").tokens) == len(model.tokenize("the cat"))


def test_a_bar_counts_the_texts(model: OnnxEmbedder, capsys: pytest.CaptureFixture[str]) -> None:
    model.encode(EDGE_TEXTS, show_progress=True)
    assert f"{len(EDGE_TEXTS)}/{len(EDGE_TEXTS)}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "argument"),
    [("max_seq_length", "max_length"), ("max_length", "max_length"), ("truncate_dim", "dimensions")],
)
def test_what_is_decided_when_opening_cannot_be_assigned(model: OnnxEmbedder, name: str, argument: str) -> None:
    before = getattr(model, name)
    with pytest.raises(AttributeError, match=rf"^{name} cannot be assigned: .*; open it again with {argument}="):
        setattr(model, name, 4)
    assert getattr(model, name) == before
    with pytest.raises(AttributeError, match="cannot be assigned"):
        model.anything = 1


def test_attributes_of_sentence_transformers(model: OnnxEmbedder) -> None:
    assert (model.max_seq_length, model.truncate_dim, model.default_prompt_name) == (20, None, None)
    model.prompts["query"] = "changed"
    assert model.prompts["query"] == "to be: "
    assert not hasattr(model, "device")
    with pytest.raises(AttributeError, match=r"no attribute 'device': .provider. says where"):
        model.device  # type: ignore[attr-defined]  # noqa: B018


def test_dimensions_of_the_constructor_hold_for_every_call(tmp_path: Path) -> None:
    folder = export_tiny(tmp_path)
    with OnnxEmbedder(folder) as whole, OnnxEmbedder(folder, dimensions=8) as cut:
        assert (cut.dimension, cut.truncate_dim) == (8, 8)
        assert_vectors_equal(cut.encode(EDGE_TEXTS), whole.encode(EDGE_TEXTS, dimensions=8))
        assert_vectors_equal(cut.encode(EDGE_TEXTS, normalize=True), whole.encode(EDGE_TEXTS, dimensions=8))
        assert cut.encode(EDGE_TEXTS, dimensions=16).shape[1] == 16


def test_async_twins_give_the_same(model: OnnxEmbedder) -> None:
    async def gathered() -> tuple[Any, list[Any]]:
        streamed = [vector async for vector in model.aembed(EDGE_TEXTS)]
        return await model.aencode(EDGE_TEXTS), streamed

    encoded, streamed = asyncio.run(gathered())
    assert_vectors_equal(encoded, model.encode(EDGE_TEXTS))
    assert_vectors_equal(np.stack(streamed), encoded)


def test_cancelling_drops_the_runs_that_have_not_begun(model: OnnxEmbedder) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield f"the {read}"

    async def cancelled() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(model.aencode(endless()), 0.2)
        await asyncio.sleep(0.3)
        before = read
        await asyncio.sleep(0.2)
        assert read == before

    asyncio.run(cancelled())
    assert model.encode("the").shape == (D,)


@pytest.mark.parametrize("name", ["device", "cache_folder", "trust_remote_code", "model_kwargs", "similarity_fn_name"])
def test_an_argument_that_opens_models_elsewhere_names_what_does_it_here(artifact: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"OnnxEmbedder does not take {name}: "):
        OnnxEmbedder(artifact, **{name: None})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=f"OnnxReranker does not take {name}: "):
        OnnxReranker(artifact, **{name: None})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword argument 'nmae'"):
        OnnxEmbedder(artifact, nmae=3)  # type: ignore[call-arg]


def test_the_dimensions_of_a_model_have_the_name_of_sentence_transformers_too(artifact: Path) -> None:
    with OnnxEmbedder(artifact, truncate_dim=8) as model:
        assert model.encode("the cat").shape == (8,)
        assert model.truncate_dim == model.get_embedding_dimension() == 8
    with pytest.raises(UsageError, match="dimensions is 4, and truncate_dim, its other name, 8"):
        OnnxEmbedder(artifact, dimensions=4, truncate_dim=8)


def test_a_text_that_would_take_all_memory_is_refused(model: OnnxEmbedder) -> None:
    """It may be a file that was read as one line."""
    longest = "cat " * 2_500_000
    with pytest.raises(UsageError, match=r"texts\[1\] has 10,000,001 characters, and at most 10,000,000 are tokenized"):
        model.encode(["the cat", f"{longest}a"])
    with pytest.raises(UsageError, match="prompt has 10,000,001 characters"):
        model.encode("the cat", prompt=f"{longest}a")
