"""OnnxEmbedder: the same vectors however texts arrive, and errors that name what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed import OnnxEmbedder
from onnxembed.errors import UsageError
from onnxembed.execution.session import Session
from onnxembed.export.pipeline import export
from onnxembed.manifest import PoolingMode
from onnxembed.runtime import streaming
from tiny import change_json, write_sentence_bert
from tiny_embedders import EDGE_TEXTS, METHODS, Array, D, assert_vectors_equal, one_by_one, texts_of_many_lengths

# ---- texts and vectors


def test_order_is_kept_and_a_text_has_the_same_vector_alone_and_among_others(model: OnnxEmbedder) -> None:
    texts = texts_of_many_lengths(300)
    together = model.encode(texts)
    assert together.shape == (300, D)
    assert together.dtype == np.float32
    assert_vectors_equal(together, one_by_one(model, texts))


def test_texts_have_different_vectors(model: OnnxEmbedder) -> None:
    vectors = model.encode(texts_of_many_lengths(50))
    assert (vectors @ vectors.T - np.eye(50)).max() < 0.9999


def test_identical_texts_are_computed_once_and_get_a_vector_each(
    model: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    run = Session.run

    def counting(self: Session, outputs: Sequence[str], feeds: Any, **options: Any) -> list[Array]:
        rows.append(len(feeds["input_ids"]))
        return run(self, outputs, feeds, **options)

    monkeypatch.setattr(Session, "run", counting)
    vectors = model.encode(["the", "a", "the", "the", "a"])
    assert sum(rows) == 2
    assert_vectors_equal(vectors[[0, 1, 0, 0, 1]], vectors)
    vectors[0] = 0
    assert vectors[2].any()


def test_one_text_is_one_vector(model: OnnxEmbedder) -> None:
    for given in ("the cat", np.str_("the cat"), np.array("the cat")):
        assert model.encode(given).shape == (D,)
    assert model.encode(["the cat"]).shape == (1, D)
    assert_vectors_equal(model.encode("the cat"), model.encode(["the cat"])[0])
    assert_vectors_equal(model.encode_query("the cat"), model.encode_query(["the cat"])[0])
    assert_vectors_equal(model.encode_document("the cat"), model.encode_document(["the cat"])[0])
    assert model.tokenize("the cat").ids.tolist() == model.tokenize(["the cat"])[0].ids.tolist()
    assert len(list(model.embed("the cat"))) == 1


def test_an_empty_text_is_a_text_like_any_other(model: OnnxEmbedder) -> None:
    alone = model.encode("")
    assert np.isfinite(alone).all()
    assert alone.any()
    assert_vectors_equal(model.encode(["the", "", "a"])[1], alone)


@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken"])
def test_an_empty_text_without_special_tokens(tmp_path: Path, mode: PoolingMode) -> None:
    write_sentence_bert(tmp_path / "checkpoint", pooling=mode, normalize=False)
    file = tmp_path / "checkpoint/tokenizer.json"
    tokenizer = json.loads(file.read_text())
    file.write_text(json.dumps({**tokenizer, "post_processor": None}))
    change_json(tmp_path / "checkpoint/tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    export(tmp_path / "checkpoint", tmp_path / "artifact")
    with OnnxEmbedder(tmp_path / "artifact") as model:
        texts = ["the of and", "", "the of to", "a of in", "the"]
        assert model.token_count(texts) == 10
        together = model.encode(texts)
        assert np.isfinite(together).all()
        assert_vectors_equal(together, one_by_one(model, texts))


@pytest.mark.parametrize("nothing", [[], (), iter(()), np.array([], dtype=str)])
def test_no_texts_give_no_rows(model: OnnxEmbedder, nothing: Any) -> None:
    for method in ("encode", "encode_query", "encode_document"):
        vectors = getattr(model, method)(nothing)
        assert vectors.shape == (0, D)
        assert vectors.dtype == np.float32
    assert model.encode(nothing, dimensions=8).shape == (0, 8)
    assert list(model.embed(nothing)) == []


class Column:
    """A column of a data frame: an iterable of texts that is not a sequence."""

    def __iter__(self) -> Iterator[str]:
        return iter(EDGE_TEXTS)


class Dataset:
    """A data set of the old kind: it has items, but no iterator."""

    def __getitem__(self, index: int) -> str:
        return EDGE_TEXTS[index]


@pytest.mark.parametrize(
    "texts",
    [
        tuple(EDGE_TEXTS),
        np.array(EDGE_TEXTS),
        [np.str_(text) for text in EDGE_TEXTS],
        Column(),
        Dataset(),
        dict.fromkeys(EDGE_TEXTS).keys,
    ],
    ids=["tuple", "array", "numpy strings", "column", "data set", "view"],
)
def test_any_iterable_of_texts_is_accepted(model: OnnxEmbedder, texts: Any) -> None:
    expected = EDGE_TEXTS
    if callable(texts):
        texts, expected = texts(), list(dict.fromkeys(EDGE_TEXTS))
    assert_vectors_equal(model.encode(texts), model.encode(expected))


# ---- objects that are not texts


@pytest.mark.parametrize(
    ("element", "kind"),
    [
        (None, "NoneType"),
        (7, "int"),
        (float("nan"), "float"),
        (["the"], "list"),
        (b"the", "bytes"),
        (np.int64(1), "int64"),
    ],
)
def test_an_element_that_is_not_a_text_is_named_by_its_position(model: OnnxEmbedder, element: Any, kind: str) -> None:
    for method in METHODS:
        with pytest.raises(UsageError, match=rf"^texts\[2\] is {kind}, not str"):
            list(getattr(model, method)(["the", "a", element, "of"]))


def test_positions_count_on_through_the_windows(model: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 4)
    with pytest.raises(UsageError, match=r"^texts\[10\] is NoneType"):
        model.encode([*["the"] * 10, None])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (None, "NoneType"),
        (7, "int"),
        (b"the", "bytes"),
        (bytearray(b"the"), "bytearray"),
        ({"text": "the"}, "dict"),
        ({"the"}, "set"),
        (object(), "object"),
    ],
)
def test_an_object_that_is_not_an_iterable_of_texts_is_refused_at_once(
    model: OnnxEmbedder, texts: Any, kind: str
) -> None:
    for method in (*METHODS, "token_count", "tokenize"):
        with pytest.raises(UsageError, match=f"^texts is {kind}, not a str or an iterable of str"):
            getattr(model, method)(texts)  # a stream is not even begun


def test_half_a_surrogate_pair_is_named_by_its_position(model: OnnxEmbedder) -> None:
    with pytest.raises(UsageError, match=r"^texts\[1\] is not Unicode: half a surrogate pair at character 3$"):
        model.encode(["fine \U0001f600", "not\ud800", "fine"])
    with pytest.raises(UsageError, match=r"^prompt is not Unicode"):
        model.encode("fine", prompt="\udfff")


def test_errors_of_the_iterable_surface_as_they_are(model: OnnxEmbedder) -> None:
    def texts() -> Iterator[str]:
        yield "the"
        raise KeyError("the disk is gone")

    with pytest.raises(KeyError, match="the disk is gone"):
        model.encode(texts())


# ---- unknown options


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("unknown", [{"promt": "a"}, {"batchsize": 8}])
def test_unknown_options_are_errors(model: OnnxEmbedder, method: str, unknown: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        getattr(model, method)("the", **unknown)


@pytest.mark.parametrize("unknown", ["device", "batch_size", "max_lenght", "model_name"])
def test_unknown_arguments_are_errors(artifact: Path, unknown: str) -> None:
    with pytest.raises((TypeError, UsageError), match=unknown):
        OnnxEmbedder(artifact, **{unknown: 1})  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_options_are_checked_before_the_first_text_is_read(model: OnnxEmbedder, method: str) -> None:
    for options in ({"dimensions": 0}, {"prompt": 1}, {"prompt_name": "no"}, {"normalize": False}):
        with pytest.raises(UsageError):
            getattr(model, method)(unread(), **options)


def unread() -> Iterator[str]:
    yield pytest.fail("a text was read")


# ---- ids of the caller's own


@pytest.mark.parametrize("side", ["right", "left"])
def test_padded_batches_give_the_vectors_of_the_texts(
    model: OnnxEmbedder, pooled_by_runtime: OnnxEmbedder, side: str
) -> None:
    tokens = model.tokenize(EDGE_TEXTS)
    width = max(map(len, tokens)) + 2
    feeds = {name: np.zeros((len(EDGE_TEXTS), width), np.int64) for name in model.manifest.model.inputs}
    for row, text_tokens in enumerate(tokens):
        place = slice(0, len(text_tokens)) if side == "right" else slice(width - len(text_tokens), width)
        feeds["input_ids"][row, place] = text_tokens.ids
        feeds["attention_mask"][row, place] = 1
    expected = pooled_by_runtime.forward(feeds)
    assert_vectors_equal(model.forward(feeds), expected)
    if side == "right":  # positions move with the text when the padding is on the left
        assert_vectors_equal(expected, model.encode(EDGE_TEXTS))


def test_a_missing_input_is_named(model: OnnxEmbedder) -> None:
    ids = np.array([[2, 5, 3]], np.int64)
    with pytest.raises(UsageError, match="also takes attention_mask, token_type_ids"):
        model.forward({"input_ids": ids})


def test_a_model_says_its_name_and_its_space(artifact: Path) -> None:
    """To keep beside an index: what made it, and which vectors may be compared with it."""
    with OnnxEmbedder(artifact) as model, OnnxEmbedder(artifact, max_length=7) as shorter:
        assert model.name == model.manifest.source.model
        assert model.spaces == model.manifest.spaces
        assert shorter.spaces.keys() == model.spaces.keys()
        assert shorter.spaces != model.spaces
        with pytest.raises(AttributeError, match="has no attribute 'fingerprint': `spaces` has the ids"):
            _ = model.fingerprint  # type: ignore[attr-defined]
        with pytest.raises(AttributeError, match="cannot be assigned"):
            model.name = "another"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("attribute", "cure"),
    [
        ("get_max_seq_length", "the attribute `max_length`"),
        ("truncate_sentence_embeddings", "dimensions="),
        ("cuda", "providers="),
        ("embedding_size", "the attribute `dimension`"),
        ("preprocess", "tokenize"),
        ("rank", "OnnxReranker opens rerankers"),
        ("save_to_hub", "hf upload"),
    ],
)
def test_attributes_of_other_packages_name_what_to_use(model: OnnxEmbedder, attribute: str, cure: str) -> None:
    with pytest.raises(AttributeError, match=f"OnnxEmbedder has no attribute '{attribute}': .*{cure}"):
        getattr(model, attribute)


@pytest.mark.parametrize("name", ["prompts", "default_prompt_name"])
def test_prompts_are_not_assigned(model: OnnxEmbedder, name: str) -> None:
    with pytest.raises(AttributeError, match=rf"{name} cannot be assigned: .*; open it again with {name}=\.\.\."):
        setattr(model, name, None)
