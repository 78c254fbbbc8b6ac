"""EuroBERT against stock transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onnxembed.errors import ModelFilesError, UnsupportedError, UsageError
from onnxembed.manifest import Precision
from parity import SMALL, Family, assert_half_precision_is_near, make_graph, max_difference
from tiny import change_json

pytestmark = pytest.mark.torch

# The sums of a pre-norm model grow from layer to layer, and their rounding with them.
TOLERANCE = 1e-5
EUROBERT = Family(
    "eurobert",
    {
        **SMALL,
        "num_key_value_heads": 2,
        "head_dim": 10,  # not hidden_size / heads
        "max_position_embeddings": 210,
        "pad_token_id": 3,
        "bos_token_id": 1,
        "eos_token_id": 3,
        "mask_token_id": 4,
    },
)

# Attention stands in both branches of its If, one of which runs; keys and values are repeated for their groups.
PER_LAYER = {
    "MatMul": 7,
    "RotaryEmbedding": 2,
    "MultiHeadAttention": 2,
    "If": 1,
    "QuickGelu": 1,
    "Mul": 1,
    "SkipSimplifiedLayerNormalization": 2,
    "Reshape": 4,
    "Expand": 2,
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1},
        {"rms_norm_eps": 1e-2},
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 250_000.0}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 70.0, "factor": 3.0}},
    ],
    ids=str,
)
def test_equals_the_reference(change: dict[str, Any], tmp_path: Path) -> None:
    assert max_difference(EUROBERT.save(tmp_path / "checkpoint", **change), tmp_path) <= TOLERANCE


def test_a_config_of_the_first_generation_equals_the_reference(tmp_path: Path) -> None:
    folder = EUROBERT.save(tmp_path / "checkpoint", rope_parameters={"rope_type": "default", "rope_theta": 900.0})
    older = {"rope_theta": 900, "clf_pooling": "late", "mask_token": "<|mask|>", "pad_token": "<|end_of_text|>"}
    change_json(folder / "config.json", rope_parameters=None, classifier_pooling=None, **older)
    assert max_difference(folder, tmp_path) <= TOLERANCE


@pytest.mark.parametrize("task", ["AutoModelForSequenceClassification", "AutoModelForMaskedLM"])
def test_takes_the_encoder_out_of_a_task_checkpoint(task: str, tmp_path: Path) -> None:
    assert max_difference(EUROBERT.save(tmp_path / "checkpoint", task), tmp_path) <= TOLERANCE


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_layer_is_made_of_fused_operators_only(precision: Precision, tmp_path: Path) -> None:
    layer, operators = EUROBERT.count_layer(tmp_path, precision)
    assert layer == PER_LAYER
    assert operators["RMSNormalization"] == 1


def test_half_precision_gives_nearly_the_same_vectors(tmp_path: Path) -> None:
    assert_half_precision_is_near(EUROBERT.save(tmp_path / "checkpoint"), tmp_path)


def test_an_unsupported_setting_is_refused_by_name(tmp_path: Path) -> None:
    folder = EUROBERT.save(tmp_path / "checkpoint")
    with pytest.raises(UsageError, match="always bidirectional"):
        make_graph(folder, attention="causal")
    change_json(folder / "config.json", sliding_window=7)
    with pytest.raises(UnsupportedError, match="sliding_window"):
        make_graph(folder)
    change_json(folder / "config.json", sliding_window=None, rms_norm_eps=None)
    with pytest.raises(ModelFilesError, match="rms_norm_eps"):
        make_graph(folder)
