"""Classification heads against transformers' own classes, at every shape, for one label and for several."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from onnxembed.decisions.decide import Decisions, decide
from onnxembed.errors import ModelFilesError, OnnxEmbedError, UnsupportedError
from onnxembed.export.architectures import ARCHITECTURES
from onnxembed.export.build_graph import build
from onnxembed.export.plan import Options, make_plan
from onnxembed.facts.facts import read_facts
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.manifest import Decision, Form, Precision, graph_file
from parity import SHAPES, batch, load_reference, open_graph, run, stock_checkpoint, torch
from portable import check_portable
from tiny import change_json, write_json

pytestmark = pytest.mark.torch

TOLERANCE = 1e-5
TASK = "AutoModelForSequenceClassification"

ENCODER: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 70,
    "max_position_embeddings": 230,
}
DECODER: dict[str, Any] = {**ENCODER, "num_key_value_heads": 2, "pad_token_id": 3}
DISTILBERT: dict[str, Any] = {
    "vocab_size": 99,
    "dim": 48,
    "n_heads": 4,
    "n_layers": 2,
    "hidden_dim": 70,
    "max_position_embeddings": 210,
}
SPECIALS = {"pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2}
MODERNBERT: dict[str, Any] = {**ENCODER, **SPECIALS, "local_attention": 12, "cls_token_id": 1, "sep_token_id": 2}
EUROBERT: dict[str, Any] = {**DECODER, **SPECIALS, "mask_token_id": 4}

CASES: list[tuple[str, dict[str, Any]]] = [
    ("bert", ENCODER),
    ("roberta", {**ENCODER, "type_vocab_size": 1}),
    ("xlm-roberta", {**ENCODER, "pad_token_id": 1, "type_vocab_size": 1}),
    ("camembert", ENCODER),
    ("electra", {**ENCODER, "embedding_size": 32}),
    ("distilbert", DISTILBERT),
    ("mpnet", ENCODER),
    ("gte", {**ENCODER, "pad_token_id": 0}),
    ("nomic_bert", ENCODER),
    ("jina_embeddings_v3", {**ENCODER, "pad_token_id": 1, "type_vocab_size": 1}),
    *[("modernbert", {**MODERNBERT, "classifier_pooling": pooling}) for pooling in ("cls", "mean")],
    ("modernbert", {**MODERNBERT, "classifier_bias": True, "norm_bias": True, "classifier_activation": "relu"}),
    *[("eurobert", {**EUROBERT, "classifier_pooling": pooling}) for pooling in ("bos", "mean", "late")],
    ("llama", DECODER),
    ("mistral", {**DECODER, "sliding_window": 11}),
    ("qwen2", DECODER),
    ("qwen3", {**DECODER, "head_dim": 20}),
    ("gemma3_text", {**DECODER, "head_dim": 16, "sliding_window": 11, "query_pre_attn_scalar": 16}),
]

# One of each family.
CONFIGS = dict(reversed(CASES))

# The class's head on hidden states whose first token stands in slot 0, of models whose positions padding moves.
Head = Callable[[Any, Any], Any]
HEADS: dict[str, Head] = {
    "bert": lambda model, hidden: model.classifier(model.bert.pooler(hidden)),
    "electra": lambda model, hidden: model.classifier(hidden),
    "distilbert": lambda model, hidden: model.classifier(torch.relu(model.pre_classifier(hidden[:, 0]))),
}


def reranker(folder: Path, model_type: str, labels: int = 1, **config: Any) -> Path:
    """A random checkpoint of the family's ...ForSequenceClassification."""
    return stock_checkpoint(folder, model_type, {**config, "num_labels": labels}, task=TASK)


def session(
    folder: Path,
    workdir: Path,
    precision: Precision = "fp32",
    decisions: Decisions | None = None,
    form: Form = "fused",
) -> onnxruntime.InferenceSession:
    plan = make_plan(read_facts(folder), None, Options(form=form))
    plan = plan if decisions is None else replace(plan, decisions=decisions)
    return open_graph(build(plan, precision), workdir, precision)


def expected(model: Any, model_type: str, feeds: dict[str, NDArray[np.int64]], types: bool) -> NDArray[np.float32]:
    """The class's own logits; if it would read a padded slot, those of the row alone, or of its head."""
    tensors = {name: torch.from_numpy(value) for name, value in feeds.items() if types or name != "token_type_ids"}
    mask = feeds["attention_mask"]
    with torch.no_grad():
        if mask[:, 0].all() or MODEL_TYPES[model_type].decoder:
            return np.asarray(model(**tensors).logits)
        if model_type in HEADS:
            hidden = model.base_model(**tensors).last_hidden_state
            rolled = [row.roll(-int(first), 0) for row, first in zip(hidden, mask.argmax(axis=1), strict=True)]
            return np.asarray(HEADS[model_type](model, torch.stack(rolled)))
        rows = [{name: value[[row]][:, mask[row] == 1] for name, value in tensors.items()} for row in range(len(mask))]
        return np.concatenate([model(**row).logits for row in rows])


@pytest.mark.parametrize(("model_type", "config"), CASES)
@pytest.mark.parametrize(("labels", "form"), [(1, "fused"), (2, "fused"), (5, "fused"), (2, "portable")])
def test_equals_the_reference(model_type: str, config: dict[str, Any], labels: int, form: Form, tmp_path: Path) -> None:
    folder = reranker(tmp_path / "checkpoint", model_type, labels, **config)
    model, ours = load_reference(folder, TASK), session(folder, tmp_path, form=form)
    if form == "portable":
        check_portable(tmp_path / graph_file("fp32"))
    types = "token_type_ids" in {value.name for value in ours.get_inputs()}
    facts = read_facts(folder)
    for shape in SHAPES:
        feeds = batch(facts, shape)
        logits, theirs = run(ours, "logits", feeds), expected(model, model_type, feeds, types)
        assert logits.shape == (shape[0], labels)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, theirs, rtol=0, atol=TOLERANCE, err_msg=str(shape))


def test_every_family_is_compared() -> None:
    traced = {"albert", "deberta-v2"}  # below
    named_by_another = {"new"}
    classifiers = {model_type for model_type, architecture in ARCHITECTURES.items() if architecture.classifier}
    assert {model_type for model_type, _ in CASES} == classifiers - traced - named_by_another


def test_a_new_model_has_the_head_of_its_original_code(tmp_path: Path) -> None:
    """NewForSequenceClassification: tensors of gte's layout under its own prefix, and the same head."""
    folder = reranker(tmp_path / "checkpoint", "gte", **ENCODER, pad_token_id=0)
    model = load_reference(folder, TASK)
    weights = load_file(folder / "model.safetensors")
    renamed = {name.replace("gte.", "new.", 1): tensor for name, tensor in weights.items()}
    save_file(renamed, folder / "model.safetensors")
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    theta = values.pop("rope_parameters")["rope_theta"]
    write_json(
        folder / "config.json",
        {**values, "model_type": "new", "architectures": ["NewForSequenceClassification"], "rope_theta": theta},
    )
    feeds = batch(read_facts(folder), (3, 17, "right"))
    logits = run(session(folder, tmp_path), "logits", feeds)
    np.testing.assert_allclose(logits, expected(model, "gte", feeds, types=False), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        ("albert", {**ENCODER, "embedding_size": 20}),
        ("deberta-v2", {**ENCODER, "relative_attention": True, "position_buckets": 16, "pos_att_type": ["p2c", "c2p"]}),
    ],
)
def test_a_traced_encoder_gets_its_head_too(model_type: str, config: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="traces; needs the [torch] extra")
    folder = reranker(tmp_path / "checkpoint", model_type, **config)
    model, ours = load_reference(folder, TASK), session(folder, tmp_path)
    for shape in [(1, 7, None), (3, 17, "right")]:
        feeds = batch(read_facts(folder), shape)
        types = "token_type_ids" in {value.name for value in ours.get_inputs()}
        theirs = expected(model, model_type, feeds, types)
        np.testing.assert_allclose(run(ours, "logits", feeds), theirs, rtol=0, atol=TOLERANCE)


def test_modernbert_reads_what_its_config_says(tmp_path: Path) -> None:
    """The founding case: a server that read the first token of a model made for the mean ranked wrongly."""
    folder = reranker(tmp_path / "checkpoint", "modernbert", **MODERNBERT, classifier_pooling="mean")
    feeds = batch(read_facts(folder), (5, 40, None))
    model, right = load_reference(folder, TASK), run(session(folder, tmp_path), "logits", feeds)
    np.testing.assert_allclose(right, expected(model, "modernbert", feeds, types=False), rtol=0, atol=TOLERANCE)
    decisions = decide(read_facts(folder))
    assert decisions.reranking is not None
    assert decisions.reranking.pooling == Decision("mean", "file", "config.json: classifier_pooling is mean")
    first = replace(decisions.reranking, pooling=Decision("cls", "flag", "a test"))
    wrong = run(session(folder, tmp_path, decisions=replace(decisions, reranking=first)), "logits", feeds)
    assert np.abs(wrong - right).max() > 0.01


def test_a_decoder_reads_the_token_before_an_end_that_is_its_pad_token(tmp_path: Path) -> None:
    """Wherever the pad token stands at the end: transformers looks for it in the ids, not in the mask."""
    folder = reranker(tmp_path / "checkpoint", "qwen2", **DECODER)
    feeds = batch(read_facts(folder), (3, 9, None))
    feeds["input_ids"][:, -2:] = DECODER["pad_token_id"]
    feeds["input_ids"][2] = DECODER["pad_token_id"]
    model, logits = load_reference(folder, TASK), run(session(folder, tmp_path), "logits", feeds)
    np.testing.assert_allclose(logits, expected(model, "qwen2", feeds, types=False), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("model_type", ["bert", "modernbert", "qwen2"])
def test_fp16_is_near(model_type: str, tmp_path: Path) -> None:
    folder = reranker(tmp_path / "checkpoint", model_type, 2, **CONFIGS[model_type])
    feeds = batch(read_facts(folder), (3, 17, "right"))
    exact, near = (run(session(folder, tmp_path, precision), "logits", feeds) for precision in ("fp32", "fp16"))
    assert near.dtype == np.float32
    np.testing.assert_allclose(near, exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("model_type", "change", "error", "named"),
    [
        ("bert", {"classifier.weight": None}, ModelFilesError, "no tensor classifier.weight"),
        ("bert", {"classifier.weight": (1, 47)}, ModelFilesError, r"classifier.weight has the shape \(1, 47\)"),
        ("bert", {"classifier.weight": (3, 48)}, ModelFilesError, r"\(3, 48\), but config.json says \(1, 48\)"),
        ("bert", {"bert.pooler.dense.weight": None}, ModelFilesError, "no tensor pooler.dense.weight"),
        (
            "roberta",
            {"classifier.dense.weight": (48, 40)},
            ModelFilesError,
            r"dense.weight has .*\(48, 40\)",
        ),
        ("modernbert", {"head.dense.bias": (48,)}, UnsupportedError, "head.dense.bias.*does not use"),
        ("qwen2", {"score.bias": (1,)}, UnsupportedError, "score.bias.*does not use"),
        ("qwen2", {"score.weight": None}, ModelFilesError, "no tensor score.weight"),
    ],
)
def test_a_tensor_unknown_to_the_class_of_the_head_is_named(
    model_type: str, change: dict[str, Any], error: type[OnnxEmbedError], named: str, tmp_path: Path
) -> None:
    folder = reranker(tmp_path / "checkpoint", model_type, **CONFIGS[model_type])
    weights = load_file(folder / "model.safetensors")
    for name, shape in change.items():
        weights.pop(name, None)
        if shape is not None:
            weights[name] = np.zeros(shape, np.float32)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(error, match=named):
        session(folder, tmp_path)


def test_labels_that_the_weights_do_not_have_are_an_error(tmp_path: Path) -> None:
    folder = reranker(tmp_path / "checkpoint", "bert", 2, **ENCODER)
    change_json(folder / "config.json", id2label={"0": "a", "1": "b", "2": "c"})
    with pytest.raises(ModelFilesError, match=r"classifier.weight .*\(2, 48\), but .* \(3, 48\).*id2label"):
        session(folder, tmp_path)


def test_a_family_without_a_known_head_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = reranker(tmp_path / "checkpoint", "bert", **ENCODER)
    monkeypatch.setitem(ARCHITECTURES, "bert", replace(ARCHITECTURES["bert"], classifier=None))
    with pytest.raises(UnsupportedError, match=r"classification head of bert; known: albert"):
        session(folder, tmp_path)
