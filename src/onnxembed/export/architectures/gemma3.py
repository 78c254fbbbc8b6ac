"""Gemma 3's text model as an embedder, embeddinggemma among others: local and global layers, four norms in each.

Reference: transformers, models/gemma3 (Gemma3TextModel).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxembed.errors import UnsupportedError
from onnxembed.export.architectures.architecture import Architecture
from onnxembed.export.architectures.llama import (
    DECODER_CLASSIFIER,
    DECODER_HEADS,
    LAYER_TYPES,
    DecoderStyle,
    embed_tokens,
    gated_mlp,
    read_layer_types,
    read_style,
    self_attention,
)
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.graph.attention import local_mask, mask_for_heads
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.graph.inputs import Inputs
from onnxembed.export.graph.rotary import RopeSettings, Rotary, frequencies, rope_settings, rotary


def gemma3(g: Graph, config: Config, inputs: Inputs) -> Value:
    """Gemma3TextModel; every norm multiplies by 1 + its weight."""
    config.expect("attn_logit_softcapping", None)
    config.ignore("final_logit_softcapping", "hidden_act")  # the reference does not use them
    style, types = _style(config), _layer_types(config)
    full, sliding = LAYER_TYPES
    reach = _reach(config, causal=inputs.mask.causal)
    mask = mask_for_heads(inputs.mask, style.head_dim)
    masks = {full: mask, sliding: local_mask(g, mask, reach) if sliding in types else mask}
    turns = {layer_type: _rotary(g, config, inputs, layer_type, style) for layer_type in sorted(set(types))}

    scale = np.array(config.take("hidden_size", int) ** 0.5, g.numpy_float)  # rounded as the weights are
    x = g.op("Mul", embed_tokens(g, config, inputs), g.constant("embed_scale", scale))
    normed = _norm(g, x, "layers.0.input_layernorm", style)
    for index, layer_type in enumerate(types):
        layer = f"layers.{index}"
        after = f"layers.{index + 1}.input_layernorm" if index + 1 < len(types) else "norm"
        attended = self_attention(
            g, normed, f"{layer}.self_attn", style, mask=masks[layer_type], turn=turns[layer_type]
        )
        attended = _norm(g, attended, f"{layer}.post_attention_layernorm", style)
        normed, x = g.add_rms_norm(attended, x, f"{layer}.pre_feedforward_layernorm", style.eps, offset=1.0)
        inner = gated_mlp(g, config, normed, f"{layer}.mlp", style)
        inner = _norm(g, inner, f"{layer}.post_feedforward_layernorm", style)
        normed, x = g.add_rms_norm(inner, x, after, style.eps, offset=1.0)
    return normed


def _norm(g: Graph, x: Value, name: str, style: DecoderStyle) -> Value:
    return g.rms_norm(x, name, style.eps, offset=style.norm_offset)


def _style(config: Config) -> DecoderStyle:
    biased = config.take("attention_bias", bool, False)
    style = read_style(config, key_heads=4, head_dim=256, qkv_bias=biased, out_bias=biased, head_norms=True)
    return replace(
        style,
        activation=config.take("hidden_activation", str, "gelu_pytorch_tanh"),
        norm_offset=1.0,
        query_scale=config.take("query_pre_attn_scalar", float, 256.0) ** -0.5,
    )


def _layer_types(config: Config) -> list[str]:
    """By layer_types, else every sixth layer (or sliding_window_pattern-th) is global."""
    config.ignore("_sliding_window_pattern")  # a note of what layer_types was made from
    if config.has("layer_types"):
        config.ignore("sliding_window_pattern")
    period = 6 if config.has("layer_types") else config.take("sliding_window_pattern", int, 6)
    full, sliding = LAYER_TYPES
    layers = range(1, config.take("num_hidden_layers", int) + 1)
    return read_layer_types(config, [sliding if index % period else full for index in layers])


def _reach(config: Config, *, causal: bool) -> int:
    """How far a token sees in a local layer.

    use_bidirectional_attention halves the window, which then looks both ways. A model made bidirectional by
    `is_causal` or by the caller keeps its window, which no longer includes the token itself.
    """
    window = config.take("sliding_window", int, 4096)
    if config.take("use_bidirectional_attention", bool, False):
        config.expect("is_causal", True)
        if causal:
            raise UnsupportedError("config.json says use_bidirectional_attention: such a model is not built as causal")
        return window // 2
    return window - 1 if causal else window


def _rotary(g: Graph, config: Config, inputs: Inputs, layer_type: str, style: DecoderStyle) -> Rotary:
    positions = config.take("max_position_embeddings", int)
    inv_freq, factor = frequencies(_rope_settings(config, layer_type), style.head_dim, positions, "config.json")
    return rotary(g, layer_type, inputs.positions, inv_freq, factor)


def _rope_settings(config: Config, layer_type: str) -> RopeSettings:
    """Global layers use the common keys; local ones use rope_local_base_freq, which rope_scaling does not change."""
    if layer_type == "full_attention":
        return rope_settings(config, layer_type, theta=1e6)
    nested = config.take("rope_parameters", dict, {}).get(layer_type) or {}
    return {"rope_type": "default", "rope_theta": config.take("rope_local_base_freq", float, 1e4), **nested}


GEMMA3 = Architecture(
    build=gemma3,
    prefix="model.",
    heads=DECODER_HEADS,
    classifier=DECODER_CLASSIFIER,
    tokenizer_class="GemmaTokenizer",
)
