"""OnnxEmbedder's prompts: chosen by name, chosen by kind of text, or passed by the caller."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed import OnnxEmbedder
from onnxembed.errors import UsageError
from onnxembed.execution.backend import Backend, GraphFiles
from onnxembed.execution.providers import Place, Placement
from onnxembed.runtime.open_model import OpenModel
from tiny_embedders import METHODS, assert_vectors_equal, export_tiny


def test_a_prompt_goes_before_every_text(model: OnnxEmbedder) -> None:
    expected = model.encode(["as the cat", "as a"])
    assert_vectors_equal(model.encode(["the cat", "a"], prompt="as "), expected)
    assert_vectors_equal(np.stack(list(model.embed(["the cat", "a"], prompt="as "))), expected)


def test_a_prompt_is_chosen_by_its_name(model: OnnxEmbedder) -> None:
    assert_vectors_equal(model.encode("the cat", prompt_name="query"), model.encode("to be: the cat"))
    assert_vectors_equal(model.encode("the cat", prompt_name="title"), model.encode("of: the cat"))


def test_queries_and_documents_have_their_prompts(tmp_path: Path) -> None:
    with OnnxEmbedder(export_tiny(tmp_path, prompts={"query": "to be: ", "document": "of: "})) as model:
        query, document = (model.encode(text, prompt="") for text in ("to be: the cat", "of: the cat"))
        assert_vectors_equal(model.encode_query("the cat"), query)
        assert_vectors_equal(next(model.query_embed("the cat")), query)
        assert_vectors_equal(model.encode_document("the cat"), document)
        assert_vectors_equal(next(model.passage_embed("the cat")), document)


def test_a_model_that_expects_prompts_warns_once_when_it_gets_none(tmp_path: Path) -> None:
    with OnnxEmbedder(export_tiny(tmp_path, prompts={"query": "to be: ", "passage": "of: "})) as model:
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
    assert_vectors_equal(model.encode_query("the cat", prompt=""), plain)
    assert_vectors_equal(model.encode_query("the cat", prompt_name="title"), model.encode("of: the cat"))
    assert_vectors_equal(model.encode_document("the cat", prompt="as "), model.encode("as the cat"))
    assert_vectors_equal(model.encode_query("the cat", prompt=None, prompt_name=None), model.encode("to be: the cat"))


def test_other_options_go_with_a_prompt(model: OnnxEmbedder) -> None:
    assert model.encode_query("the cat", dimensions=4).shape == (4,)
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
    with OnnxEmbedder(export_tiny(tmp_path, prompts=prompts, default_prompt_name=default)) as model:
        for method, before in zip(("encode", "encode_query", "encode_document"), expected, strict=True):
            assert_vectors_equal(getattr(model, method)("the cat"), model.encode("the cat", prompt=before))


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


@pytest.mark.filterwarnings("ignore:Default prompt name")
@pytest.mark.parametrize("default", [None, "query", "own"])
def test_prompts_of_the_caller_are_those_of_sentence_transformers(
    artifact: Path, checkpoint: Path, default: str | None
) -> None:
    """They win over the model's own, and those that are not named stay."""
    library = pytest.importorskip("sentence_transformers")
    prompts = {"query": "of: ", "own": "as "}
    reference = library.SentenceTransformer(str(checkpoint), device="cpu", prompts=prompts, default_prompt_name=default)
    with OnnxEmbedder(artifact, prompts=prompts, default_prompt_name=default) as model:
        assert model.default_prompt_name == reference.default_prompt_name == default
        assert model.prompts == {name: text for name, text in reference.prompts.items() if text}
        assert_vectors_equal(model.encode(["the cat"]), reference.encode(["the cat"]), atol=1e-5)
        for name in ("query", "title", "own"):
            theirs = reference.encode(["the cat"], prompt_name=name)
            assert_vectors_equal(model.encode(["the cat"], prompt_name=name), theirs, atol=1e-5)
        assert_vectors_equal(model.encode_query(["the cat"]), reference.encode_query(["the cat"]), atol=1e-5)
        copied = copy.copy(model)
    assert copied.prompts == model.prompts


def test_prompts_of_the_caller_that_are_impossible(artifact: Path) -> None:
    with pytest.raises(UsageError, match="default_prompt_name is 'own'; the prompts are: query, title, of"):
        OnnxEmbedder(artifact, prompts={"of": ""}, default_prompt_name="own")
    with pytest.raises(UsageError, match="of is int, not str"):
        OnnxEmbedder(artifact, prompts={"of": 3})  # type: ignore[dict-item]


def test_an_impossible_prompt_is_refused_before_the_graph_is_opened(artifact: Path) -> None:
    def never(graph: GraphFiles, place: Place) -> Backend:
        raise AssertionError("the graph was opened")

    with pytest.raises(UsageError, match="default_prompt_name is 'own'"):
        OpenModel(artifact, ("embedding",), Placement("cpu"), default_prompt_name="own", open_backend=never)
