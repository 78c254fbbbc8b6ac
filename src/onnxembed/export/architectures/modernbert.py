"""ModernBERT: a pre-norm encoder with rotary positions, a gated MLP, and a window in most of its layers.

Reference: transformers, models/modernbert.
"""

from __future__ import annotations

from onnxembed.errors import ModelFilesError
from onnxembed.export.architectures.architecture import Architecture, Classifier, Key, MaskedLM
from onnxembed.export.architectures.llama import LAYER_TYPES, read_layer_types
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.graph.attention import Mask, attention, local_mask
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.graph.inputs import Inputs
from onnxembed.export.graph.rotary import Rotary, frequencies, rope_settings, rotary

FULL, SLIDING = LAYER_TYPES


def modernbert(g: Graph, config: Config, inputs: Inputs) -> Value:
    """ModernBertModel: each sum is normalized in the node that computes it."""
    config.take("pad_token_id", int, 50283)  # what fills unused slots, which are masked
    # Training, task heads, ways of computing the same, and BERT's keys in configs that were written from it.
    config.ignore("classifier_activation", "classifier_bias", "classifier_pooling", "decoder_bias")
    config.ignore("deterministic_flash_attn", "initializer_cutoff_factor", "mlp_dropout", "reference_compile")
    config.ignore("repad_logits_with_grad", "sparse_pred_ignore_index", "sparse_prediction")
    config.ignore("layer_norm_eps", "position_embedding_type")
    eps, bias = config.take("norm_eps", float, 1e-5), config.take("norm_bias", bool, False)
    table = "embeddings.tok_embeddings"
    config.confirm_shape(table, g.weights.shape(f"{table}.weight"), "vocab_size", "hidden_size")

    period, layers = config.take("global_attn_every_n_layers", int, 3), config.take("num_hidden_layers", int)
    types = read_layer_types(config, [SLIDING if index % period else FULL for index in range(layers)])
    turns = {layer_type: _rotary(g, config, inputs, layer_type) for layer_type in sorted({*types})}
    masks = {FULL: inputs.mask}
    reach = config.take("local_attention", int, 128) // 2
    if SLIDING in types:
        masks[SLIDING] = local_mask(g, inputs.mask, reach)

    x = normed = g.layer_norm(g.embedding(table, inputs.input_ids), "embeddings.norm", eps, bias=bias)
    for index, layer_type in enumerate(types):
        g.layer_inputs.append(x)
        layer = f"layers.{index}"
        after = f"layers.{index + 1}.attn_norm" if index + 1 < layers else "final_norm"
        attended = _attention(g, config, normed, f"{layer}.attn", mask=masks[layer_type], turn=turns[layer_type])
        normed, x = g.add_pre_layer_norm(attended, x, f"{layer}.mlp_norm", eps, bias=bias)
        normed, x = g.add_pre_layer_norm(_mlp(g, config, normed, f"{layer}.mlp"), x, after, eps, bias=bias)
    return normed


def _rotary(g: Graph, config: Config, inputs: Inputs, layer_type: str) -> Rotary:
    """Each type of layer has its own theta; local layers without one use that of the global layers."""
    theta = config.take("global_rope_theta", float, 160_000.0)
    local = config.take_nullable("local_rope_theta", float, 10_000.0)
    settings = rope_settings(config, layer_type, local if layer_type == SLIDING and local is not None else theta)
    head_dim = config.take("hidden_size", int) // config.take("num_attention_heads", int)
    positions = config.take("max_position_embeddings", int)
    return rotary(
        g, layer_type, inputs.positions, *frequencies(settings, head_dim, positions, "config.json", bounded=False)
    )


def _attention(g: Graph, config: Config, x: Value, name: str, *, mask: Mask, turn: Rotary) -> Value:
    """Attention of the tokens x [B, T, D] among themselves; one weight holds query, key and value."""
    heads, size = config.take("num_attention_heads", int), config.take("hidden_size", int)
    bias = config.take("attention_bias", bool, False)
    if (width := g.weights.shape(f"{name}.Wqkv.weight")[0]) != 3 * size or size % heads:
        raise ModelFilesError(f"{name}.Wqkv has width {width}, but the config says 3 * {size}, in {heads} heads")
    query, key, value = (
        g.linear(x, f"{name}.Wqkv", rows=slice(part * size, (part + 1) * size), bias=bias) for part in range(3)
    )
    query, key = turn.rotate(query, heads), turn.rotate(key, heads)
    attended = attention(g, query, key, value, heads=heads, head_dim=size // heads, mask=mask)
    return g.linear(attended, f"{name}.Wo", bias=bias)


def _mlp(g: Graph, config: Config, x: Value, name: str) -> Value:
    """Wo(activation(input) * gate), where one weight holds input and gate."""
    config.confirm_shape(f"{name}.Wo", g.weights.shape(f"{name}.Wo.weight"), "hidden_size", "intermediate_size")
    size, bias = config.take("intermediate_size", int), config.take("mlp_bias", bool, False)
    inner, gate = (g.linear(x, f"{name}.Wi", rows=rows, bias=bias) for rows in (slice(0, size), slice(size, 2 * size)))
    activated = g.activation(inner, config.take("hidden_activation", str, "gelu"))
    return g.linear(g.op("Mul", activated, gate), f"{name}.Wo", bias=bias)


MODERNBERT = Architecture(
    build=modernbert,
    prefix="model.",
    heads=r"head|decoder|classifier",
    classifier=Classifier(
        "classifier",
        dense="head.dense",
        dense_bias=Key("classifier_bias", False),
        activation=Key("classifier_activation", "gelu"),
        norm="head.norm",
    ),
    masked_lm=MaskedLM(
        "head.dense",
        "head.norm",
        "decoder",
        ("decoder.bias",),
        table="embeddings.tok_embeddings",
        activation="classifier_activation",
        eps=("norm_eps", 1e-5),
        optional={
            "dense": ("classifier_bias", False),
            "norm": ("norm_bias", False),
            "decoder": ("decoder_bias", True),
        },
    ),
    packable=True,
    traceable=True,
    undeclared_keys=frozenset({"global_attn_every_n_layers", "global_rope_theta", "local_rope_theta"}),
)
