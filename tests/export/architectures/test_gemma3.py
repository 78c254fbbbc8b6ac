"""Gemma 3's text model, embeddinggemma's architecture, against stock transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from onnxembed.errors import UnsupportedError
from onnxembed.export.pipeline import export
from onnxembed.facts.facts import read_facts
from onnxembed.manifest import AttentionMode
from onnxembed.verify.comparison import Comparison
from onnxembed.verify.verify import verify_against
from parity import (
    SMALL,
    Family,
    assert_half_precision_is_near,
    batch,
    count_layer,
    make_graph,
    max_difference,
    open_folder,
    run,
)
from tiny import change_json, write_json, write_tokenizer

pytestmark = pytest.mark.torch

# The values are up to 6, and each layer's four norms round what they magnify.
TOLERANCE = 1e-5

# A head_dim and a query scale that do not follow from the other sizes, and windows far shorter than the texts.
GEMMA3 = Family(
    "gemma3_text",
    {
        **SMALL,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "num_hidden_layers": 5,
        "head_dim": 20,
        "query_pre_attn_scalar": 30,
        "sliding_window": 13,
        "sliding_window_pattern": 3,
        "max_position_embeddings": 210,
    },
    std=0.1,
)
BIDIRECTIONAL: dict[str, Any] = {"use_bidirectional_attention": True}
LINEAR = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
LOCAL = {"rope_type": "default", "rope_theta": 300.0}

CHANGES: list[dict[str, Any]] = [
    {},
    {"sliding_window": 12},
    {"sliding_window": 1},
    {"head_dim": 16},
    {"head_dim": 16, "sliding_window": 90},
    {"attention_bias": True, "num_key_value_heads": 6},
    {"layer_types": ["full_attention"] * 5},
    {"layer_types": ["sliding_attention"] * 5},
    {"layer_types": ["full_attention", "sliding_attention"] * 2 + ["full_attention"]},
    {"rope_parameters": {"full_attention": LINEAR, "sliding_attention": LOCAL}},
    {"hidden_activation": "silu", "rms_norm_eps": 1e-3, "query_pre_attn_scalar": 256},
]

# A local layer's attention stands in the branches of its Ifs: in one piece, in blocks, or with a bias for every pair.
PER_LAYER = {
    "MatMul": 7,
    "Reshape": 14,
    "Expand": 2,
    "RMSNormalization": 4,
    "SkipSimplifiedLayerNormalization": 2,
    "RotaryEmbedding": 2,
    "FastGelu": 1,
    "Mul": 1,
    "MultiHeadAttention": 3,
    "If": 2,
    "Pad": 3,
    "Gather": 2,
    "Slice": 1,
}


def save(folder: Path, task: str = "AutoModel", **changes: Any) -> Path:
    """A random checkpoint whose norms multiply by about 1, as the others' do: they add 1 to their weights."""
    GEMMA3.save(folder, task, **changes)
    weights = load_file(folder / "model.safetensors")
    norms = {name: tensor - 1 for name, tensor in weights.items() if tensor.ndim == 1 and name.endswith("weight")}
    save_file({**weights, **norms}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


# ---- parity


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_equals_the_reference_when_bidirectional(change: dict[str, Any], tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoint", **{**BIDIRECTIONAL, **change})
    assert max_difference(folder, tmp_path) <= TOLERANCE


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_equals_the_reference_when_told_how_to_attend(
    change: dict[str, Any], attention: AttentionMode, tmp_path: Path
) -> None:
    folder = save(tmp_path / "checkpoint", **change)
    assert max_difference(folder, tmp_path, attention=attention) <= TOLERANCE


@pytest.mark.parametrize("task", ["AutoModelForCausalLM", "AutoModelForSequenceClassification"])
def test_takes_the_decoder_out_of_a_task_checkpoint(task: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoint", task, **BIDIRECTIONAL)
    assert max_difference(folder, tmp_path) <= TOLERANCE


def test_keys_of_earlier_releases_mean_the_same(tmp_path: Path) -> None:
    """Before transformers 5: two thetas and a pattern at the top level; rope_scaling affects only the global layers."""
    folder = save(tmp_path / "checkpoint", **BIDIRECTIONAL)
    change_json(
        folder / "config.json",
        layer_types=None,
        rope_parameters=None,
        sliding_window_pattern=2,
        rope_theta=5000,
        rope_local_base_freq=300,
        rope_scaling={"rope_type": "linear", "factor": 4.0},
    )
    assert max_difference(folder, tmp_path) <= TOLERANCE


def test_embeddinggemma_equals_sentence_transformers(shared_data: Path, tmp_path: Path) -> None:
    """The published config and modules, in a narrower shape, down to Dense, Dense and Normalize."""
    folder = tmp_path / "checkpoint"
    real = shared_data / "configs/embeddinggemma-300m"
    config = json.loads((real / "config.json").read_text(encoding="utf-8"))
    narrow = {"hidden_size": 48, "head_dim": 20, "intermediate_size": 70, "vocab_size": 99, "sliding_window": 33}
    config |= {**narrow, "num_hidden_layers": 7, "layer_types": config["layer_types"][:7]}
    save(folder, **{key: value for key, value in config.items() if key != "model_type"})
    write_json(folder / "config.json", config)
    assert max_difference(folder, tmp_path) <= TOLERANCE

    shutil.copytree(real / "1_Pooling", folder / "1_Pooling")
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        shutil.copy(real / name, folder)
    rng = np.random.default_rng(0)
    for name, (inside, outside) in {"2_Dense": (48, 90), "3_Dense": (90, 48)}.items():
        shutil.copytree(real / name, folder / name)
        change_json(folder / name / "config.json", in_features=inside, out_features=outside)
        weight = rng.normal(0, 0.1, (outside, inside)).astype(np.float32)
        save_file({"linear.weight": weight}, folder / name / "model.safetensors")
    change_json(folder / "1_Pooling/config.json", word_embedding_dimension=48)
    write_tokenizer(folder)
    change_json(folder / "sentence_bert_config.json", max_seq_length=100)
    verify = lambda draft, made, checkpoint: verify_against(Comparison(draft, made, checkpoint.folder))  # noqa: E731
    manifest = export(folder, tmp_path / "artifact", verify=verify)
    assert manifest.verification["fp32"].max_abs_diff <= TOLERANCE
    assert manifest.model.attention.value == "bidirectional"
    assert [(layer.in_features, layer.out_features) for layer in manifest.require_embedding().dense] == [
        (48, 90),
        (90, 48),
    ]
    assert manifest.require_embedding().normalize.value


# ---- who sees whom


@pytest.mark.parametrize(
    ("keys", "window", "behind", "ahead"),
    [
        ({}, 6, 5, 0),
        (BIDIRECTIONAL, 6, 3, 3),
        (BIDIRECTIONAL, 7, 3, 3),
        ({"is_causal": False}, 6, 6, 6),
    ],
)
def test_a_window_reaches_as_far_as_the_reference_says(
    keys: dict[str, Any], window: int, behind: int, ahead: int, tmp_path: Path
) -> None:
    folder = save(tmp_path / "checkpoint", num_hidden_layers=1, sliding_window=window)
    change_json(folder / "config.json", **keys)
    session = open_folder(folder, tmp_path)
    feeds = batch(read_facts(folder), (1, 20, None))
    before = run(session, "token_embeddings", feeds)
    feeds["input_ids"][0, 9] += 1
    moved = np.flatnonzero((run(session, "token_embeddings", feeds) != before).any(axis=2)[0])
    assert moved.tolist() == list(range(9 - ahead, 9 + behind + 1))


# ---- the graph


def test_a_layer_is_made_of_fused_operators_only(tmp_path: Path) -> None:
    layer, operators = count_layer(
        lambda n: save(tmp_path / str(n), **BIDIRECTIONAL, num_hidden_layers=n, sliding_window_pattern=2)
    )
    assert layer == PER_LAYER
    for unfused in ("Softmax", "Tanh", "Transpose", "Pow", "Sqrt"):
        assert unfused not in operators


def test_half_precision_gives_nearly_the_same_vectors(tmp_path: Path) -> None:
    assert_half_precision_is_near(save(tmp_path / "checkpoint", **BIDIRECTIONAL), tmp_path)


# ---- what is refused


@pytest.mark.parametrize(
    ("keys", "attention", "message"),
    [
        ({"attn_logit_softcapping": 50.0}, None, "attn_logit_softcapping"),
        ({"layer_types": ["chunked_attention"] * 5}, None, "chunked_attention"),
        ({"partial_rotary_factor": 0.5}, None, "partial_rotary_factor"),
        ({**BIDIRECTIONAL, "is_causal": False}, None, "is_causal"),
        (BIDIRECTIONAL, "causal", "use_bidirectional_attention"),
    ],
)
def test_an_unsupported_setting_is_refused_by_name(
    keys: dict[str, Any], attention: AttentionMode | None, message: str, tmp_path: Path
) -> None:
    folder = save(tmp_path / "checkpoint")
    change_json(folder / "config.json", **keys)
    with pytest.raises(UnsupportedError, match=message):
        make_graph(folder, attention=attention)
