"""OnnxReranker: scores equal their definition, do not depend on other pairs, keep their order; and what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from onnxembed import OnnxEmbedder, OnnxReranker, RankedDocument
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import read_manifest
from onnxembed.runtime import streaming
from tiny import change_json
from tiny_rerankers import DOCUMENTS, QUERY, write_cross_encoder, write_reranker

SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reranker(tmp_path_factory.mktemp("reranker") / "checkpoint")


@pytest.fixture(scope="module")
def artifact(checkpoint: Path) -> Path:
    export(checkpoint, checkpoint.parent / "artifact", Options(precisions=("fp32", "fp16")))
    return checkpoint.parent / "artifact"


@pytest.fixture(scope="module")
def model(artifact: Path) -> OnnxReranker:
    return OnnxReranker(artifact, threads=2)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> OnnxReranker:
    folder = write_reranker(tmp_path_factory.mktemp("several") / "checkpoint", labels=3)
    export(folder, folder.parent / "artifact")
    return OnnxReranker(folder.parent / "artifact")


def test_a_logit_is_what_the_head_makes_of_the_first_token(
    checkpoint: Path, model: OnnxReranker, tmp_path: Path
) -> None:
    """tanh(pooler(h0)) through the classifier, in numpy, on hidden states of the encoder exported alone."""
    flags = Flags(task="embedding", pooling=("cls",), normalize=False)
    export(checkpoint, tmp_path / "encoder", Options(flags=flags))
    weights = load_file(checkpoint / "model.safetensors")
    pairs = [(QUERY, document) for document in DOCUMENTS[:4]]
    with OnnxEmbedder(tmp_path / "encoder") as encoder:
        first = np.concatenate(
            [
                encoder.forward(
                    {
                        "input_ids": tokens.ids[None],
                        "attention_mask": np.ones_like(tokens.ids)[None],
                        "token_type_ids": tokens.type_ids[None],
                    }
                )
                for tokens in model.tokenize(pairs)
            ]
        )
    pooled = np.tanh(first @ weights["bert.pooler.dense.weight"].T + weights["bert.pooler.dense.bias"])
    logits = (pooled @ weights["classifier.weight"].T + weights["classifier.bias"])[:, 0]
    np.testing.assert_allclose(model.score_pairs(pairs, raw_scores=True), logits, atol=5e-6)
    np.testing.assert_allclose(model.score_pairs(pairs), 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_the_document_is_the_second_segment(model: OnnxReranker) -> None:
    (tokens,) = model.tokenize([("a", "the of")])
    assert tokens.type_ids.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_tokenizer_without_segments_gives_no_segments(tmp_path: Path) -> None:
    folder = write_reranker(tmp_path / "checkpoint")
    change_json(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    export(folder, tmp_path / "artifact")
    with OnnxReranker(tmp_path / "artifact") as plain:
        assert plain.tokenize([("a", "the of")])[0].type_ids.tolist() == [0] * 6


def test_a_score_does_not_depend_on_the_others(model: OnnxReranker) -> None:
    together = model.score(QUERY, DOCUMENTS)
    assert together.shape == (6,)
    assert together.dtype == np.float32
    alone = np.concatenate([model.score(QUERY, [document]) for document in DOCUMENTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert together[0] == together[4]  # the same document twice
    assert np.ptp(together) > 0.01


def test_score_pairs_scores_each_document_for_its_own_query(model: OnnxReranker) -> None:
    pairs = [(QUERY, DOCUMENTS[0]), ("a", DOCUMENTS[2]), [QUERY, DOCUMENTS[0]]]
    scores = model.score_pairs(pairs)  # type: ignore[arg-type]  # lists are taken too
    np.testing.assert_allclose(scores[[0, 2]], model.score(QUERY, DOCUMENTS[:1]).repeat(2), atol=1e-6)
    np.testing.assert_allclose(scores[1], model.score("a", DOCUMENTS[2:3])[0], atol=1e-6)


def test_rank_sorts_best_first_and_ties_by_index(model: OnnxReranker) -> None:
    scores, ranked = model.score(QUERY, DOCUMENTS), model.rank(QUERY, DOCUMENTS)
    assert [result.index for result in ranked] == sorted(range(6), key=lambda i: (-scores[i], i))
    assert [result.score for result in ranked] == [float(scores[result.index]) for result in ranked]
    assert {result.text for result in ranked} == {None}
    at = [result.index for result in ranked].index(0)
    assert ranked[at + 1].index == 4  # the same document later on


def test_rank_returns_the_best_few_with_their_text(model: OnnxReranker) -> None:
    best = model.rank(QUERY, iter(DOCUMENTS), top_k=2, return_documents=True, raw_scores=True)
    whole = model.rank(QUERY, DOCUMENTS, raw_scores=True)
    assert best == [RankedDocument(result.index, result.score, DOCUMENTS[result.index]) for result in whole[:2]]
    assert len(model.rank(QUERY, DOCUMENTS, top_k=99)) == 6


def test_rank_of_many_windows_is_that_of_all_scores(model: OnnxReranker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_TEXTS", 4)
    words = ["the", "a", "to", "in", "is", "it", "was", "that", "for", "on", "as"]
    documents = [f"{word} {'of ' * (i % 7)}" for i, word in enumerate(words * 3)]
    scores = model.score(QUERY, documents)
    expected = sorted(range(len(documents)), key=lambda i: (-scores[i], i))
    assert [result.index for result in model.rank(QUERY, iter(documents), top_k=5)] == expected[:5]
    assert [result.index for result in model.rank(QUERY, iter(documents))] == expected


def test_an_endless_stream_of_pairs_is_read_as_it_is_needed(model: OnnxReranker) -> None:
    stream = model.score_stream((QUERY, DOCUMENTS[i % 6]) for i in itertools.count())
    first = list(itertools.islice(stream, 12))
    stream.close()
    np.testing.assert_allclose(first, np.tile(model.score(QUERY, DOCUMENTS), 2), atol=1e-6)


def test_rerank_streams_logits_as_fastembed_does(model: OnnxReranker) -> None:
    logits = list(model.rerank(QUERY, DOCUMENTS))
    assert {type(logit) for logit in logits} == {float}
    np.testing.assert_allclose(logits, model.score(QUERY, DOCUMENTS, raw_scores=True))


def test_several_labels_give_a_matrix_and_no_order(several: OnnxReranker) -> None:
    assert several.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    scores = several.score(QUERY, DOCUMENTS)
    assert scores.shape == (6, 3)
    np.testing.assert_array_equal(scores, several.score(QUERY, DOCUMENTS, raw_scores=True))  # identity by default
    assert several.score(QUERY, []).shape == (0, 3)
    assert next(iter(several.score_stream([(QUERY, "a")]))).shape == (3,)
    for call in (lambda: several.rank(QUERY, DOCUMENTS), lambda: several.rerank(QUERY, DOCUMENTS)):
        with pytest.raises(UsageError, match=r"for models with one label, and this one has 3 \(LABEL_0, .*see score"):
            call()


def test_nothing_to_score_is_an_empty_result(model: OnnxReranker) -> None:
    assert model.score(QUERY, []).shape == (0,)
    assert model.score_pairs(iter(())).shape == (0,)
    assert model.rank(QUERY, []) == []
    assert list(model.rerank(QUERY, [])) == []


def test_empty_texts_score_like_any_other(model: OnnxReranker) -> None:
    scores = model.score_pairs([("", ""), ("", "the cat"), ("the cat", "")])
    assert np.isfinite(scores).all()
    assert len(set(scores.tolist())) == 3


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda m: m.score(QUERY, "one document"), "documents is str, not a list"),
        (lambda m: m.score(QUERY, None), "documents is NoneType, not a list"),
        (lambda m: m.score(QUERY, {"a": 1}), "documents is dict, not a list"),
        (lambda m: m.score(QUERY, 3), "documents is int, not a list"),
        (lambda m: m.score(None, ["a"]), "query is NoneType, not str"),
        (lambda m: m.score([QUERY], ["a"]), "query is list, not str"),
        (lambda m: m.score(QUERY, ["a", None]), r"documents\[1\] is NoneType, not str"),
        (lambda m: m.score(QUERY, ["a", float("nan")]), r"documents\[1\] is float, not str"),
        (lambda m: m.score(QUERY, ["\ud800"]), r"documents\[0\] is not Unicode"),
        (lambda m: m.score_pairs(["ab"]), r"pairs\[0\] is str, not a pair"),
        (lambda m: m.score_pairs([("a",)]), r"pairs\[0\] is tuple of 1, not a pair"),
        (lambda m: m.score_pairs([("a", "b"), ("a", 1)]), r"pairs\[1\]\[1\] is int, not str"),
        (lambda m: m.score_pairs("ab"), "pairs is str, not a list"),
        (lambda m: m.rank(QUERY, ["a"], top_k=0), "top_k is 0, not a positive whole number"),
        (lambda m: m.rank(QUERY, ["a"], top_k=1.5), "top_k is 1.5"),
    ],
)
def test_an_object_that_is_not_a_text_is_named_by_its_position(model: OnnxReranker, call: Any, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        call(model)


def test_impossible_options_are_errors(artifact: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"truncation": "only_first"}, "truncation is 'only_first', not longest_first or only_second"),
        ({"max_length": 3}, "max_length is 3, which the special tokens of a pair fill"),
        ({"max_length": 65}, "max_length is 65, not a whole number from 1 to this model's 64"),
        ({"instruction": "find it"}, "this model does not take an instruction"),
        ({"precision": "int3"}, "precision is 'int3'"),
    ]
    for options, named in cases:
        with pytest.raises(UsageError, match=named):
            OnnxReranker(artifact, **options)


def test_a_reranker_is_not_an_embedder_nor_the_other_way_round(
    artifact: Path, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"made for reranking \(OnnxReranker, onnxembed rerank\), not for embedding"):
        OnnxEmbedder(artifact)
    export(checkpoint, tmp_path / "out", Options(flags=Flags(task="embedding", pooling=("mean",), normalize=True)))
    with pytest.raises(
        UsageError, match=r"made for embedding \(OnnxEmbedder.embed, onnxembed embed\), not for reranking"
    ):
        OnnxReranker(tmp_path / "out")


def test_a_closed_reranker_says_so(artifact: Path) -> None:
    with OnnxReranker(artifact) as closed:
        assert len(closed.score(QUERY, DOCUMENTS)) == 6
    closed.close()
    with pytest.raises(UsageError, match=r"closed"):
        closed.score(QUERY, DOCUMENTS)


def test_long_pairs_are_cut_with_one_warning(artifact: Path) -> None:
    with OnnxReranker(artifact, max_length=16) as short:
        with pytest.warns(UserWarning, match=r"4 of 6 pairs were longer than max_length=16"):
            short.score(QUERY, DOCUMENTS)
        assert max(len(tokens) for tokens in short.tokenize([(QUERY, text) for text in DOCUMENTS])) == 16


def test_only_second_keeps_the_query_whole(artifact: Path) -> None:
    long = " ".join(["of"] * 12)
    longest, second = (
        OnnxReranker(artifact, max_length=16, truncation=way) for way in ("longest_first", "only_second")
    )
    (cut,), (whole,) = longest.tokenize([(long, long)]), second.tokenize([(long, long)])
    assert len(cut) == len(whole) == 16
    assert int((cut.type_ids == 0).sum()) < int((whole.type_ids == 0).sum()) == 14
    with pytest.raises(UsageError, match=r"the query 'of of.*has 12 tokens.*must fit into 10"):
        OnnxReranker(artifact, max_length=13, truncation="only_second").tokenize([("a", "b"), (long, long)])


def test_fp16_is_near(artifact: Path, model: OnnxReranker) -> None:
    with OnnxReranker(artifact, precision="fp16") as half:
        np.testing.assert_allclose(half.score(QUERY, DOCUMENTS), model.score(QUERY, DOCUMENTS), atol=5e-3)


@pytest.mark.parametrize(
    ("files", "activation", "reason"),
    [
        ({}, "sigmoid", "sentence-transformers' default for one label"),
        ({"sbert_ce_default_activation_function": IDENTITY}, "identity", "sbert_ce_default_activation_function"),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}},
            "tanh",
            "config.json: sentence_transformers.activation_fn",
        ),
        (
            {
                "sbert_ce_default_activation_function": SIGMOID,
                "sentence_transformers": {"activation_fn": "torch.nn.Identity"},
            },
            "identity",
            "config.json: sentence_transformers.activation_fn",
        ),
    ],
)
def test_the_activation_is_that_of_the_files(
    files: dict[str, Any], activation: str, reason: str, tmp_path: Path
) -> None:
    export(write_reranker(tmp_path / "checkpoint", **files), tmp_path / "out")
    decided = read_manifest(tmp_path / "out").require_reranking().activation
    assert decided.value == activation
    assert reason in decided.reason
    with OnnxReranker(tmp_path / "out") as model:
        logits, scores = (model.score(QUERY, DOCUMENTS, raw_scores=raw) for raw in (True, False))
    functions: dict[str, Any] = {"sigmoid": lambda x: 1 / (1 + np.exp(-x)), "identity": lambda x: x, "tanh": np.tanh}
    np.testing.assert_allclose(scores, functions[activation](logits), atol=1e-6)


def test_the_activation_of_a_saved_cross_encoder_comes_first(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path / "checkpoint", IDENTITY, sbert_ce_default_activation_function=SIGMOID)
    export(folder, tmp_path / "out")
    decided = read_manifest(tmp_path / "out").require_reranking().activation
    assert (decided.value, decided.reason) == ("identity", "config_sentence_transformers.json: activation_fn")
    flagged = export(folder, tmp_path / "flag", Options(flags=Flags(activation="tanh")))
    assert flagged.require_reranking().activation.origin == "flag"


def test_an_unknown_activation_is_refused(tmp_path: Path) -> None:
    folder = write_reranker(tmp_path / "checkpoint", sentence_transformers={"activation_fn": "mine.Better"})
    with pytest.raises(UsageError, match=r"config.json: sentence_transformers.* is 'mine.Better'; known: .*--act"):
        export(folder, tmp_path / "out")


def test_an_exported_reranker_is_reexported_by_what_its_own_files_say(artifact: Path, model: OnnxReranker) -> None:
    """modules.json and its kind are written for others; they say the same."""
    from onnxembed.decisions.choose_task import choose_task
    from onnxembed.decisions.decide import decide
    from onnxembed.facts.facts import read_facts

    facts = read_facts(artifact)
    assert choose_task(facts, Flags(), None).reason == "config_sentence_transformers.json: model_type is CrossEncoder"
    again = decide(facts).reranking
    assert again is not None
    assert again.activation.value == "sigmoid"
    assert again.labels.value == model.labels


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"id2label": {"0": "a", "2": "b"}}, "id2label is .* not a name for each number"),
        ({"num_labels": 2}, "num_labels is 2, but id2label has 1"),
        ({"num_labels": "one"}, "num_labels is 'one', not a number"),
        (
            {"id2label": None, "num_labels": 2},
            r"classifier.weight has the shape \(1, 32\), but config.json says \(2, 32\)",
        ),
        ({"id2label": None}, r"config.json says \(2, 32\)"),
    ],
)
def test_labels_that_contradict_are_errors(config: dict[str, Any], named: str, tmp_path: Path) -> None:
    folder = write_reranker(tmp_path / "checkpoint")
    change_json(folder / "config.json", **config)
    with pytest.raises(ModelFilesError, match=named):
        export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_flags_of_the_other_task_are_errors(checkpoint: Path, tmp_path: Path) -> None:
    for flags in (Flags(pooling=("mean",)), Flags(normalize=True)):
        with pytest.raises(UsageError, match=r"is a reranker, and --pooling and --normalize are for emb.*; --task"):
            export(checkpoint, tmp_path / "out", Options(flags=flags))
    with pytest.raises(UsageError, match=r"--pooling-out is for embeddings"):
        export(checkpoint, tmp_path / "out", Options(pooling_out=True))
    folder = write_cross_encoder(tmp_path / "saved")
    with pytest.raises(UsageError, match=r"--task embedding: .*says that this is a CrossEncoder"):
        export(folder, tmp_path / "out", Options(flags=Flags(task="embedding")))


def test_prompts_of_a_cross_encoder_are_refused(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path / "checkpoint")
    change_json(folder / "config_sentence_transformers.json", prompts={"query": "to be: "})
    with pytest.raises(UsageError, match=r"has prompts \(query\), which onnxembed does not put before pairs"):
        export(folder, tmp_path / "out")


def test_a_chat_template_without_a_recipe_is_refused(tmp_path: Path) -> None:
    folder = write_reranker(tmp_path / "checkpoint")
    change_json(folder / "tokenizer_config.json", chat_template="{{ messages }}")
    with pytest.raises(ModelFilesError, match=r"chat template \(tokenizer_config.json: chat_template\).*--plain-pairs"):
        export(folder, tmp_path / "out")
    assert export(folder, tmp_path / "out", Options(flags=Flags(plain_pairs=True))).reranking


def test_a_plain_encoder_is_not_a_reranker(tmp_path: Path) -> None:
    from tiny import write_bert, write_sentence_bert

    with pytest.raises(ModelFilesError, match=r"architectures names BertModel, not a ...ForSequenceClassification"):
        export(write_bert(tmp_path / "plain"), tmp_path / "out", Options(flags=Flags(task="reranking")))
    with pytest.raises(UsageError, match=r"--task reranking: .*modules.json is that of an embedding model"):
        export(write_sentence_bert(tmp_path / "st"), tmp_path / "out", Options(flags=Flags(task="reranking")))


@pytest.mark.filterwarnings("ignore:Default prompt name")
def test_a_prompt_goes_before_the_query_as_in_sentence_transformers(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    folder = write_cross_encoder(tmp_path / "checkpoint")
    export(folder, tmp_path / "out")
    prompts = {"find": "to be ", "other": "as "}
    reference = library.CrossEncoder(str(folder), device="cpu", prompts=prompts, default_prompt_name="find")
    pairs = [("the cat", "a text"), ("a dog", "the cat")]
    with OnnxReranker(tmp_path / "out", prompts=prompts, default_prompt_name="find") as model:
        np.testing.assert_allclose(model.predict(pairs), reference.predict(pairs), atol=1e-5)
        named = model.predict(pairs, prompt_name="other")
        np.testing.assert_allclose(named, reference.predict(pairs, prompt_name="other"), atol=1e-5)
        given = [result.score for result in model.rank("the cat", ["a text", "a dog"], prompt="so ")]
        theirs = [result["score"] for result in reference.rank("the cat", ["a text", "a dog"], prompt="so ")]
        np.testing.assert_allclose(given, theirs, atol=1e-5)
        with pytest.raises(UsageError, match="no prompt named 'query'; it has: find, other"):
            model.predict(pairs, prompt_name="query")


def test_a_refusal_names_the_method_that_was_called(artifact: Path) -> None:
    with OnnxReranker(artifact) as model:
        for method in (model.predict, model.score_pairs):
            with pytest.raises(UsageError, match=f"^{method.__name__} does not take apply_softmax=True: raw_scores"):
                method([(QUERY, DOCUMENTS[0])], apply_softmax=True)  # type: ignore[call-arg]
        np.testing.assert_array_equal(
            model.predict([(QUERY, DOCUMENTS[0])], raw_scores=True),
            model.score_pairs([(QUERY, DOCUMENTS[0])], raw_scores=True),
        )
        with pytest.raises(AttributeError, match="OnnxReranker has no attribute 'encode': OnnxEmbedder opens"):
            _ = model.encode  # type: ignore[attr-defined]
