"""NomicBERT under both generations of keys and tensor names, against transformers' NomicBertModel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from onnxembed.decisions.decide import decide
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.facts.facts import read_facts
from onnxembed.manifest import Precision
from parity import (
    SMALL,
    Family,
    assert_half_precision_is_near,
    load_reference,
    make_graph,
    max_difference,
    torch,
)
from tiny import change_json, write_json

pytestmark = pytest.mark.torch

TOLERANCE = 5e-6
NOMIC_BERT = Family(
    "nomic_bert",
    {
        **SMALL,
        "hidden_size": 40,
        "max_position_embeddings": 64,  # shorter than the longest text
    },
)
# The keys of nomic-embed-text-v1.5 as it was published, with these sizes.
ORIGINAL: dict[str, Any] = {
    "activation_function": "swiglu",
    "architectures": ["NomicBertModel"],
    "attn_pdrop": 0.0,
    "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"},
    "bos_token_id": None,
    "causal": False,
    "dense_seq_output": True,
    "embd_pdrop": 0.0,
    "eos_token_id": None,
    "fused_bias_fc": True,
    "fused_dropout_add_ln": True,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-12,
    "max_trained_positions": 2048,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "model_type": "nomic_bert",
    "n_embd": 40,
    "n_head": 4,
    "n_inner": 70,
    "n_layer": SMALL["num_hidden_layers"],
    "n_positions": 64,
    "pad_vocab_size_multiple": 64,
    "parallel_block": False,
    "parallel_block_tied_norm": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "reorder_and_upcast_attn": False,
    "resid_pdrop": 0.0,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "summary_activation": None,
    "summary_first_dropout": 0.0,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "torch_dtype": "float32",
    "transformers_version": "4.37.2",
    "type_vocab_size": 2,
    "use_cache": True,
    "use_flash_attn": True,
    "use_rms_norm": False,
    "use_xentropy": True,
    "vocab_size": 99,
}
# The original tensor names, which transformers also writes -> its own, in this order.
NATIVE = {
    "emb_ln": "embeddings.LayerNorm",
    "encoder.layers": "layers",
    "attn.out_proj": "self_attn.o_proj",
    "fc11": "up_proj",
    "fc12": "gate_proj",
    "fc2": "down_proj",
    "norm1": "post_attention_layernorm",
    "norm2": "post_mlp_layernorm",
}

# Attention stands in both branches of its If; one of them runs.
PER_LAYER = {
    "MatMul": 7,
    "RotaryEmbedding": 2,
    "MultiHeadAttention": 2,
    "If": 1,
    "QuickGelu": 1,
    "Mul": 1,
    "Add": 2,
    "LayerNormalization": 2,
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"type_vocab_size": 1},
        {"hidden_act": "gelu"},
        {"layer_norm_eps": 1e-2},
        {"pad_token_id": 7},
        {"head_dim": 14},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 70.0, "factor": 3.0}},
    ],
    ids=str,
)
def test_equals_the_reference(change: dict[str, Any], tmp_path: Path) -> None:
    assert max_difference(NOMIC_BERT.save(tmp_path / "checkpoint", **change), tmp_path) <= TOLERANCE


def test_theta_defaults_to_that_of_the_reference(tmp_path: Path) -> None:
    folder = NOMIC_BERT.save(tmp_path / "checkpoint")
    change_json(folder / "config.json", rope_parameters=None)
    assert max_difference(folder, tmp_path) <= TOLERANCE


def test_transformers_own_tensor_names_are_read(tmp_path: Path) -> None:
    folder = NOMIC_BERT.save(tmp_path / "checkpoint")
    reference = load_reference(folder)
    renamed: dict[str, Any] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        for old, new in NATIVE.items():
            name = name.replace(old, new)  # noqa: PLW2901
        names = [name]
        if "Wqkv" in name:
            names = [name.replace("attn.Wqkv", f"self_attn.{part}_proj") for part in "qkv"]
        renamed |= dict(zip(names, np.split(tensor, len(names)), strict=True))
    save_file(renamed, folder / "model.safetensors")
    assert max_difference(folder, tmp_path, reference=reference) <= TOLERANCE


@pytest.mark.parametrize("gate", ["swiglu", "geglu", "glu"])
@pytest.mark.parametrize("both", [False, True], ids=["original", "both generations"])
def test_original_keys_equal_the_reference(gate: str, both: bool, tmp_path: Path) -> None:
    activation = {"swiglu": "silu", "geglu": "gelu", "glu": "sigmoid"}[gate]
    rope = {"rope_type": "default", "rope_theta": 55.0}
    folder = NOMIC_BERT.save(tmp_path / "checkpoint", hidden_act=activation, layer_norm_eps=1e-3, rope_parameters=rope)
    reference = load_reference(folder)
    original = {**ORIGINAL, "activation_function": gate, "layer_norm_epsilon": 1e-3, "rotary_emb_base": 55}
    if both:
        change_json(folder / "config.json", **original)
    else:
        write_json(folder / "config.json", original)
    assert max_difference(folder, tmp_path, reference=reference) <= TOLERANCE


def test_biases_of_the_original_code_are_added(tmp_path: Path) -> None:
    """The reference's Linears have no biases, so the same biases are added to them."""
    folder = NOMIC_BERT.save(tmp_path / "checkpoint")
    reference, weights = load_reference(folder), load_file(folder / "model.safetensors")
    rng = np.random.default_rng(0)
    for index, layer in enumerate(reference.layers):
        attention, mlp = layer.self_attn, layer.mlp
        for name, linears in {
            "attn.Wqkv": [attention.q_proj, attention.k_proj, attention.v_proj],
            "attn.out_proj": [attention.o_proj],
            "mlp.fc11": [mlp.up_proj],
            "mlp.fc12": [mlp.gate_proj],
            "mlp.fc2": [mlp.down_proj],
        }.items():
            biases = [rng.normal(0, 0.3, linear.out_features).astype(np.float32) for linear in linears]
            for linear, bias in zip(linears, biases, strict=True):
                linear.bias = torch.nn.Parameter(torch.from_numpy(bias))
            weights[f"encoder.layers.{index}.{name}.bias"] = np.concatenate(biases)
    save_file(weights, folder / "model.safetensors")
    write_json(folder / "config.json", {**ORIGINAL, "mlp_fc1_bias": True, "mlp_fc2_bias": True, "qkv_proj_bias": True})
    assert max_difference(folder, tmp_path, reference=reference) <= TOLERANCE
    for key in ("mlp_fc1_bias", "mlp_fc2_bias", "qkv_proj_bias"):
        change_json(folder / "config.json", **{key: False})
        with pytest.raises(UnsupportedError, match="does not use"):
            make_graph(folder)
        change_json(folder / "config.json", **{key: None})  # the original code's default is true
        make_graph(folder)


@pytest.mark.parametrize("task", ["AutoModelForSequenceClassification", "AutoModelForMaskedLM"])
@pytest.mark.parametrize("prefix", ["nomic_bert.", "bert."])
def test_takes_the_encoder_out_of_a_task_checkpoint(task: str, prefix: str, tmp_path: Path) -> None:
    folder = NOMIC_BERT.save(tmp_path / "checkpoint", task)
    reference = load_reference(folder)
    weights = load_file(folder / "model.safetensors")
    renamed = {name.replace("nomic_bert.", prefix): tensor for name, tensor in weights.items()}
    save_file(renamed, folder / "model.safetensors")
    assert max_difference(folder, tmp_path, reference=reference) <= TOLERANCE


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_layer_is_made_of_fused_operators_only(precision: Precision, tmp_path: Path) -> None:
    layer, operators = NOMIC_BERT.count_layer(tmp_path, precision)
    assert layer == PER_LAYER
    for unfused in ("Softmax", "Transpose", "Reshape", "Split", "Expand", "SkipLayerNormalization"):
        assert unfused not in operators


def test_half_precision_gives_nearly_the_same_vectors(tmp_path: Path) -> None:
    assert_half_precision_is_near(NOMIC_BERT.save(tmp_path / "checkpoint"), tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prenorm", True),
        ("parallel_block", True),
        ("use_rms_norm", True),
        ("causal", True),
        ("rotary_emb_interleaved", True),
        ("rotary_emb_fraction", 0.5),
        ("rotary_emb_fraction", None),  # the original code's default is 0
        ("rotary_emb_scale_base", 512),
        ("rotary_scaling_factor", 2),
        ("num_heads_kv", 2),
        ("activation_function", "gelu"),
        ("activation_function", None),  # the original code's default is not gated
        ("num_experts", 8),
        ("rope_parameters", {"rope_type": "ntk", "rope_theta": 1000.0}),
    ],
)
def test_an_unsupported_setting_is_refused_by_name(key: str, value: Any, tmp_path: Path) -> None:
    folder = NOMIC_BERT.save(tmp_path / "checkpoint")
    write_json(folder / "config.json", {**ORIGINAL, key: value})
    with pytest.raises(UnsupportedError, match="ntk" if key == "rope_parameters" else key):
        make_graph(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 80),
        ("num_hidden_layers", 2),
        ("layer_norm_eps", 1e-5),
        ("hidden_act", "gelu"),
        ("rope_parameters", {"rope_type": "default", "rope_theta": 9.0}),
        ("n_inner", 71),
        ("n_head", 3),
        ("rotary_emb_base", None),
    ],
)
def test_keys_that_contradict_each_other_or_the_weights_are_errors(key: str, value: Any, tmp_path: Path) -> None:
    folder = NOMIC_BERT.save(tmp_path / "checkpoint")
    write_json(folder / "config.json", {**ORIGINAL, key: value})
    named = {"rope_parameters": "rope_theta", "n_inner": "intermediate_size", "n_head": "3 heads"}.get(key, key)
    with pytest.raises(ModelFilesError, match=named):
        make_graph(folder)


def test_sizes_are_found_under_the_keys_of_both_generations(tmp_path: Path) -> None:
    folder = NOMIC_BERT.save(tmp_path / "checkpoint")
    write_json(folder / "config.json", {**ORIGINAL, "n_positions": 8192})

    def sizes() -> tuple[int, int]:
        encoder = decide(read_facts(folder), Flags(pooling=("mean",), normalize=True)).encoder
        return encoder.hidden_size, encoder.max_length.value

    assert sizes() == (40, 8192)
    change_json(folder / "config.json", max_position_embeddings=2048, hidden_size=40)
    assert sizes() == (40, 2048)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 8192})
    assert sizes() == (40, 8192)
