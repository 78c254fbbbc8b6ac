"""jina-embeddings-v3: XLM-RoBERTa's layers with rotary positions instead of a table.

References: transformers, models/jina_embeddings_v3, and the original code, jinaai/xlm-roberta-flash-implementation,
whose config.json calls the model xlm-roberta. Its adapters are merged where the weights are read (adapters.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxembed.errors import ModelFilesError, NoReferenceError
from onnxembed.export.architectures.architecture import Architecture
from onnxembed.export.architectures.bert import HEADS, ROBERTA_CLASSIFIER
from onnxembed.export.architectures.new import embed
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.graph.attention import attention
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.graph.inputs import Inputs
from onnxembed.export.graph.rotary import RopeSettings, Rotary, frequencies, rope_settings, rotary


def jina_embeddings_v3(g: Graph, config: Config, inputs: Inputs) -> Value:
    """JinaEmbeddingsV3Model; its checkpoints have the original tensor names, which transformers saves too."""
    config.take("pad_token_id", int, 1)  # what fills unused slots, which are masked
    eps = config.take("layer_norm_eps", float, 1e-5)
    heads, positions = config.take("num_attention_heads", int), config.take("max_position_embeddings", int)
    head_dim = config.take("hidden_size", int) // heads
    inv_freq, factor = frequencies(_rope_settings(config), head_dim, positions, "config.json", bounded=False)
    turn = rotary(g, "rotary", inputs.positions, inv_freq, factor)
    x = embed(g, config, inputs, "emb_ln", eps, types=config.take("type_vocab_size", int, 1))
    for index in range(config.take("num_hidden_layers", int)):
        layer = f"encoder.layers.{index}"
        out, into = f"{layer}.mixer.out_proj", f"{layer}.mlp.fc2"
        config.confirm_shape(into, g.weights.shape(f"{into}.weight"), "hidden_size", "intermediate_size")
        attended = _attention(g, x, f"{layer}.mixer.Wqkv", inputs, turn, heads=heads, head_dim=head_dim)
        x = g.add_layer_norm(g.product(attended, out), x, f"{layer}.norm1", eps, linear=out)
        inner = g.linear_act(x, f"{layer}.mlp.fc1", config.take("hidden_act", str, "gelu"))
        x = g.add_layer_norm(g.product(inner, into), x, f"{layer}.norm2", eps, linear=into)
    return x


def _rope_settings(config: Config) -> RopeSettings:
    """Plain frequencies in the original's config.json, whose other keys are for training, speed and pooling."""
    if not config.has("position_embedding_type"):
        return rope_settings(config, theta=20_000.0)
    config.expect("position_embedding_type", "rotary")
    for key, expected in (("emb_pooler", None), ("truncate_dim", None), ("load_trained_adapters", True)):
        config.expect(key, expected)
    config.ignore("matryoshka_dimensions", "task_instructions", "use_flash_attn", "use_reentrant")
    return {"rope_type": "default", "rope_theta": config.take("rotary_emb_base", float)}


def _attention(g: Graph, x: Value, name: str, inputs: Inputs, turn: Rotary, *, heads: int, head_dim: int) -> Value:
    """Attention of the tokens x [B, T, D] among themselves; the weight `name` holds query, key and value."""
    size = heads * head_dim
    if (width := g.weights.shape(f"{name}.weight")[0]) != 3 * size:
        raise ModelFilesError(f"{name} has width {width}, not 3 times {heads} heads of {head_dim}")
    query, key, value = (g.linear(x, name, rows=slice(part * size, (part + 1) * size)) for part in range(3))
    query, key = turn.rotate(query, heads), turn.rotate(key, heads)
    return attention(g, query, key, value, heads=heads, head_dim=head_dim, mask=inputs.mask)


def _reference_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The published config, which calls itself xlm-roberta, for JinaEmbeddingsV3Model, which has no adapters."""
    if config.get("lora_adaptations"):
        raise NoReferenceError("transformers' JinaEmbeddingsV3 class does not read the adapters of the original code")
    if "position_embedding_type" not in config:
        return dict(config)
    shared = {key: value for key, value in config.items() if key not in ("auto_map", "position_embedding_type")}
    return {
        **shared,
        "model_type": "jina_embeddings_v3",
        "architectures": ["JinaEmbeddingsV3Model"],
        "rope_parameters": {"rope_type": "default", "rope_theta": config["rotary_emb_base"]},
    }


JINA_EMBEDDINGS_V3 = Architecture(
    build=jina_embeddings_v3,
    prefix="roberta.",
    heads=HEADS,
    classifier=ROBERTA_CLASSIFIER,
    packable=True,
    reference_config=_reference_config,
)
