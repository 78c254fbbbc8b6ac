"""BERT and its relatives against stock transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from parity import max_difference, random_checkpoint, transformers

# Odd sizes on purpose: heads of 12, an inner width that is no multiple, few layers.
SMALL = {"vocab_size": 99, "hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 70}
KIND: dict[str, dict[str, Any]] = {
    "bert": {**SMALL, "max_position_embeddings": 210},
    "roberta": {**SMALL, "max_position_embeddings": 230, "type_vocab_size": 1},
    "xlm-roberta": {**SMALL, "max_position_embeddings": 230, "pad_token_id": 1, "type_vocab_size": 1},
    "camembert": {**SMALL, "max_position_embeddings": 230, "type_vocab_size": 2, "hidden_act": "gelu_new"},
    "electra": {**SMALL, "embedding_size": 32, "max_position_embeddings": 210},
    "distilbert": {
        "vocab_size": 99,
        "dim": 48,
        "n_heads": 4,
        "n_layers": 3,
        "hidden_dim": 70,
        "max_position_embeddings": 210,
        "sinusoidal_pos_embds": True,
    },
}


@pytest.mark.torch
@pytest.mark.parametrize("model_type", KIND)
def test_equals_the_reference(model_type: str, tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model(model_type, **KIND[model_type])
    folder = random_checkpoint(tmp_path / "checkpoint", config)
    assert max_difference(folder, tmp_path) <= 5e-6


@pytest.mark.torch
@pytest.mark.parametrize("change", [{"hidden_act": "relu"}, {"hidden_act": "gelu_pytorch_tanh"}, {"type_vocab_size": 1}])
def test_equals_the_reference_with_other_settings(change: dict[str, Any], tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model("bert", **{**KIND["bert"], **change})
    folder = random_checkpoint(tmp_path / "checkpoint", config)
    assert max_difference(folder, tmp_path, ("mean",)) <= 5e-6
