"""ModernBERT against stock transformers, its local attention windows in particular."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed.decisions.decide import decide
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.facts.facts import read_facts
from onnxembed.manifest import Precision
from parity import (
    SMALL,
    Family,
    assert_half_precision_is_near,
    make_graph,
    max_difference,
    open_folder,
    run,
)
from tiny import change_json, write_json

pytestmark = pytest.mark.torch

# The sums of a pre-norm model grow from layer to layer: against float64, the reference itself is off by 6e-6.
TOLERANCE = 1e-5
LAYERS = 5
MODERNBERT = Family(
    "modernbert",
    {
        **SMALL,
        "hidden_size": 40,
        "num_hidden_layers": LAYERS,
        "max_position_embeddings": 64,  # shorter than the longest text
        "local_attention": 12,  # shorter than most
        "pad_token_id": 3,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    },
)
FULL, SLIDING = "full_attention", "sliding_attention"

# Attention stands in the branches of its Ifs: in one piece, in blocks, or with a bias for every pair.
PER_LAYER = {
    "MatMul": 7,
    "RotaryEmbedding": 2,
    "MultiHeadAttention": 3,
    "If": 2,
    "Pad": 3,
    "Reshape": 6,
    "Gather": 2,
    "Slice": 1,
    "Gelu": 1,
    "Mul": 1,
    "Add": 2,
    "LayerNormalization": 2,
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"norm_bias": True},
        {"attention_bias": True, "mlp_bias": True, "norm_bias": True},
        {"norm_eps": 1e-2},
        {"hidden_activation": "silu"},
        {"global_attn_every_n_layers": 2},
        {"global_attn_every_n_layers": 1},
        {"layer_types": [SLIDING, FULL, FULL, SLIDING, SLIDING]},
        {"layer_types": [SLIDING] * LAYERS},
        {"local_attention": 13},
        {"local_attention": 2},
        {"local_attention": 1},
        {"local_attention": 128},
        {"global_rope_theta": 500.0, "local_rope_theta": 77.0},
        {
            "rope_parameters": {
                FULL: {"rope_type": "linear", "rope_theta": 99.0, "factor": 3.0},
                SLIDING: {"rope_type": "default", "rope_theta": 7.0},
            }
        },
    ],
    ids=str,
)
def test_equals_the_reference(change: dict[str, Any], tmp_path: Path) -> None:
    assert max_difference(MODERNBERT.save(tmp_path / "checkpoint", **change), tmp_path) <= TOLERANCE


def test_thetas_default_to_those_of_the_reference(tmp_path: Path) -> None:
    folder = MODERNBERT.save(tmp_path / "checkpoint")
    change_json(folder / "config.json", rope_parameters=None)
    assert max_difference(folder, tmp_path) <= TOLERANCE


@pytest.mark.parametrize(
    "published",
    ["modernbert/model_config_from_modernbert.c.json", "gte-reranker-modernbert-base/config.json"],
)
def test_a_config_of_the_first_generation_equals_the_reference(
    shared_data: Path, published: str, tmp_path: Path
) -> None:
    """Published keys, with the sizes and thetas of a tiny model."""
    folder = MODERNBERT.save(tmp_path / "checkpoint")
    values = json.loads((shared_data / "configs" / published).read_text())
    small = {
        **MODERNBERT.config,
        "global_rope_theta": 900.0,
        "local_rope_theta": 30.0,
        "architectures": ["ModernBertModel"],
    }
    write_json(folder / "config.json", {**values, **small})
    assert max_difference(folder, tmp_path) <= TOLERANCE


def test_a_window_without_a_theta_of_its_own_turns_as_the_other_layers_do(tmp_path: Path) -> None:
    folder = MODERNBERT.save(tmp_path / "checkpoint")
    change_json(folder / "config.json", rope_parameters=None)
    values = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**values, "global_rope_theta": 900.0, "local_rope_theta": None})
    weights = make_graph(folder).initializers
    full, sliding = (weights[f"{kind}.inv_freq"].read() for kind in (FULL, SLIDING))
    np.testing.assert_array_equal(full, sliding)


@pytest.mark.parametrize("task", ["AutoModelForSequenceClassification", "AutoModelForMaskedLM"])
def test_takes_the_encoder_out_of_a_task_checkpoint(task: str, tmp_path: Path) -> None:
    assert max_difference(MODERNBERT.save(tmp_path / "checkpoint", task), tmp_path) <= TOLERANCE


@pytest.mark.parametrize(("layers", "seen"), [(1, 6), (2, 12)])
def test_a_token_sees_half_the_window_on_each_side(layers: int, seen: int, tmp_path: Path) -> None:
    folder = MODERNBERT.save(tmp_path / "checkpoint", num_hidden_layers=layers, layer_types=[SLIDING] * layers)
    session = open_folder(folder, tmp_path)
    ids = np.full((1, 60), 8)
    other = ids.copy()
    other[0, 30] = 9
    states = [
        run(session, "token_embeddings", {"input_ids": sequence, "attention_mask": np.ones_like(ids)})
        for sequence in (ids, other)
    ]
    moved = np.flatnonzero(np.abs(states[0] - states[1]).max(axis=2)[0])
    assert (moved.min(), moved.max()) == (30 - seen, 30 + seen)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_layer_is_made_of_fused_operators_only(precision: Precision, tmp_path: Path) -> None:
    layer, operators = MODERNBERT.count_layer(tmp_path, precision)
    assert layer == PER_LAYER
    for unfused in ("Softmax", "Erf", "Transpose", "Split", "Expand"):
        assert unfused not in operators
    assert operators["LayerNormalization"] == 1 + 2 * 3


def test_windows_and_tables_are_made_once_and_only_for_layers_that_have_them(tmp_path: Path) -> None:
    with_window = make_graph(MODERNBERT.save(tmp_path / "both")).operators()
    without = make_graph(MODERNBERT.save(tmp_path / "full", global_attn_every_n_layers=1)).operators()
    assert (with_window["Cos"], without["Cos"]) == (2, 1)
    assert (with_window["Where"], without.get("Where")) == (1, None)


def test_half_precision_gives_nearly_the_same_vectors(tmp_path: Path) -> None:
    assert_half_precision_is_near(MODERNBERT.save(tmp_path / "checkpoint"), tmp_path)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"hidden_activation": "laplace"}, "laplace"),
        ({"layer_types": ["chunked_attention"] * LAYERS}, "layer_types"),
        ({"layer_types": [FULL]}, "layer_types"),
        ({"rope_parameters": {FULL: {"rope_type": "ntk"}}}, "ntk"),
        ({"rope_parameters": {SLIDING: {"rope_type": "dynamic", "factor": 2.0}}}, "dynamic"),
        ({"query_scale": 2}, "query_scale"),
    ],
    ids=str,
)
def test_an_unsupported_setting_is_refused_by_name(change: dict[str, Any], key: str, tmp_path: Path) -> None:
    folder = MODERNBERT.save(tmp_path / "checkpoint")
    change_json(folder / "config.json", **change)
    with pytest.raises(UnsupportedError, match=key):
        make_graph(folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"num_attention_heads": 3}, "3 heads"), ({"intermediate_size": 71}, "intermediate_size")],
    ids=str,
)
def test_a_config_that_contradicts_the_weights_is_an_error(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    folder = MODERNBERT.save(tmp_path / "checkpoint")
    change_json(folder / "config.json", **change)
    with pytest.raises(ModelFilesError, match=named):
        make_graph(folder)


def test_max_length_may_be_longer_than_the_model_was_made_for(shared_data: Path, tmp_path: Path) -> None:
    folder = MODERNBERT.save(tmp_path / "checkpoint")
    shutil.copyfile(shared_data / "configs/modernbert/tokenizer_config.json", folder / "tokenizer_config.json")
    flags = Flags(pooling=("cls",), normalize=True)
    assert decide(read_facts(folder), flags).encoder.max_length.value == 64
    assert decide(read_facts(folder), replace(flags, max_length=200)).encoder.max_length.value == 200
