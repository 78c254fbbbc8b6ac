"""Llama, Mistral, Qwen2 and Qwen3 against stock transformers, causal and bidirectional."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from onnxembed import OnnxEmbedder
from onnxembed.cli import cli
from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.facts.facts import read_facts
from onnxembed.manifest import AttentionMode, read_manifest
from parity import (
    SMALL,
    Family,
    assert_half_precision_is_near,
    batch,
    make_graph,
    max_difference,
    open_folder,
    run,
)
from tiny import VOCAB, change_json, write_json, write_tokenizer

pytestmark = pytest.mark.torch

# Values reach 4.5, and the first norm magnifies rounding: against float64 the reference itself is off by 3.4e-6.
TOLERANCE = 1e-5

# Three query heads for each key head.
SIZES: dict[str, Any] = {
    **SMALL,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 210,
    "pad_token_id": 3,
}
# head_dim is not hidden_size / heads in the families that have the key.
FAMILIES = {
    "llama": Family("llama", SIZES, std=0.1),
    "mistral": Family("mistral", {**SIZES, "head_dim": 14, "sliding_window": 11}, std=0.1),
    "qwen2": Family("qwen2", SIZES, std=0.1),
    "qwen3": Family("qwen3", {**SIZES, "head_dim": 20}, std=0.1),
}
DECODERS = tuple(FAMILIES)
MODES: tuple[AttentionMode, ...] = ("causal", "bidirectional")

QWEN_WINDOW = {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 50}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

# What a family's config may say differently.
CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"head_dim": 10, "attention_bias": True}),
    ("llama", {"mlp_bias": True, "rms_norm_eps": 1e-2}),
    ("llama", {"num_key_value_heads": None, "hidden_act": "gelu_pytorch_tanh", "num_hidden_layers": 1}),
    ("llama", {"num_key_value_heads": 1, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    ("llama", {"rope_parameters": {**LLAMA3, "rope_theta": 500.0}}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 10000.0}}),
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 10000.0}}),
    ("llama", {"rope_parameters": {**YARN, "rope_theta": 10000.0}}),
    ("mistral", {"sliding_window": None, "head_dim": None}),
    ("mistral", {"sliding_window": 1}),
    ("mistral", {"head_dim": 16}),
    ("mistral", {"head_dim": 16, "sliding_window": 1}),
    ("mistral", {"head_dim": 8, "sliding_window": 40}),
    ("mistral", {"sliding_window": 200, "rope_parameters": {**YARN, "rope_theta": 10000.0}}),
    ("qwen2", QWEN_WINDOW),
    ("qwen2", {"use_sliding_window": False, "sliding_window": 7, "max_window_layers": 0}),
    ("qwen2", {**QWEN_WINDOW, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
    ("qwen2", {"rope_parameters": {**YARN, "rope_theta": 1e6, "beta_fast": 16.0, "truncate": False}}),
    ("qwen3", QWEN_WINDOW),
    ("qwen3", {"head_dim": 24}),
    ("qwen3", {"attention_bias": True, "num_key_value_heads": 6}),
]

# Attention stands in every branch of its Ifs; one of them runs. Causal attention of heads whose size is no multiple
# of 8 has one way only.
ATTENDED: dict[tuple[AttentionMode, str], dict[str, int]] = {
    **{("bidirectional", name): {"MultiHeadAttention": 2, "If": 1} for name in ("llama", "qwen2", "qwen3")},
    **{("causal", name): {"MultiHeadAttention": 1, "GroupQueryAttention": 2, "If": 2} for name in ("llama", "qwen2")},
    **{("causal", name): {"MultiHeadAttention": 1} for name in ("mistral", "qwen3")},
    # With a window: in one piece, in blocks, or with a bias for every pair.
    ("bidirectional", "mistral"): {"MultiHeadAttention": 3, "If": 2, "Pad": 3, "Reshape": 10, "Gather": 2, "Slice": 1},
}
PER_LAYER = {
    "llama": {"MatMul": 7, "Reshape": 4, "Expand": 2},
    "mistral": {"MatMul": 7, "Reshape": 4, "Expand": 2},
    "qwen2": {"MatMul": 7, "Reshape": 4, "Expand": 2, "Add": 3},
    "qwen3": {"MatMul": 7, "Reshape": 8, "Expand": 2, "RMSNormalization": 2},
}
FUSED = {"RotaryEmbedding": 2, "SkipSimplifiedLayerNormalization": 2, "QuickGelu": 1, "Mul": 1}


# ---- parity


@pytest.mark.parametrize("attention", MODES)
@pytest.mark.parametrize("model_type", DECODERS)
def test_equals_the_reference(model_type: str, attention: AttentionMode, tmp_path: Path) -> None:
    folder = FAMILIES[model_type].save(tmp_path / "checkpoint")
    assert max_difference(folder, tmp_path, attention=attention) <= TOLERANCE


@pytest.mark.parametrize("attention", MODES)
@pytest.mark.parametrize(("model_type", "change"), CHANGES, ids=str)
def test_equals_the_reference_with_other_settings(
    model_type: str, change: dict[str, Any], attention: AttentionMode, tmp_path: Path
) -> None:
    folder = FAMILIES[model_type].save(tmp_path / "checkpoint", **change)
    assert max_difference(folder, tmp_path, attention=attention) <= TOLERANCE


@pytest.mark.parametrize(
    ("model_type", "task"),
    [
        ("llama", "AutoModelForSequenceClassification"),
        ("mistral", "AutoModelForCausalLM"),
        ("qwen2", "AutoModelForCausalLM"),
        ("qwen3", "AutoModelForTokenClassification"),
    ],
)
@pytest.mark.parametrize("tied", [False, True])
def test_takes_the_decoder_out_of_a_task_checkpoint(model_type: str, task: str, tied: bool, tmp_path: Path) -> None:
    folder = FAMILIES[model_type].save(tmp_path / "checkpoint", task, tie_word_embeddings=tied)
    assert max_difference(folder, tmp_path, attention="causal") <= TOLERANCE


@pytest.mark.parametrize("change", [QWEN_WINDOW, {}], ids=str)
def test_keys_of_earlier_releases_mean_the_same(change: dict[str, Any], tmp_path: Path) -> None:
    """Before transformers 5 there was no layer_types, and rope_theta and rope_scaling instead of rope_parameters."""
    folder = FAMILIES["qwen2"].save(tmp_path / "checkpoint", rope_parameters={**YARN, "rope_theta": 300.0}, **change)
    old = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 50}
    change_json(folder / "config.json", layer_types=None, rope_parameters=None, rope_theta=300, rope_scaling=old)
    assert max_difference(folder, tmp_path, attention="causal") <= TOLERANCE


@pytest.mark.parametrize("name", ["qwen2", "qwen2-stella_en_1.5B_v5"])
def test_published_configs_have_no_unknown_key(name: str, shared_data: Path, tmp_path: Path) -> None:
    config = json.loads((shared_data / "configs" / name / "config.json").read_text(encoding="utf-8"))
    config |= {**SIZES, "max_window_layers": 2}
    config |= {"head_dim": 20} if "head_dim" in config else {}
    keys = {key: value for key, value in config.items() if key != "model_type"}
    FAMILIES[config["model_type"]].save(tmp_path / "checkpoint", **keys)
    write_json(tmp_path / "checkpoint/config.json", config)
    assert max_difference(tmp_path / "checkpoint", tmp_path, attention="bidirectional") <= TOLERANCE


# ---- who sees whom


@pytest.mark.parametrize(
    ("keys", "flag", "mode"),
    [
        ({}, None, "causal"),
        ({"is_causal": True}, None, "causal"),
        ({"is_causal": False}, None, "bidirectional"),
        ({"is_causal": False}, "causal", "causal"),
        ({"use_bidirectional_attention": True}, None, "bidirectional"),
        ({}, "bidirectional", "bidirectional"),
    ],
)
@pytest.mark.parametrize("model_type", DECODERS)
def test_the_first_token_sees_the_last_only_when_attention_is_bidirectional(
    model_type: str, keys: dict[str, Any], flag: AttentionMode | None, mode: str, tmp_path: Path
) -> None:
    folder = FAMILIES[model_type].save(tmp_path / "checkpoint", num_hidden_layers=2)
    change_json(folder / "config.json", **keys)
    session = open_folder(folder, tmp_path, attention=flag)
    for padding in (None, "left", "right"):
        feeds = batch(read_facts(folder), (2, 9, padding))
        changed = {name: value.copy() for name, value in feeds.items()}
        real = [np.flatnonzero(row) for row in feeds["attention_mask"]]
        for row, places in enumerate(real):
            changed["input_ids"][row, places[-1]] += 1
        before, after = (run(session, "token_embeddings", batch_) for batch_ in (feeds, changed))
        moved = [bool((before[row, places[0]] != after[row, places[0]]).any()) for row, places in enumerate(real)]
        assert moved == [mode == "bidirectional"] * 2


@pytest.mark.parametrize("attention", MODES)
@pytest.mark.parametrize("model_type", DECODERS)
def test_padding_changes_nothing_and_makes_no_nan(model_type: str, attention: AttentionMode, tmp_path: Path) -> None:
    """A slot of padding on the left sees no key at all; that must not affect the other slots."""
    folder = FAMILIES[model_type].save(tmp_path / "checkpoint")
    session = open_folder(folder, tmp_path, pooling=("lasttoken",), attention=attention)
    alone = batch(read_facts(folder), (1, 20, None))
    expected, tokens = (run(session, output, alone) for output in ("sentence_embedding", "token_embeddings"))
    for left, right in ((30, 0), (0, 30), (13, 17)):
        padded = {name: np.pad(value, ((0, 0), (left, right))) for name, value in alone.items()}
        other = {**padded, "input_ids": np.where(padded["attention_mask"] == 1, padded["input_ids"], 50)}
        for feeds in (padded, other):
            sentence, states = (run(session, output, feeds) for output in ("sentence_embedding", "token_embeddings"))
            assert np.isfinite(states).all()
            np.testing.assert_allclose(sentence, expected, atol=TOLERANCE)
            np.testing.assert_allclose(states[:, left : left + 20], tokens, atol=TOLERANCE)


@pytest.mark.parametrize(("attention", "reach"), [("causal", 2), ("bidirectional", 3)])
def test_a_window_reaches_as_far_as_the_reference_says(attention: AttentionMode, reach: int, tmp_path: Path) -> None:
    """transformers counts the token itself in a causal window, and not in a bidirectional one."""
    folder = FAMILIES["mistral"].save(tmp_path / "checkpoint", num_hidden_layers=1, sliding_window=3)
    session = open_folder(folder, tmp_path, attention=attention)
    feeds = batch(read_facts(folder), (1, 12, None))
    before = run(session, "token_embeddings", feeds)
    feeds["input_ids"][0, 5] += 1
    moved = np.flatnonzero((run(session, "token_embeddings", feeds) != before).any(axis=2)[0])
    assert moved.tolist() == list(range(5 if attention == "causal" else 5 - reach, 5 + reach + 1))


# ---- the graph


@pytest.mark.parametrize("attention", MODES)
@pytest.mark.parametrize("model_type", DECODERS)
def test_a_layer_is_made_of_fused_operators_only(model_type: str, attention: AttentionMode, tmp_path: Path) -> None:
    layer, operators = FAMILIES[model_type].count_layer(tmp_path, attention=attention)
    assert layer == {**FUSED, **PER_LAYER[model_type], **ATTENDED[attention, model_type]}
    for unfused in ("Softmax", "Sigmoid", "Transpose", "Pow", "Sqrt"):
        assert unfused not in operators


@pytest.mark.parametrize("attention", MODES)
@pytest.mark.parametrize("model_type", DECODERS)
def test_half_precision_gives_nearly_the_same_vectors(
    model_type: str, attention: AttentionMode, tmp_path: Path
) -> None:
    folder = FAMILIES[model_type].save(tmp_path / "checkpoint")
    assert_half_precision_is_near(folder, tmp_path, pooling=("lasttoken",), attention=attention)


# ---- what is refused


@pytest.mark.parametrize(
    ("model_type", "keys", "message"),
    [
        ("llama", {"rope_parameters": {"rope_type": "longrope"}}, "rope_type 'longrope'"),
        ("llama", {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 2]}}, "mrope_section"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("llama", {"sliding_window": 8}, "sliding_window"),
        ("mistral", {"layer_types": ["full_attention"] * 3}, "layer_types"),
        ("qwen2", {"layer_types": ["full_attention", "chunked_attention", "full_attention"]}, "chunked_attention"),
        ("qwen2", {"layer_types": ["full_attention"]}, "layer_types"),
        ("qwen3", {"attn_logit_softcapping": 30.0}, "attn_logit_softcapping"),
        ("qwen3", {"hidden_act": "relu2"}, "'relu2'"),
    ],
)
def test_an_unsupported_setting_is_refused_by_name(
    model_type: str, keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = FAMILIES[model_type].save(tmp_path / "checkpoint")
    change_json(folder / "config.json", **keys)
    with pytest.raises(UnsupportedError, match=message):
        make_graph(folder)


@pytest.mark.parametrize(
    ("model_type", "keys", "message"),
    [
        ("qwen2", {"layer_types": ["sliding_attention"] * 3}, "use_sliding_window"),
        ("qwen3", {"head_dim": 16}, "head_dim 16"),
        ("qwen2", {"num_key_value_heads": 4}, "4 for keys and values"),
        ("qwen2", {"num_key_value_heads": None}, "num_key_value_heads"),
        ("llama", {"intermediate_size": 71}, "intermediate_size"),
        ("llama", {"vocab_size": 98}, "vocab_size"),
    ],
)
def test_a_config_that_contradicts_the_weights_is_refused(
    model_type: str, keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = FAMILIES[model_type].save(tmp_path / "checkpoint")
    change_json(folder / "config.json", **keys)
    with pytest.raises(ModelFilesError, match=message):
        make_graph(folder)


# ---- large checkpoints

EXPORT = """
import sys
from pathlib import Path
from onnxembed.decisions.flags import Flags
from onnxembed.export import pipeline
from onnxembed.export.artifact import graph_file
from onnxembed.export.plan import Options

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

def record(*arguments, **options):
    print(peak() - before)  # what comes now opens the graph, for its proof
    return recorded(*arguments, **options)

graph_file.INLINE_LIMIT = 0
recorded, pipeline.record_manifest = pipeline.record_manifest, record
before = peak()
pipeline.export(sys.argv[1], Path(sys.argv[2]), Options(flags=Flags(pooling=("lasttoken",), normalize=True)))
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's account of a process's memory")
def test_export_holds_one_tensor_of_a_large_checkpoint_at_a_time(tmp_path: Path) -> None:
    """100 MB of weights in tensors of 4 MB: the peak grows by a few tensors and write buffers, not by all weights."""
    sizes: dict[str, Any] = {
        "hidden_size": 256,
        "intermediate_size": 4096,
        "num_hidden_layers": 8,
        "vocab_size": len(VOCAB),
    }
    folder = FAMILIES["llama"].save(
        tmp_path / "checkpoint", **sizes, num_attention_heads=8, is_causal=False, pad_token_id=0
    )
    write_tokenizer(folder)
    assert (folder / "model.safetensors").stat().st_size > 100e6
    command = [sys.executable, "-c", EXPORT, str(folder), str(tmp_path / "out")]
    grown = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(grown.stdout) < 60e6

    assert (tmp_path / "out/onnx/model.onnx").stat().st_size < 2e6
    with OnnxEmbedder(tmp_path / "out", providers="cpu") as model:
        vectors = model.encode(["the cat", "it was that"])
    np.testing.assert_allclose((vectors**2).sum(axis=1), 1, atol=1e-5)


# ---- the whole journey


@pytest.mark.parametrize(
    ("configured", "option", "mode", "origin"),
    [
        (None, "auto", "causal", "architecture"),
        (False, "auto", "bidirectional", "file"),
        (False, "causal", "causal", "flag"),
        (None, "bidirectional", "bidirectional", "flag"),
    ],
)
def test_export_is_verified_with_the_attention_that_was_decided(
    configured: bool | None, option: str, mode: str, origin: str, tmp_path: Path
) -> None:
    """From the command line to last-token vectors beside sentence-transformers', which pads on the left."""
    folder = FAMILIES["qwen3"].save(tmp_path / "checkpoint", vocab_size=len(VOCAB), pad_token_id=0)
    change_json(folder / "config.json", is_causal=configured)
    write_tokenizer(folder)
    change_json(folder / "tokenizer_config.json", padding_side="left")
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": 48, "pooling_mode_lasttoken": True})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": False})

    outcome = CliRunner().invoke(cli, ["export", str(folder), "-o", str(tmp_path / "out"), "--attention", option])
    assert outcome.exit_code == 0, outcome.output
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.model.attention.value, manifest.model.attention.origin) == (mode, origin)
    assert manifest.verification["fp32"].max_abs_diff <= TOLERANCE
    assert manifest.verification["fp32"].token_ids_equal
