"""NomicBERT: a post-norm encoder with rotary positions and a gated MLP, mostly without biases.

References: transformers, models/nomic_bert, and nomic-ai/contrastors, models/huggingface (the original code,
whose keys are GPT-2's). transformers itself ignores the original keys; onnxembed reads both generations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxembed.errors import ModelFilesError, NoReferenceError, UnsupportedError
from onnxembed.export.architectures.architecture import Architecture, Classifier
from onnxembed.export.architectures.new import (
    NATIVE,
    GatedLayerNames,
    GatedLayerStyle,
    Rows,
    embed,
    gated_layers,
    read_style,
)
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.graph.inputs import Inputs
from onnxembed.export.graph.rotary import frequencies, rope_settings, rotary

ORIGINAL = GatedLayerNames(
    query=Rows("encoder.layers.{}.attn.Wqkv", 0, 3),
    key=Rows("encoder.layers.{}.attn.Wqkv", 1, 3),
    value=Rows("encoder.layers.{}.attn.Wqkv", 2, 3),
    attention_out="encoder.layers.{}.attn.out_proj",
    attention_norm="encoder.layers.{}.norm1",
    up=Rows("encoder.layers.{}.mlp.fc11"),
    gate=Rows("encoder.layers.{}.mlp.fc12"),
    down="encoder.layers.{}.mlp.fc2",
    mlp_norm="encoder.layers.{}.norm2",
)

# The original's names of gated MLPs -> the activation of their gate.
GATES = {"glu": "sigmoid", "swiglu": "silu", "geglu": "gelu"}


def nomic_bert(g: Graph, config: Config, inputs: Inputs) -> Value:
    """NomicBertModel; the tensors have the original names or transformers', under either generation of keys."""
    theta = 1000.0
    if config.has("n_embd"):
        style, theta = _original_style(config), config.take("rotary_emb_base", float)
    else:
        style = read_style(config, "silu", attention_bias=False, down_bias=False)
    settings = rope_settings(config, theta=theta)
    if config.has("n_embd") and settings["rope_theta"] != theta:
        raise ModelFilesError(f"config.json: rotary_emb_base is {theta}, but rope_theta {settings['rope_theta']}")
    positions = config.take("max_position_embeddings", int, 2048)  # bounds no rotary position
    inv_freq, factor = frequencies(settings, style.head_dim, positions, "config.json", bounded=False)
    turn = rotary(g, "rotary", inputs.positions, inv_freq, factor)
    layout, norm = (ORIGINAL, "emb_ln") if g.weights.has("emb_ln.weight") else (NATIVE, "embeddings.LayerNorm")
    x = embed(g, config, inputs, norm, style.eps, types=config.take("type_vocab_size", int, 2))
    return gated_layers(g, config, inputs, x, layout=layout, style=style, turn=turn)


def _original_style(config: Config) -> GatedLayerStyle:
    """A layer's style by the original keys, with the original code's defaults."""
    config.rename(
        n_embd="hidden_size",
        n_head="num_attention_heads",
        n_inner="intermediate_size",
        n_layer="num_hidden_layers",
        layer_norm_epsilon="layer_norm_eps",
    )
    for key in ("prenorm", "parallel_block", "use_rms_norm", "causal", "rotary_emb_interleaved", "rotary_head_dim"):
        config.expect(key, False)
    for key in ("rotary_emb_scale_base", "rotary_scaling_factor", "num_heads_kv"):
        config.expect(key, None)
    if (fraction := config.take("rotary_emb_fraction", float, 0.0)) != 1.0:
        raise UnsupportedError(f"config.json: rotary_emb_fraction is {fraction}; onnxembed builds 1.0 only")
    # Training, ways of computing the same, limits, and GPT-2's keys that the original code does not read.
    config.ignore("attn_pdrop", "embd_pdrop", "resid_pdrop", "pad_vocab_size_multiple")
    config.ignore("summary_first_dropout", "summary_proj_to_labels")
    config.ignore("dense_seq_output", "fused_bias_fc", "fused_dropout_add_ln", "use_flash_attn", "use_xentropy")
    config.ignore("max_trained_positions", "n_ctx", "n_positions", "parallel_block_tied_norm")
    config.ignore("reorder_and_upcast_attn", "scale_attn_by_inverse_layer_idx", "scale_attn_weights")
    if (gate := config.take("activation_function", str, "gelu_new")) not in GATES:
        raise UnsupportedError(
            f"config.json: activation_function is {gate!r}; onnxembed builds the gated ones: {', '.join(GATES)}"
        )
    style = read_style(
        config,
        GATES[gate],
        1e-5,
        attention_bias=config.take("qkv_proj_bias", bool, True),
        gate_bias=config.take("mlp_fc1_bias", bool, True),
        down_bias=config.take("mlp_fc2_bias", bool, True),
    )
    if style.activation != GATES[gate]:
        raise ModelFilesError(f"config.json: activation_function is {gate!r}, but hidden_act {style.activation!r}")
    return style


def _reference_config(config: Mapping[str, Any]) -> dict[str, Any]:
    if "n_embd" in config:
        raise NoReferenceError("transformers' NomicBert class ignores the keys of a published nomic_bert config")
    return dict(config)


NOMIC_BERT = Architecture(
    build=nomic_bert,
    prefix=("nomic_bert.", "bert."),
    heads=r"pooler|cls|classifier",
    classifier=Classifier("classifier", dense="pooler.dense"),
    packable=True,
    tokenizer_class="BertTokenizer",
    reference_config=_reference_config,
)
