"""OnnxEmbedder: the same vectors however texts arrive, bounded memory, and errors that name what is wrong."""

from __future__ import annotations

import gc
import json
import random
import shutil
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from onnxembed import OnnxEmbedder, foreign, locate, sessions, streaming
from onnxembed.errors import (
    HubError,
    IntegrityError,
    ManifestError,
    MissingExtraError,
    ModelFilesError,
    OnnxEmbedError,
    ProviderError,
    UsageError,
)
from onnxembed.export.pipeline import Options, export
from onnxembed.foreign import graph_names
from onnxembed.hub import Fetched
from onnxembed.manifest import FILE_NAME, POOLING_MODES, PoolingMode
from onnxembed.resolve import Flags
from onnxembed.session import Session
from tiny import WORDS, write_sentence_bert

Array = NDArray[np.float32]

METHODS = ("embed", "encode", "query_embed", "passage_embed", "encode_query", "encode_document")
D = 32
TEXTS = [
    "the cat",
    "a",
    "it was that of the and to in is",
    "",
    "they have not had this from one by his with, as for on.",
    "the cat",
    "Mouse",
]
LONG = "the " * 30  # 32 tokens; the tiny model takes 20


@pytest.fixture(scope="module")
def model(artifact: Path) -> Iterator[OnnxEmbedder]:
    with OnnxEmbedder(artifact, threads=2) as model:
        yield model


def make(folder: Path, options: Options | None = None, **checkpoint: Any) -> Path:
    """Export a tiny sentence-transformers model of the given kind."""
    write_sentence_bert(folder / "checkpoint", **checkpoint)
    export(folder / "checkpoint", folder / "artifact", options)
    return folder / "artifact"


def texts_of_many_lengths(number: int) -> list[str]:
    """Distinct texts of 0 to 17 words: 2 to 19 tokens."""
    rng = random.Random(5)
    texts = {" ".join(rng.choices(WORDS, k=rng.randrange(18))) for _ in range(4 * number)}
    return rng.sample(sorted(texts), number)


def one_by_one(model: OnnxEmbedder, texts: Sequence[str], **options: Any) -> Array:
    return np.stack([model.encode(text, **options)[0] for text in texts])


def assert_same(ours: Array, theirs: Array) -> None:
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max(initial=0) <= 1e-6


def is_normalized(vectors: Array) -> bool:
    return bool(np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6))


# ---- texts and vectors


def test_order_is_kept_and_a_text_has_the_same_vector_alone_and_among_others(model: OnnxEmbedder) -> None:
    texts = texts_of_many_lengths(300)
    together = model.encode(texts)
    assert together.shape == (300, D)
    assert together.dtype == np.float32
    assert_same(together, one_by_one(model, texts))


def test_texts_have_different_vectors(model: OnnxEmbedder) -> None:
    vectors = model.encode(texts_of_many_lengths(50))
    assert (vectors @ vectors.T - np.eye(50)).max() < 0.9999


def test_streaming_gives_the_vectors_of_encoding(model: OnnxEmbedder) -> None:
    stream = list(model.embed(TEXTS))
    assert {vector.shape for vector in stream} == {(D,)}
    assert {vector.dtype for vector in stream} == {np.dtype(np.float32)}
    assert_same(np.stack(stream), model.encode(TEXTS))


def test_windows_give_the_vectors_of_one_window(model: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_of_many_lengths(50)
    expected = model.encode(texts)
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 7)
    assert_same(model.encode(texts), expected)


def test_long_texts_make_small_windows(model: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_CHARACTERS", 10)
    assert [len(window) for window in streaming.windows(["a" * 9, "b", "c" * 30, "d"])] == [2, 1, 1]
    assert [len(window) for window in streaming.windows(["a"] * 5, prefix="12345: ")] == [2, 2, 1]
    assert_same(model.encode(TEXTS), one_by_one(model, TEXTS))


def test_many_runs_in_one_window(model: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = model.encode(TEXTS)
    one_text_each(monkeypatch)
    assert_same(model.encode(TEXTS), expected)


def test_identical_texts_are_computed_once_and_get_a_vector_each(
    model: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    run = Session.run

    def counting(self: Session, outputs: Sequence[str], feeds: Any) -> list[Array]:
        rows.append(len(feeds["input_ids"]))
        return run(self, outputs, feeds)

    monkeypatch.setattr(Session, "run", counting)
    vectors = model.encode(["the", "a", "the", "the", "a"])
    assert sum(rows) == 2
    assert_same(vectors[[0, 1, 0, 0, 1]], vectors)
    vectors[0] = 0
    assert vectors[2].any()


def test_one_text_is_one_vector(model: OnnxEmbedder) -> None:
    assert model.encode("the cat").shape == (1, D)
    assert_same(model.encode("the cat"), model.encode(["the cat"]))
    assert len(list(model.embed("the cat"))) == 1


def test_an_empty_text_is_a_text_like_any_other(model: OnnxEmbedder) -> None:
    alone = model.encode("")
    assert np.isfinite(alone).all()
    assert alone.any()
    assert_same(model.encode(["the", "", "a"])[1:2], alone)


@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken"])
def test_an_empty_text_without_special_tokens(tmp_path: Path, mode: PoolingMode) -> None:
    write_sentence_bert(tmp_path / "checkpoint", pooling=mode, normalize=False)
    file = tmp_path / "checkpoint/tokenizer.json"
    tokenizer = json.loads(file.read_text())
    file.write_text(json.dumps({**tokenizer, "post_processor": None}))
    export(tmp_path / "checkpoint", tmp_path / "artifact")
    with OnnxEmbedder(tmp_path / "artifact") as model:
        texts = ["the of and", "", "the of to", "a of in", "the"]
        assert model.token_count(texts) == 10
        together = model.encode(texts)
        assert np.isfinite(together).all()
        assert_same(together, one_by_one(model, texts))


@pytest.mark.parametrize("nothing", [[], (), iter(()), np.array([], dtype=str)])
def test_no_texts_give_no_rows(model: OnnxEmbedder, nothing: Any) -> None:
    for method in ("encode", "encode_query", "encode_document"):
        vectors = getattr(model, method)(nothing)
        assert vectors.shape == (0, D)
        assert vectors.dtype == np.float32
    assert model.encode(nothing, dimensions=8).shape == (0, 8)
    assert list(model.embed(nothing)) == []


class Column:
    """A column of a data frame: an iterable of texts that is no sequence."""

    def __iter__(self) -> Iterator[str]:
        return iter(TEXTS)


class Dataset:
    """A data set of the old kind: it has items, and no iterator."""

    def __getitem__(self, index: int) -> str:
        return TEXTS[index]


@pytest.mark.parametrize(
    "texts",
    [tuple(TEXTS), np.array(TEXTS), [np.str_(text) for text in TEXTS], Column(), Dataset(), dict.fromkeys(TEXTS).keys],
    ids=["tuple", "array", "numpy strings", "column", "data set", "view"],
)
def test_any_iterable_of_texts_will_do(model: OnnxEmbedder, texts: Any) -> None:
    expected = TEXTS
    if callable(texts):
        texts, expected = texts(), list(dict.fromkeys(TEXTS))
    assert_same(model.encode(texts), model.encode(expected))


# ---- what is no text


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
def test_an_element_that_is_no_text_is_named_by_its_position(model: OnnxEmbedder, element: Any, kind: str) -> None:
    for method in METHODS:
        with pytest.raises(UsageError, match=rf"^texts\[2\] is {kind}, not str$"):
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
        (np.array("the"), "ndarray"),
        (object(), "object"),
    ],
)
def test_what_is_no_iterable_of_texts_is_refused_at_once(model: OnnxEmbedder, texts: Any, kind: str) -> None:
    for method in (*METHODS, "token_count", "tokenize"):
        with pytest.raises(UsageError, match=f"^texts is {kind}, not a str or an iterable of str$"):
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


# ---- options that are not known


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("unknown", [{"max_length": 16}, {"batch_size": 8}, {"prompts": "a"}, {"promt": "a"}])
def test_unknown_options_are_errors(model: OnnxEmbedder, method: str, unknown: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        getattr(model, method)("the", **unknown)


@pytest.mark.parametrize("unknown", ["device", "batch_size", "max_lenght", "model_name"])
def test_unknown_arguments_are_errors(artifact: Path, unknown: str) -> None:
    with pytest.raises(TypeError, match=unknown):
        OnnxEmbedder(artifact, **{unknown: 1})  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_options_are_checked_before_the_first_text_is_read(model: OnnxEmbedder, method: str) -> None:
    for options in ({"dimensions": 0}, {"prompt": 1}, {"prompt_name": "no"}, {"normalize": False}):
        with pytest.raises(UsageError):
            getattr(model, method)(unread(), **options)


def unread() -> Iterator[str]:
    yield pytest.fail("a text was read")


# ---- dimensions and normalisation


@pytest.mark.parametrize("dimensions", [1, 8, D - 1, D, np.int64(8)])
def test_vectors_are_cut_and_normalized_again(model: OnnxEmbedder, dimensions: int) -> None:
    whole, cut = model.encode(TEXTS), model.encode(TEXTS, dimensions=dimensions)
    expected = whole[:, :dimensions] / np.linalg.norm(whole[:, :dimensions], axis=1, keepdims=True)
    assert_same(cut, expected.astype(np.float32))
    assert is_normalized(cut)
    assert_same(np.stack(list(model.embed(TEXTS, dimensions=dimensions))), cut)


@pytest.mark.parametrize("dimensions", [0, -1, D + 1, 8.0, "8", True, [8]])
def test_impossible_dimensions_are_refused(model: OnnxEmbedder, dimensions: Any) -> None:
    with pytest.raises(UsageError, match=rf"^dimensions is .*, not a whole number from 1 to this model's {D}$"):
        model.encode(TEXTS, dimensions=dimensions)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnnxEmbedder]:
    """The tiny model without its Normalize module."""
    with OnnxEmbedder(make(tmp_path_factory.mktemp("raw"), normalize=False)) as model:
        yield model


@pytest.fixture(scope="module")
def pooled_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnnxEmbedder]:
    """The tiny model with its pooling, and so its normalisation, left to the runtime."""
    with OnnxEmbedder(make(tmp_path_factory.mktemp("out"), Options(pooling_out=True))) as model:
        yield model


def test_a_model_that_normalizes(model: OnnxEmbedder) -> None:
    assert is_normalized(model.encode(TEXTS))
    assert_same(model.encode(TEXTS, normalize=True), model.encode(TEXTS))
    with pytest.raises(
        UsageError, match=r"normalises in its graph, .*; export it with --no-normalize or --pooling-out"
    ):
        model.encode(TEXTS, normalize=False)


def test_what_the_graph_gives_is_not_touched(model: OnnxEmbedder) -> None:
    for text, tokens in zip(TEXTS, model.tokenize(TEXTS), strict=True):
        feeds = {"input_ids": tokens.ids[None], "attention_mask": np.ones((1, len(tokens)), np.int64)}
        (given,) = model._runner.session.run(["sentence_embedding"], {**feeds, "token_type_ids": tokens.type_ids[None]})
        np.testing.assert_array_equal(model.encode(text), given)


def test_a_model_that_does_not_normalize(raw: OnnxEmbedder, model: OnnxEmbedder) -> None:
    vectors = raw.encode(TEXTS)
    assert not is_normalized(vectors)
    assert_same(raw.encode(TEXTS, normalize=False), vectors)
    assert_same(raw.encode(TEXTS, normalize=True), model.encode(TEXTS))
    assert_same(raw.encode(TEXTS, dimensions=8), vectors[:, :8])
    assert is_normalized(raw.encode(TEXTS, dimensions=8, normalize=True))


def test_a_model_whose_normalization_is_left_to_the_runtime(
    pooled_here: OnnxEmbedder, raw: OnnxEmbedder, model: OnnxEmbedder
) -> None:
    assert_same(pooled_here.encode(TEXTS), model.encode(TEXTS))
    assert_same(pooled_here.encode(TEXTS, normalize=True), model.encode(TEXTS))
    assert_same(pooled_here.encode(TEXTS, normalize=False), raw.encode(TEXTS))
    assert is_normalized(pooled_here.encode(TEXTS, dimensions=8))
    assert_same(pooled_here.encode(TEXTS, dimensions=8, normalize=False), raw.encode(TEXTS)[:, :8])


@pytest.mark.parametrize("normalize", ["no", "", 0, 1, 0.5, []])
def test_what_is_neither_true_nor_false_is_refused(model: OnnxEmbedder, normalize: Any) -> None:
    with pytest.raises(UsageError, match=r"^normalize is .*, not True, False or None$"):
        model.encode(TEXTS, normalize=normalize)


DENSE = (
    (D, 24, "torch.nn.modules.activation.Tanh"),
    (24, 16, "torch.nn.modules.linear.Identity"),
    (16, 16, "torch.nn.modules.activation.GELU"),
)


@pytest.mark.parametrize(
    ("modes", "checkpoint"),
    [
        *[((mode,), {}) for mode in POOLING_MODES],
        (("mean", "max", "cls"), {"normalize": False}),
        (("mean",), {"dense": DENSE}),
        (("cls", "lasttoken"), {"dense": ((2 * D, 5, "torch.nn.modules.activation.Sigmoid"),), "normalize": False}),
    ],
    ids=str,
)
def test_pooling_left_to_the_runtime_gives_the_vectors_of_pooling_in_the_graph(
    tmp_path: Path, modes: tuple[PoolingMode, ...], checkpoint: dict[str, Any]
) -> None:
    flags = Flags(pooling=modes)
    with (
        OnnxEmbedder(make(tmp_path / "baked", Options(flags=flags), **checkpoint)) as baked,
        OnnxEmbedder(make(tmp_path / "out", Options(flags=flags, pooling_out=True), **checkpoint)) as out,
    ):
        assert out.manifest.require_embedding().pooled_by == "runtime"
        assert_same(out.encode(TEXTS), baked.encode(TEXTS))


# ---- prompts


def test_a_prompt_goes_before_every_text(model: OnnxEmbedder) -> None:
    expected = model.encode(["as the cat", "as a"])
    assert_same(model.encode(["the cat", "a"], prompt="as "), expected)
    assert_same(np.stack(list(model.embed(["the cat", "a"], prompt="as "))), expected)


def test_a_prompt_is_chosen_by_its_name(model: OnnxEmbedder) -> None:
    assert_same(model.encode("the cat", prompt_name="query"), model.encode("to be: the cat"))
    assert_same(model.encode("the cat", prompt_name="title"), model.encode("of: the cat"))


def test_queries_and_documents_have_their_prompts(tmp_path: Path) -> None:
    with OnnxEmbedder(make(tmp_path, prompts={"query": "to be: ", "document": "of: "})) as model:
        query, document = (model.encode(text, prompt="") for text in ("to be: the cat", "of: the cat"))
        assert_same(model.encode_query("the cat"), query)
        assert_same(np.stack(list(model.query_embed("the cat"))), query)
        assert_same(model.encode_document("the cat"), document)
        assert_same(np.stack(list(model.passage_embed("the cat"))), document)


def test_a_model_that_expects_prompts_says_once_that_it_got_none(tmp_path: Path) -> None:
    with OnnxEmbedder(make(tmp_path, prompts={"query": "to be: ", "passage": "of: "})) as model:
        model.encode("the cat", prompt="")
        model.encode_query("the cat")
        model.encode("the cat", prompt_name="query")
        with pytest.warns(UserWarning, match=r"query: 'to be: ', passage: 'of: '.*query_embed") as caught:
            model.encode("the cat")
        model.encode("the cat")
        list(model.embed("the cat"))
    assert [warning.filename for warning in caught] == [__file__]


def test_an_explicit_prompt_wins_over_the_kind_of_text(model: OnnxEmbedder) -> None:
    plain = model.encode("the cat")
    assert_same(model.encode_query("the cat", prompt=""), plain)
    assert_same(model.encode_query("the cat", prompt_name="title"), model.encode("of: the cat"))
    assert_same(model.encode_document("the cat", prompt="as "), model.encode("as the cat"))
    assert_same(model.encode_query("the cat", prompt=None, prompt_name=None), model.encode("to be: the cat"))


def test_other_options_go_with_a_prompt(model: OnnxEmbedder) -> None:
    assert model.encode_query("the cat", dimensions=4).shape == (1, 4)
    assert next(model.passage_embed("the cat", dimensions=4)).shape == (4,)


@pytest.mark.parametrize(
    ("prompts", "default", "expected"),  # for texts of no declared kind, queries, documents
    [
        ({}, None, ("", "", "")),
        ({"query": "to "}, None, ("", "to ", "")),
        ({"query": "to ", "document": "of "}, "query", ("to ", "to ", "of ")),
        ({"document": "of ", "passage": "on ", "corpus": "in "}, None, ("", "", "of ")),
        ({"corpus": "in ", "passage": "on "}, None, ("", "", "on ")),
        ({"corpus": "in "}, None, ("", "", "in ")),
        # The default is for texts of no declared kind, also where a kind has no prompt.
        ({"sts": "as "}, "sts", ("as ", "", "")),
        ({"query": "", "sts": "as "}, "sts", ("as ", "", "")),
    ],
)
def test_the_prompt_of_each_kind_of_text(
    tmp_path: Path, prompts: dict[str, str], default: str | None, expected: tuple[str, str, str]
) -> None:
    with OnnxEmbedder(make(tmp_path, prompts=prompts, default_prompt_name=default)) as model:
        for method, before in zip(("encode", "encode_query", "encode_document"), expected, strict=True):
            assert_same(getattr(model, method)("the cat"), model.encode("the cat", prompt=before))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_name": "task"}, r"no prompt named 'task'; it has: query, title"),
        ({"prompt_name": ""}, r"no prompt named ''; it has: query, title"),
        ({"prompt_name": 1}, r"prompt_name is int, not str"),
        ({"prompt_name": ["query"]}, r"prompt_name is list, not str"),
        ({"prompt": 1}, r"prompt is int, not str"),
        ({"prompt": "a", "prompt_name": "query"}, r"give prompt or prompt_name, not both"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_impossible_prompts_are_refused(
    model: OnnxEmbedder, method: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        getattr(model, method)("the", **options)


def test_a_model_without_prompts_says_so(raw: OnnxEmbedder) -> None:
    with pytest.raises(UsageError, match="no prompt named 'query'; it has: none"):
        raw.encode("the", prompt_name="query")


# ---- length


def test_max_length_cuts_texts(artifact: Path, model: OnnxEmbedder) -> None:
    with OnnxEmbedder(artifact, max_length=5) as short:
        assert short.max_length == 5
        with pytest.warns(UserWarning, match="1 of 1 texts were longer than max_length=5 tokens"):
            vectors = short.encode("the of to in is it")
        assert_same(vectors, model.encode("the of to"))


@pytest.mark.parametrize("max_length", [0, -1, 21, 5.0, "5", True])
def test_impossible_lengths_are_refused(artifact: Path, max_length: Any) -> None:
    with pytest.raises(UsageError, match=r"^max_length is .*, not a whole number from 1 to this model's 20$"):
        OnnxEmbedder(artifact, max_length=max_length)


def test_a_length_without_room_for_text_is_refused(artifact: Path) -> None:
    with pytest.raises(UsageError, match="max_length is 2, but 2 special tokens go around every text"):
        OnnxEmbedder(artifact, max_length=2)


def test_the_models_own_length_is_the_default(model: OnnxEmbedder) -> None:
    assert model.max_length == 20
    assert repr(model).endswith("dimension=32, max_length=20)")


def test_truncation_is_said_once_with_the_number_of_texts(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 4)  # two in the first, equal ones
    with OnnxEmbedder(artifact) as model:
        with pytest.warns(UserWarning, match="were cut") as caught:
            model.encode(["the", LONG, "a", LONG, "of", LONG + "a", "in"])
        message = "3 of 7 texts were longer than max_length=20 tokens and were cut (this is said once)"
        assert [str(warning.message) for warning in caught] == [message]
        model.encode([LONG])  # a second warning would be an error


@pytest.mark.parametrize("method", METHODS)
def test_the_warning_points_at_the_callers_line(artifact: Path, method: str) -> None:
    with OnnxEmbedder(artifact) as model, pytest.warns(UserWarning, match="1 of 1 texts") as caught:
        list(getattr(model, method)(LONG))
    assert caught[0].filename == __file__


def test_nothing_is_said_when_nothing_is_cut(artifact: Path) -> None:
    with OnnxEmbedder(artifact) as model:
        model.encode(["the " * 18, "", "a"])
        with pytest.warns(UserWarning, match="1 of 1 texts"):  # what was not cut has not spent the warning
            model.encode("the " * 19)


def test_the_prompt_counts_towards_the_length(artifact: Path) -> None:
    with OnnxEmbedder(artifact) as model:
        model.encode("the " * 18)
        with pytest.warns(UserWarning, match="1 of 1 texts"):
            model.encode("the " * 18, prompt="a ")


def test_a_stream_that_is_left_says_what_was_cut_so_far(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 2)
    with OnnxEmbedder(artifact) as model:
        stream = model.embed(cycle([LONG, "the"]))
        assert len(list(islice(stream, 4))) == 4
        with pytest.warns(UserWarning, match="2 of 4 texts"):
            stream.close()


def test_an_error_is_not_hidden_by_the_warning(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 1)
    with OnnxEmbedder(artifact) as model, pytest.raises(UsageError, match=r"texts\[2\] is NoneType"):
        model.encode([LONG, LONG, None])  # type: ignore[list-item]


def test_truncation_is_said_once_by_many_threads(artifact: Path) -> None:
    with OnnxEmbedder(artifact) as model, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(model.encode, [LONG] * 40))
    assert len(caught) == 1


def test_token_count_is_what_the_model_reads(model: OnnxEmbedder) -> None:
    assert model.token_count("the of") == 4
    assert model.token_count(["", "the", LONG]) == 2 + 3 + 20
    assert model.token_count([]) == 0
    assert model.token_count(text for text in ["the", "of"]) == 6
    with pytest.raises(UsageError, match=r"texts\[1\] is NoneType"):
        model.token_count(["the", None])  # type: ignore[list-item]


def test_tokens_are_those_of_the_tokenizer_file(model: OnnxEmbedder, artifact: Path) -> None:
    library = Tokenizer.from_file(str(artifact / "tokenizer.json"))
    tokens = model.tokenize([*TEXTS, LONG])
    assert [list(each.ids) for each in tokens] == [library.encode(text).ids for text in [*TEXTS, LONG]]
    assert [each.truncated for each in tokens] == [False] * len(TEXTS) + [True]
    assert len(model.tokenize("the")) == 1


# ---- ids of the caller's own


@pytest.mark.parametrize("side", ["right", "left"])
def test_padded_batches_give_the_vectors_of_the_texts(
    model: OnnxEmbedder, pooled_here: OnnxEmbedder, side: str
) -> None:
    tokens = model.tokenize(TEXTS)
    width = max(map(len, tokens)) + 2
    feeds = {name: np.zeros((len(TEXTS), width), np.int64) for name in model.manifest.model.inputs}
    for row, each in enumerate(tokens):
        place = slice(0, len(each)) if side == "right" else slice(width - len(each), width)
        feeds["input_ids"][row, place] = each.ids
        feeds["attention_mask"][row, place] = 1
    expected = pooled_here.forward(feeds)
    assert_same(model.forward(feeds), expected)
    if side == "right":  # positions move with the text when the padding is on the left
        assert_same(expected, model.encode(TEXTS))


def test_a_missing_input_is_named(model: OnnxEmbedder) -> None:
    ids = np.array([[2, 5, 3]], np.int64)
    with pytest.raises(UsageError, match="also takes attention_mask, token_type_ids"):
        model.forward({"input_ids": ids})


# ---- streams


def counted(texts: Iterator[str], pulled: list[str]) -> Iterator[str]:
    for text in texts:
        pulled.append(text)
        yield text


def numbered() -> Iterator[str]:
    """Endless distinct texts of 3 to 8 tokens."""
    return (" ".join(str(number)) for number in count())


def one_text_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every text be a run of its own."""
    monkeypatch.setattr(sessions, "plan_runs", lambda lengths, **_: [[index] for index in range(len(lengths))])


class Gate:
    """Lets so many runs pass, or fail, then holds the next until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, passing: int, failing: int = 0) -> None:
        self.runs = 0
        self.held, self.opened = threading.Event(), threading.Event()
        run, counting = Session.run, threading.Lock()

        def gated(session: Session, outputs: Sequence[str], feeds: Any) -> list[Array]:
            with counting:
                self.runs += 1
                number = self.runs
            if number > passing + failing:
                self.held.set()
                assert self.opened.wait(60)
            elif number > passing:
                raise ZeroDivisionError(f"in run {number}")
            return run(session, outputs, feeds)

        monkeypatch.setattr(Session, "run", gated)


def test_texts_are_read_two_windows_ahead_at_most(model: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 8)
    pulled: list[str] = []
    stream = model.embed(counted(numbered(), pulled))
    assert pulled == []
    for taken in range(1, 60):
        next(stream)
        assert len(pulled) <= taken + 2 * 8 - 1
    stream.close()


def test_the_windows_are_bounded_as_documented() -> None:
    assert streaming.WINDOW_TEXTS == 1024  # "about two thousand texts are read ahead"
    assert streaming.WINDOW_CHARACTERS == 2**20


def test_an_endless_iterable_streams(model: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 16)
    vectors = np.stack(list(islice(model.embed(numbered()), 50)))
    assert_same(vectors, model.encode(list(islice(numbered(), 50))))


def test_a_window_is_computed_while_the_one_before_is_handed_out(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 4)
    one_text_each(monkeypatch)
    gate = Gate(monkeypatch, passing=4)
    with OnnxEmbedder(artifact, threads=1) as model:
        stream = model.embed(islice(numbered(), 8))
        next(stream)
        assert gate.held.wait(60)  # the fifth text is being computed, and nobody has asked for it
        gate.opened.set()
        assert len(list(stream)) == 7


@pytest.mark.parametrize("leave", [lambda stream: stream.close(), lambda stream: None], ids=["closed", "dropped"])
def test_a_stream_that_is_left_drops_the_work_that_has_not_begun(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, leave: Callable[[Any], None]
) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 8)
    one_text_each(monkeypatch)
    gate = Gate(monkeypatch, passing=8)
    with OnnxEmbedder(artifact, threads=1) as model:
        stream = model.embed(numbered())
        next(stream)
        assert gate.held.wait(60)
        leave(stream)
        del stream
        gc.collect()
        gate.opened.set()
    assert gate.runs == 9  # the first window, and the run that had begun


def test_an_error_in_a_run_surfaces_as_it_is_and_drops_the_others(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_text_each(monkeypatch)
    gate = Gate(monkeypatch, passing=2, failing=1)
    with OnnxEmbedder(artifact, threads=1) as model:
        with pytest.raises(ZeroDivisionError, match="in run 3"):
            model.encode(list(islice(numbered(), 100)))
        gate.opened.set()
        assert model.encode("the").shape == (1, D)  # it can still be used
    assert gate.runs in (4, 5)  # the fourth had begun, or not yet; and the one text afterwards


def test_an_error_in_the_only_run_surfaces_as_it_is(model: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    Gate(monkeypatch, passing=0, failing=1)
    with pytest.raises(ZeroDivisionError, match="in run 1"):
        model.encode("the")


def test_many_threads_get_the_same_vectors(model: OnnxEmbedder) -> None:
    texts = texts_of_many_lengths(60)
    expected = model.encode(texts)
    with ThreadPoolExecutor(8) as threads:
        for vectors in threads.map(lambda _: model.encode(texts), range(24)):
            assert_same(vectors, expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_does_not_change_vectors(artifact: Path, model: OnnxEmbedder, threads: int) -> None:
    texts = texts_of_many_lengths(60)
    with OnnxEmbedder(artifact, threads=threads) as other:
        assert other.threads == threads
        assert_same(other.encode(texts), model.encode(texts))


def test_runs_go_on_as_many_threads_as_told(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_text_each(monkeypatch)
    together = threading.Barrier(3)
    run = Session.run

    def meeting(session: Session, outputs: Sequence[str], feeds: Any) -> list[Array]:
        together.wait(60)  # broken unless three runs are under way at once
        return run(session, outputs, feeds)

    monkeypatch.setattr(Session, "run", meeting)
    with OnnxEmbedder(artifact, threads=3) as model:
        model.encode(list(islice(numbered(), 9)))


@pytest.mark.parametrize("threads", [0, -1, True, "2", 1.5])
def test_impossible_numbers_of_threads_are_refused(artifact: Path, threads: Any) -> None:
    with pytest.raises(UsageError, match=r"^threads is .*, not a positive whole number$"):
        OnnxEmbedder(artifact, threads=threads)


# ---- closing


@pytest.mark.parametrize("method", [*METHODS, "token_count", "tokenize"])
def test_a_closed_embedder_says_so_at_once(artifact: Path, method: str) -> None:
    model = OnnxEmbedder(artifact)
    model.close()
    model.close()
    with pytest.raises(UsageError, match="this model is closed"):
        getattr(model, method)("the")


def test_a_closed_embedder_takes_no_ids(artifact: Path) -> None:
    with OnnxEmbedder(artifact) as model:
        feeds = {name: np.ones((1, 3), np.int64) for name in model.manifest.model.inputs}
    with pytest.raises(UsageError, match="this model is closed"):
        model.forward(feeds)


def test_a_closed_embedder_still_describes_itself(artifact: Path) -> None:
    with OnnxEmbedder(artifact, providers="cpu") as model:
        pass
    assert (model.dimension, model.max_length, model.provider) == (D, 20, "CPUExecutionProvider")


def test_closing_frees_the_session_and_the_threads(artifact: Path) -> None:
    before = threading.active_count()
    with OnnxEmbedder(artifact, threads=2) as model:
        session = weakref.ref(model._runner.session)
        model.encode(texts_of_many_lengths(200))
        assert threading.active_count() > before
    assert threading.active_count() == before
    gc.collect()
    assert session() is None


def test_closing_waits_for_no_run_that_has_not_begun(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_text_each(monkeypatch)
    gate = Gate(monkeypatch, passing=4)
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 4)
    with OnnxEmbedder(artifact, threads=1) as model:
        stream = model.embed(numbered())
        next(stream)
        assert gate.held.wait(60)
        shutdown = model._runner.session._workers.shutdown

        def and_open_the_gate() -> None:
            gate.opened.set()
            shutdown()

        monkeypatch.setattr(model._runner.session._workers, "shutdown", and_open_the_gate)
        model.close()  # while the stream has three runs waiting
    assert gate.runs == 5


def test_the_block_closes_when_it_is_left_by_an_error(artifact: Path) -> None:
    with pytest.raises(KeyError), OnnxEmbedder(artifact) as model:
        raise KeyError
    with pytest.raises(UsageError, match="closed"):
        model.encode("the")


def test_a_stream_ends_with_an_error_when_its_embedder_is_closed(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 4)
    with OnnxEmbedder(artifact) as model:
        stream = model.embed(numbered())
        next(stream)
    assert len(list(islice(stream, 3))) == 3  # the rest of the window that it has
    with pytest.raises(UsageError, match="this model is closed"):
        next(stream)


def test_closing_ends_a_stream_in_another_thread(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_text_each(monkeypatch)
    gate = Gate(monkeypatch, passing=5)
    model = OnnxEmbedder(artifact, threads=1)
    shutdown = model._runner.session._workers.shutdown

    def and_wait_for_the_stream() -> None:
        shutdown()
        encoding.exception(60)

    monkeypatch.setattr(model._runner.session._workers, "shutdown", and_wait_for_the_stream)
    with ThreadPoolExecutor(2) as threads:
        encoding = threads.submit(model.encode, numbered())
        assert gate.held.wait(60)
        closing = threads.submit(model.close)
        # The others of its window find the session gone; should closing begin late, they are followed by
        # windows that the closed workers refuse.
        gate.opened.set()
        with pytest.raises(UsageError, match="this model is closed"):
            encoding.result(60)
        closing.result(60)


# ---- loading


def damaged(artifact: Path, tmp_path: Path, damage: Callable[[Path], object]) -> Path:
    copy = Path(shutil.copytree(artifact, tmp_path / "copy"))
    damage(copy)
    return copy


def change_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / FILE_NAME).read_text())
    edit(manifest)
    (folder / FILE_NAME).write_text(json.dumps(manifest))


@pytest.mark.parametrize("file", ["onnx/model.onnx", "tokenizer.json"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_byte, "has sha256"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"has \d+ bytes, not the \d+ of the manifest"),
        (lambda path: path.unlink(), "lacks"),
        (lambda path: path.write_bytes(b""), "has 0 bytes"),
    ],
    ids=["changed", "short", "missing", "empty"],
)
def test_a_file_that_is_not_the_recorded_one_is_refused(
    artifact: Path, tmp_path: Path, file: str, damage: Callable[[Path], object], message: str
) -> None:
    folder = damaged(artifact, tmp_path, lambda copy: damage(copy / file))
    with pytest.raises(IntegrityError, match=message) as caught:
        OnnxEmbedder(folder)
    assert file in str(caught.value)


def test_files_that_are_not_needed_may_be_missing_or_changed(artifact: Path, tmp_path: Path) -> None:
    def damage(copy: Path) -> None:
        (copy / "onnx/model_fp16.onnx").unlink()
        change_byte(copy / "config.json")

    with OnnxEmbedder(damaged(artifact, tmp_path, damage)) as model:
        assert model.encode("the").shape == (1, D)


def test_a_changed_dense_layer_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path, Options(pooling_out=True), dense=DENSE)
    change_byte(folder / "2_Dense/weight.npy")
    with pytest.raises(IntegrityError, match=r"weight\.npy has sha256"):
        OnnxEmbedder(folder)


def test_hashes_are_not_computed_when_told(artifact: Path, tmp_path: Path) -> None:
    folder = damaged(artifact, tmp_path, lambda copy: edit_manifest(copy, forget_hashes))
    with pytest.raises(IntegrityError, match="has sha256"):
        OnnxEmbedder(folder)
    OnnxEmbedder(folder, check_files=False).close()


def forget_hashes(manifest: dict[str, Any]) -> None:
    for record in manifest["files"].values():
        record["sha256"] = "0" * 64


def test_a_broken_file_whose_hash_is_not_checked_is_still_an_error_of_the_files(artifact: Path, tmp_path: Path) -> None:
    def damage(copy: Path) -> None:
        path = copy / "onnx/model.onnx"
        path.write_bytes(b"\0" * path.stat().st_size)

    with pytest.raises(ModelFilesError, match="ONNX Runtime cannot open"):
        OnnxEmbedder(damaged(artifact, tmp_path, damage), check_files=False)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m["files"].update(nothing={"sha256": "0", "bytes": 1}), None),
        (lambda m: m["variants"]["fp32"].update(file="onnx/other.onnx"), "which files lacks"),
        (lambda m: m["files"].pop("tokenizer.json"), "which files lacks"),
        (lambda m: m.update(colour="green"), "colour is unknown"),
        (lambda m: m.update(format_version=99), "upgrade onnxembed"),
    ],
    ids=["a file too many", "a file that is not recorded", "no tokenizer", "unknown key", "newer"],
)
def test_a_manifest_that_was_edited(
    artifact: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], object], message: str | None
) -> None:
    folder = damaged(artifact, tmp_path, lambda copy: edit_manifest(copy, edit))
    if message is None:  # a record of a file that the runtime does not read
        OnnxEmbedder(folder).close()
    else:
        with pytest.raises(ManifestError, match=message):
            OnnxEmbedder(folder)


def test_a_broken_dense_layer_whose_hash_is_not_checked_is_still_an_error_of_the_files(tmp_path: Path) -> None:
    folder = make(tmp_path, Options(pooling_out=True), dense=DENSE)
    path = folder / "2_Dense/weight.npy"
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(ModelFilesError, match="is no array"):
        OnnxEmbedder(folder, check_files=False)


def test_an_unknown_activation_is_refused_while_loading(tmp_path: Path) -> None:
    folder = make(tmp_path, Options(pooling_out=True), dense=DENSE)
    edit_manifest(folder, lambda manifest: manifest["embedding"]["dense"][0].update(activation="swish"))
    with pytest.raises(ModelFilesError, match="activation 'swish'; known: identity, tanh, "):
        OnnxEmbedder(folder)


def test_a_folder_that_is_no_artefact_names_the_command_that_makes_one(checkpoint: Path) -> None:
    with pytest.raises(ModelFilesError) as caught:
        OnnxEmbedder(checkpoint)
    assert str(caught.value) == (
        f"{checkpoint} has no onnxembed.json: it is not an onnxembed artefact; "
        f"make one with: onnxembed export {checkpoint} -o DIR"
    )


def test_a_folder_that_is_not_there_is_not_to_be_exported(tmp_path: Path) -> None:
    with pytest.raises(OnnxEmbedError, match="no folder at") as caught:
        OnnxEmbedder(tmp_path / "absent")
    assert "onnxembed export" not in str(caught.value)


def test_precisions(artifact: Path, model: OnnxEmbedder) -> None:
    with OnnxEmbedder(artifact, precision="fp16") as half, OnnxEmbedder(artifact, precision="fp32") as single:
        assert_same(single.encode(TEXTS), model.encode(TEXTS))
        vectors = half.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert 0 < np.abs(vectors - model.encode(TEXTS)).max() < 1e-2
    assert_same(vectors, vectors.astype(np.float32))


def test_auto_takes_the_precision_that_there_is(tmp_path: Path) -> None:
    with OnnxEmbedder(make(tmp_path, Options(precisions=("fp16",)))) as model:
        assert model.encode(TEXTS).shape == (len(TEXTS), D)


def test_a_precision_that_the_artefact_lacks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no fp16 graph \(it has: fp32\); export it again with --precision fp16"):
        OnnxEmbedder(make(tmp_path), precision="fp16")


@pytest.mark.parametrize("precision", ["int3", "FP32", "", None, 32])
def test_a_precision_that_does_not_exist(artifact: Path, precision: Any) -> None:
    with pytest.raises(UsageError, match=r"^precision is .*, not one of auto, fp32, fp16, bf16, int8, int8w$"):
        OnnxEmbedder(artifact, precision=precision)


def test_providers_are_passed_on(artifact: Path) -> None:
    with OnnxEmbedder(artifact, providers=["cpu"]) as model:
        assert model.provider == "CPUExecutionProvider"
    with pytest.raises(ProviderError, match="NoExecutionProvider is not in the installed onnxruntime"):
        OnnxEmbedder(artifact, providers="NoExecutionProvider")


def test_a_missing_runtime_names_the_extra(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"onnxembed\[cpu\]"):
        OnnxEmbedder(artifact)


def test_a_path_may_be_a_str_or_a_path_and_begin_with_a_tilde(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(artifact.parent))
    for path in (artifact, str(artifact), f"~/{artifact.name}"):
        OnnxEmbedder(path).close()


# ---- from the hub


class Hub:
    """Stands in for `fetch` and its kin: a repository whose files lie in a folder, at one commit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder, self.commit, self.asked = folder, "c" * 40, []  # type: tuple[Path, str, list[dict[str, Any]]]
        monkeypatch.setattr(locate, "fetch", self.fetch)
        monkeypatch.setattr(locate, "fetch_first", self.fetch_first)
        monkeypatch.setattr(foreign, "list_files", lambda model, **request: [path.name for path in folder.rglob("*")])

    def fetch_first(self, model: str, **request: Any) -> tuple[Fetched, str | None]:
        self.asked.append(request)
        first = next((name for name in request["candidates"] if (self.folder / name).is_file()), None)
        return Fetched(model, self.folder, self.commit), first

    def fetch(self, model: str, **request: Any) -> Fetched:
        self.asked.append(request)
        absent = [name for name in request["wanted"] if not (self.folder / name).is_file()]
        if absent:
            raise ModelFilesError(f"{model} at main has no {', '.join(absent)}")
        return Fetched(model, self.folder, self.commit)


def test_a_hub_model_is_fetched_at_one_commit_and_only_what_is_read(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(monkeypatch, artifact)
    with OnnxEmbedder(
        "someone/model", precision="fp16", revision="v2", cache_dir=tmp_path, local_files_only=True
    ) as model:
        assert model.encode("the").shape == (1, D)
    shared = {"cache_dir": tmp_path, "local_files_only": True}
    assert hub.asked == [
        {"candidates": ["onnxembed.json", *graph_names("fp16", None)], "revision": "v2", **shared},
        {"wanted": ["tokenizer.json", "onnx/model_fp16.onnx"], "revision": hub.commit, **shared},
    ]


def test_dense_layers_are_fetched_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, make(tmp_path, Options(pooling_out=True), dense=DENSE[:1]))
    OnnxEmbedder("someone/model").close()
    assert hub.asked[1]["wanted"][-2:] == ["2_Dense/weight.npy", "2_Dense/bias.npy"]


def test_a_hub_model_that_is_no_artefact_names_the_command(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch, checkpoint)
    with pytest.raises(ModelFilesError, match="onnxembed export someone/model -o DIR"):
        OnnxEmbedder("someone/model")


def test_a_hub_that_says_no_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: str, **request: Any) -> Fetched:
        raise HubError("someone/model is gated")

    monkeypatch.setattr(locate, "fetch_first", refuse)
    with pytest.raises(HubError, match="gated"):
        OnnxEmbedder("someone/model")
