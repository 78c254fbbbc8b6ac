"""`explain_scores`: each cause is injected through stock transformers, and must be named or left unexplained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed import OnnxReranker, UsageError
from onnxembed.arrays import Array
from onnxembed.explain import explain_scores
from onnxembed.export.pipeline import export
from running import needs_torch
from tiny_embedders import texts_of_many_lengths
from tiny_rerankers import write_cross_encoder

TEXTS = [*(text for text in texts_of_many_lengths(8) if text), "it was not that of them " * 12]
PAIRS = [("The Cat", text) for text in TEXTS] + [("to be", text.upper()) for text in TEXTS]
SHORT = [pair for pair in PAIRS if len(pair[1]) < 200]
"""Pairs that are not cut."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("reranker") / "checkpoint", max_position_embeddings=64)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Iterator[OnnxReranker]:
    export(checkpoint, checkpoint.parent / "onnx")
    with OnnxReranker(checkpoint.parent / "onnx", threads=1) as opened:
        yield opened


def stock(checkpoint: Path, pairs: Sequence[tuple[str, str]], **how: Any) -> Array:
    """The sigmoid of the logits of transformers' class; `how` says what is done otherwise."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    config = AutoConfig.from_pretrained(checkpoint, **how.get("config", {}))
    ranker = AutoModelForSequenceClassification.from_pretrained(checkpoint, config=config).eval()
    scores = []
    for query, document in pairs:
        first, second = (document, query) if how.get("swapped") else (query, document)
        texts = (f"{first} {second}",) if how.get("joined") else (first, second)
        batch = tokenizer(*texts, truncation=True, max_length=how.get("length", 64), return_tensors="pt")
        if how.get("untyped"):
            batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
        with torch.no_grad():
            logit = ranker(**batch).logits[0, 0]
        scores.append(float(logit if how.get("raw") else torch.sigmoid(logit)))
    return np.array(scores, np.float16 if how.get("half") else np.float32)


@needs_torch
@pytest.mark.torch
@pytest.mark.parametrize(
    ("causes", "how"),
    [
        ((), {}),
        (("activation of scores",), {"raw": True}),
        (("pair order",), {"swapped": True}),
        (("separator",), {"joined": True}),
        (("token types",), {"untyped": True}),
        (("truncation",), {"length": 32}),
        (("activation",), {"config": {"hidden_act": "gelu_pytorch_tanh"}}),
        (("pair order",), {"swapped": True, "half": True}),
        (("pair order", "activation of scores"), {"swapped": True, "raw": True}),
        (("token types", "activation of scores"), {"untyped": True, "raw": True}),
    ],
    ids=str,
)
def test_a_cause_is_named(model: OnnxReranker, checkpoint: Path, causes: tuple[str, ...], how: dict[str, Any]) -> None:
    report = explain_scores(model, PAIRS, stock(checkpoint, PAIRS, **how))
    assert report.explained, report.verdict
    assert report.same is (not causes)
    assert {cause.name for cause in report.causes} == set(causes)
    assert all(row.after < (2e-3 if how.get("half") else 2e-5) for row in report.rows)


@pytest.mark.filterwarnings("ignore:.* pairs? (was|were) longer")
def test_scores_of_another_model_are_unexplained(model: OnnxReranker, tmp_path: Path) -> None:
    export(write_cross_encoder(tmp_path / "other", seed=9), tmp_path / "onnx")
    with OnnxReranker(tmp_path / "onnx", threads=1) as other:
        report = explain_scores(model, PAIRS, other.score_pairs(PAIRS))
    assert not report.explained
    assert not report.causes
    assert "lower-case the texts" in report.unseen  # tokenizer.json does it already
    assert "lower-case the texts" not in [tried.changes for tried in report.ruled_out]
    assert report.verdict.startswith("Unexplained. Best partial match: if their scores ")


@pytest.mark.filterwarnings("ignore:.* pairs? (was|were) longer")
def test_a_change_that_needs_another_graph_is_listed_once_with_its_reason(
    model: OnnxReranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxembed.explain.analysis.find_spec", lambda name: None)
    report = explain_scores(model, PAIRS, 1 - model.score_pairs(PAIRS))
    (line,) = report.untested
    reason, _, changes = line.partition(" to build one: ")
    assert reason == "it needs another graph, and pip install 'onnxembed[export]'"
    assert changes.split("; ") == list(dict.fromkeys(changes.split("; ")))
    assert "let tokens see only earlier ones (causal)" in changes


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([0.5, 0.5], r"have the shape \(2,\), not one number for each of 3 pairs"),
        ([0.5, 0.25, np.nan], r"NaN or infinity: pairs\[2\].*2 usable pairs are too few"),
        (["a", "b", "c"], "not numbers"),
    ],
)
def test_scores_that_cannot_belong_to_the_pairs_are_refused(
    model: OnnxReranker, scores: list[float], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        explain_scores(model, PAIRS[:3], np.array(scores))


def test_two_pairs_are_too_few(model: OnnxReranker) -> None:
    with pytest.raises(UsageError, match="2 usable pairs are too few to tell a cause: give at least 3"):
        explain_scores(model, PAIRS[:2], np.array([0.5, 0.25]))


def test_scores_in_another_order_are_told(model: OnnxReranker) -> None:
    scores = model.predict(SHORT)
    report = explain_scores(model, SHORT, scores[np.random.default_rng(0).permutation(len(scores))])
    assert ([cause.name for cause in report.causes], report.explained) == (["order"], True), report.verdict
    ranked = explain_scores(model, SHORT, np.sort(scores)[::-1])
    assert "in the order of their ranks, the best first" in ranked.verdict
    logits = np.sort(np.log(scores / (1 - scores)))
    both = explain_scores(model, SHORT, logits)
    assert {cause.name for cause in both.causes} == {"order", "activation of scores"}, both.verdict


def test_scores_that_are_no_numbers_are_left_out_and_said(model: OnnxReranker) -> None:
    scores = model.predict(SHORT)
    scores[[1, 4]] = np.nan
    report = explain_scores(model, SHORT, scores)
    assert (report.explained, report.same) == (True, False)
    assert report.verdict.startswith(
        "2 scores of theirs cannot be used (NaN or infinity: pairs[1, 4]). Of the others: "
    )
    assert [row.index for row in report.rows] == [place for place in range(len(SHORT)) if place not in (1, 4)]


def test_two_scores_that_are_exchanged_show_no_order(model: OnnxReranker) -> None:
    pairs = [SHORT[0], SHORT[0], SHORT[0], SHORT[-1]]
    scores = model.predict(pairs)
    assert abs(scores[0] - scores[-1]) > 0.01
    report = explain_scores(model, pairs, scores[::-1])
    assert (report.explained, report.causes) == (False, ()), report.verdict
