"""BERT and its relatives against stock transformers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed import OnnxEmbedder
from onnxembed.export.pipeline import export
from parity import SMALL, Family, max_difference, stock_checkpoint
from tiny import write_json

TOLERANCE = 5e-6

FAMILIES = {
    family.model_type: family
    for family in (
        Family("bert", {**SMALL, "max_position_embeddings": 210}),
        Family("roberta", {**SMALL, "max_position_embeddings": 230, "type_vocab_size": 1}),
        Family("xlm-roberta", {**SMALL, "max_position_embeddings": 230, "pad_token_id": 1, "type_vocab_size": 1}),
        Family("camembert", {**SMALL, "max_position_embeddings": 230, "type_vocab_size": 2, "hidden_act": "gelu_new"}),
        Family("electra", {**SMALL, "embedding_size": 32, "max_position_embeddings": 210}),
        Family(
            "distilbert",
            {
                "vocab_size": 99,
                "dim": 48,
                "n_heads": 4,
                "n_layers": 3,
                "hidden_dim": 70,
                "max_position_embeddings": 210,
                "sinusoidal_pos_embds": True,
            },
            layers_key="n_layers",
        ),
    )
}

# What a family's config may say differently.
CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("bert", {"hidden_act": "relu"}),
    ("bert", {"hidden_act": "gelu_new"}),
    ("bert", {"hidden_act": "gelu_fast"}),
    ("bert", {"hidden_act": "gelu_pytorch_tanh"}),
    ("bert", {"hidden_act": "quick_gelu"}),
    ("bert", {"hidden_act": "tanh"}),
    ("bert", {"type_vocab_size": 1}),
    ("bert", {"layer_norm_eps": 1e-2}),
    ("bert", {"num_attention_heads": 1}),
    ("bert", {"pad_token_id": 7}),
    ("roberta", {"pad_token_id": 4}),
    ("roberta", {"type_vocab_size": 2}),
    ("camembert", {"type_vocab_size": 1, "hidden_act": "gelu"}),
    ("electra", {"embedding_size": 48}),
    ("electra", {"embedding_size": 64}),
    ("distilbert", {"activation": "relu", "sinusoidal_pos_embds": False}),
]

# What a checkpoint of a task class has around the encoder: a prefix, heads, sometimes no pooler.
TASKS = [
    ("bert", "AutoModelForMaskedLM"),
    ("roberta", "AutoModelForSequenceClassification"),
    ("xlm-roberta", "AutoModelForQuestionAnswering"),
    ("camembert", "AutoModelForTokenClassification"),
    ("electra", "AutoModelForPreTraining"),
    ("distilbert", "AutoModelForMaskedLM"),
]

# Attention stands in both branches of its If; one of them runs.
PER_LAYER = {"MatMul": 6, "Add": 4, "MultiHeadAttention": 2, "If": 1, "LayerNormalization": 2}
ACTIVATION = {"camembert": {"FastGelu": 1}}


@pytest.mark.torch
@pytest.mark.parametrize("model_type", FAMILIES)
def test_equals_the_reference(model_type: str, tmp_path: Path) -> None:
    assert max_difference(FAMILIES[model_type].save(tmp_path / "checkpoint"), tmp_path) <= TOLERANCE


@pytest.mark.torch
@pytest.mark.parametrize(("model_type", "change"), CHANGES, ids=str)
def test_equals_the_reference_with_other_settings(model_type: str, change: dict[str, Any], tmp_path: Path) -> None:
    assert max_difference(FAMILIES[model_type].save(tmp_path / "checkpoint", **change), tmp_path) <= TOLERANCE


@pytest.mark.torch
@pytest.mark.parametrize(("model_type", "task"), TASKS)
def test_takes_the_encoder_out_of_a_task_checkpoint(model_type: str, task: str, tmp_path: Path) -> None:
    assert max_difference(FAMILIES[model_type].save(tmp_path / "checkpoint", task), tmp_path) <= TOLERANCE


@pytest.mark.torch
@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_layer_is_made_of_fused_operators_only(model_type: str, tmp_path: Path) -> None:
    layer, _ = FAMILIES[model_type].count_layer(tmp_path)
    assert layer == {**PER_LAYER, **ACTIVATION.get(model_type, {"BiasGelu": 1})}


@pytest.mark.torch
def test_multilingual_sentences_end_to_end(shared_data: Path, tmp_path: Path) -> None:
    """XLM-R's real tokenizer on a tiny model: text in, vectors out, beside sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    config = {
        "vocab_size": 250002,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 514,
        "pad_token_id": 1,
        "type_vocab_size": 1,
    }
    folder = stock_checkpoint(tmp_path / "checkpoint", "xlm-roberta", config)
    shutil.copy(shared_data / "configs/xlm-roberta/tokenizer.json", folder)
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 512, "pad_token": "<pad>"},
    )
    kinds = ("Transformer", "Pooling", "Normalize")
    write_json(
        folder / "modules.json",
        [
            {
                "idx": i,
                "name": str(i),
                "path": f"{i}_{kind}" if i else "",
                "type": f"sentence_transformers.models.{kind}",
            }
            for i, kind in enumerate(kinds)
        ],
    )
    write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 40, "do_lower_case": False})

    files = sorted((shared_data / "text/tatoeba").glob("tatoeba.*-*"))
    lines = [file.read_text(encoding="utf-8").splitlines()[:7] for file in files]
    sentences = [sentence for group in zip(*lines, strict=True) for sentence in group]
    texts = [*sentences[:89], *(" ".join(sentences[i : i + 8]) for i in range(9)), "", "a <pad> in a text"]

    export(folder, tmp_path / "artifact")
    reference = SentenceTransformer(str(folder), device="cpu", model_kwargs={"attn_implementation": "eager"})
    expected = reference.encode(texts, batch_size=8)
    with OnnxEmbedder(tmp_path / "artifact", providers="cpu") as model, pytest.warns(UserWarning, match="cut"):
        actual = model.encode(texts)
    assert len(texts) == 100
    assert np.abs(actual - expected).max() <= TOLERANCE
