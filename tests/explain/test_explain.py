"""`explain`: each cause is injected through sentence-transformers, and must be named or left unexplained."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed import OnnxEmbedder, UsageError
from onnxembed.arrays import Array
from onnxembed.explain import Report, explain
from onnxembed.explain.hypotheses import Traits, hypotheses
from onnxembed.explain.report import causes_of
from onnxembed.explain.setup import Inputs, Pooled, Setup
from running import needs_torch
from tiny_embedders import texts_of_many_lengths

TEXTS = [
    *texts_of_many_lengths(16),
    "The CAT is On it",
    "a B c D",
    "to be or not to be that is the " * 3,
    "as they had it " * 12,
]

Encode = Callable[..., Array]


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Encode:
    """sentence-transformers' vectors of the texts, with other modules or options."""
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    def encode(pooling: str = "mean", *, normalize: bool = True, length: int = 20, **options: Any) -> Array:
        transformer = SentenceTransformer(str(checkpoint), device="cpu")[0]
        modules = [transformer, Pooling(32, pooling), *([Normalize()] if normalize else [])]
        model = SentenceTransformer(modules=modules, device="cpu")
        model.max_seq_length = length
        if side := options.get("side"):
            model.tokenizer.truncation_side = side
        vectors: Array = model.encode(TEXTS, prompt=options.get("prompt"), batch_size=64)
        return vectors

    return encode


def ours(model: OnnxEmbedder) -> Array:
    with warnings.catch_warnings(action="ignore"):  # texts are cut
        return model.encode(TEXTS)


def causes(report: Report) -> set[str]:
    return {cause.name for cause in report.causes}


@needs_torch
@pytest.mark.torch
@pytest.mark.parametrize(
    ("expected", "injected"),
    [
        ((), {}),
        (("normalization",), {"normalize": False}),
        (("pooling",), {"pooling": "cls"}),
        (("pooling",), {"pooling": "max"}),
        (("pooling",), {"pooling": "lasttoken"}),
        (("pooling",), {"pooling": "weightedmean"}),
        (("prompt",), {"prompt": "to be: "}),
        (("prompt",), {"prompt": "query: "}),
        (("truncation",), {"length": 11}),
        (("truncation",), {"length": 32}),
        (("truncation side",), {"side": "left"}),
        (("pooling", "normalization"), {"pooling": "cls", "normalize": False}),
        (("prompt", "pooling"), {"prompt": "of: ", "pooling": "max"}),
        (("truncation", "pooling"), {"length": 11, "pooling": "lasttoken"}),
    ],
    ids=str,
)
def test_a_cause_is_named(
    model: OnnxEmbedder, reference: Encode, expected: tuple[str, ...], injected: dict[str, Any]
) -> None:
    report = explain(model, TEXTS, reference(**injected))
    assert report.explained, report.verdict
    assert causes(report) == set(expected), report.verdict
    assert report.same is not bool(expected)
    assert min(row.after for row in report.rows) >= 0.9999


@needs_torch
@pytest.mark.torch
def test_cut_vectors_are_told_by_whether_they_were_scaled_again(model: OnnxEmbedder, reference: Encode) -> None:
    cut = reference()[:, :16]
    report = explain(model, TEXTS, cut / np.linalg.norm(cut, axis=1, keepdims=True))
    assert (report.explained, causes(report)) == (True, {"dimensions"})
    report = explain(model, TEXTS, cut)
    assert causes(report) == {"dimensions", "normalization"}
    assert {row.before for row in report.rows} == {None}
    assert "before they are cut, and not after" in report.verdict


@needs_torch
@pytest.mark.torch
def test_rows_in_another_order_and_another_length_are_told(model: OnnxEmbedder, reference: Encode) -> None:
    places = np.random.default_rng(0).permutation(len(TEXTS))
    assert causes(explain(model, TEXTS, reference()[places])) == {"order"}
    report = explain(model, TEXTS, 3 * reference())
    assert causes(report) == {"scale"}
    assert [row.before for row in report.rows] == pytest.approx([1.0] * len(TEXTS))


@needs_torch
@pytest.mark.torch
def test_rounded_vectors_are_a_band_and_no_cause(model: OnnxEmbedder, reference: Encode) -> None:
    report = explain(model, TEXTS, reference().astype(np.float16))
    assert report.same
    assert "rounding of fp32, of fp16 weights" in report.verdict


def test_another_model_is_unexplained(model: OnnxEmbedder) -> None:
    vectors = np.random.default_rng(0).normal(size=(len(TEXTS), 32))
    report = explain(model, TEXTS, vectors)
    assert (report.explained, report.same, report.causes) == (False, False, ())
    assert report.verdict.startswith("Unexplained. Best partial match: ")


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        (np.ones((3, 32)), "3 vectors and 20 texts"),
        (np.ones(20), r"the shape \(20,\)"),
        (np.full((20, 32), np.nan), "0 usable texts are too few .* NaN"),
        (np.zeros((20, 32)), "0 usable texts are too few .* are zero"),
        (np.ones((20, 40)), "40 numbers"),
        (np.full((20, 32), "a"), "not an array of numbers"),
    ],
)
def test_vectors_that_cannot_belong_to_the_texts_are_refused(model: OnnxEmbedder, vectors: Array, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        explain(model, TEXTS, vectors)


def test_broken_rows_are_left_out_and_said(model: OnnxEmbedder) -> None:
    vectors = ours(model)
    vectors[2], vectors[5] = np.nan, 0
    report = explain(model, TEXTS, vectors)
    assert (report.explained, report.same) == (True, False)  # a deployment that gives NaN is not as it should be
    assert report.verdict.startswith("2 vectors of theirs cannot be used")
    assert [row.index for row in report.rows] == [place for place in range(len(TEXTS)) if place not in (2, 5)]
    assert len([note for note in report.notes if "left out" in note]) == 2


def plain_transformers(checkpoint: Path, **injected: Any) -> Array:
    """Means of BertModel's tokens, as a careless program makes them: what `injected` names is done wrong."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    transformer = AutoModel.from_pretrained(checkpoint).eval()
    tokenizer.padding_side = injected.get("side", "right")
    specials = injected.get("specials", True)
    batch = tokenizer(
        TEXTS, padding=True, truncation=True, max_length=20, add_special_tokens=specials, return_tensors="pt"
    )
    if injected.get("types"):
        batch["token_type_ids"][:] = 1
    real = batch["attention_mask"].clone()
    if injected.get("unmasked"):
        batch["attention_mask"][:] = 1
    with torch.no_grad():
        tokens = transformer(**batch).last_hidden_state
    if injected.get("all_slots"):
        real[:] = 1
    means = (tokens * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1)
    vectors: Array = torch.nn.functional.normalize(means, dim=-1).numpy()
    return vectors


@needs_torch
@pytest.mark.torch
@pytest.mark.parametrize(
    ("expected", "injected"),
    [
        ("special tokens", {"specials": False}),
        ("token types", {"types": True}),
        ("padding", {"all_slots": True}),
        ("padding", {"unmasked": True}),
        ("padding", {"unmasked": True, "all_slots": True}),
        ("padding", {"side": "left"}),
    ],
    ids=str,
)
def test_a_careless_program_is_understood(
    model: OnnxEmbedder, checkpoint: Path, expected: str, injected: dict[str, bool]
) -> None:
    report = explain(model, TEXTS, plain_transformers(checkpoint, **injected))
    assert (report.explained, causes(report)) == (True, {expected}), report.verdict


def test_every_cause_has_fixes_whose_words_are_there(model: OnnxEmbedder) -> None:
    setup = Setup(Inputs("a: ", 20, "right"), Pooled(("mean",)))
    config = {"hidden_act": "gelu", "rope_theta": 1000.0}
    traits = Traits(config, dimension=8, layers=("dense",), words=("do not normalize",))
    for hypothesis in hypotheses(model.manifest, setup, traits):
        (cause,) = causes_of([hypothesis])
        assert cause.fixes


def with_masks(checkpoint: Path, **config: Any) -> Array:
    """Normalized means of BertModel's tokens, each text by itself; `causal`: with a mask of earlier tokens."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    causal, offset = config.pop("causal", False), config.pop("offset", 0)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    changed = AutoConfig.from_pretrained(checkpoint, **config)
    transformer = AutoModel.from_pretrained(checkpoint, config=changed, attn_implementation="eager").eval()
    vectors = []
    for text in TEXTS:
        batch = tokenizer(text, truncation=True, max_length=20, return_tensors="pt")
        length = batch["input_ids"].shape[1]
        if causal:
            earlier = torch.tril(torch.ones(1, 1, length, length))
            batch["attention_mask"] = torch.where(earlier > 0, 0.0, torch.finfo(torch.float32).min)
        with torch.no_grad():
            tokens = transformer(**batch, position_ids=torch.arange(length)[None] + offset).last_hidden_state
        vectors.append(torch.nn.functional.normalize(tokens.mean(1), dim=-1)[0].numpy())
    return np.stack(vectors)


@needs_torch
@pytest.mark.torch
@pytest.mark.parametrize(
    ("expected", "injected"),
    [("attention", {"causal": True}), ("positions", {"offset": 2}), ("positions", {"offset": 1})],
    ids=str,
)
def test_a_change_inside_the_encoder_is_named(
    model: OnnxEmbedder, checkpoint: Path, expected: str, injected: dict[str, Any]
) -> None:
    report = explain(model, TEXTS, with_masks(checkpoint, **injected))
    assert (report.explained, causes(report)) == (True, {expected}), report.verdict


def test_permuted_rows_are_told_among_more_texts_than_are_looked_at(model: OnnxEmbedder) -> None:
    texts = texts_of_many_lengths(90)
    vectors = model.encode(texts)
    places = np.random.default_rng(0).permutation(len(texts))
    assert causes(explain(model, texts, vectors[places])) == {"order"}
