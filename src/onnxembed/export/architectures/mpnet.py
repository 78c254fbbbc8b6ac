"""MPNet: BERT's layers, RoBERTa's positions, and a learned bias of the scores by the distance of two tokens.

Reference: transformers, models/mpnet (https://arxiv.org/abs/2004.09297).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnxembed.export.architectures.architecture import Architecture
from onnxembed.export.architectures.bert import (
    HEADS,
    ROBERTA_CLASSIFIER,
    ROBERTA_MASKED_LM,
    LayerNames,
    LayerStyle,
    places_after_pad,
    post_norm_layer,
)
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.graph.attention import Mask
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.graph.inputs import Inputs

# Fixed in the reference, whatever the config says.
PAD, BUCKETS, MAX_DISTANCE = 1, 32, 128

LAYERS = LayerNames(
    query="encoder.layer.{}.attention.attn.q",
    key="encoder.layer.{}.attention.attn.k",
    value="encoder.layer.{}.attention.attn.v",
    attention_out="encoder.layer.{}.attention.attn.o",
    attention_norm="encoder.layer.{}.attention.LayerNorm",
    mlp_in="encoder.layer.{}.intermediate.dense",
    mlp_out="encoder.layer.{}.output.dense",
    mlp_norm="encoder.layer.{}.output.LayerNorm",
)


def mpnet(g: Graph, config: Config, inputs: Inputs) -> Value:
    """MPNetModel; it has no segments."""
    config.expect("pad_token_id", PAD)
    config.expect("relative_attention_num_buckets", BUCKETS)
    for table, rows in (("word", "vocab_size"), ("position", "max_position_embeddings")):
        name = f"embeddings.{table}_embeddings.weight"
        config.confirm_shape(name, g.weights.shape(name), rows, "hidden_size")
    eps = config.take("layer_norm_eps", float, 1e-12)
    style = LayerStyle(config.take("num_attention_heads", int), config.take("hidden_act", str, "gelu"), eps)
    words = g.embedding("embeddings.word_embeddings", inputs.input_ids)
    positions = g.embedding("embeddings.position_embeddings", places_after_pad(g, inputs, PAD))
    x = g.add_layer_norm(words, positions, "embeddings.LayerNorm", eps)
    mask = _distance_bias(g, config, inputs.mask)
    for index in range(config.take("num_hidden_layers", int)):
        names = LAYERS.at(index)
        shape = g.weights.shape(f"{names.mlp_in}.weight")
        config.confirm_shape(names.mlp_in, shape, "intermediate_size", "hidden_size")
        x = post_norm_layer(g, x, mask, names, style)
    return x


def _distance_bias(g: Graph, config: Config, mask: Mask) -> Mask:
    """The mask with a bias [1, H, T, T]: the row of the table for the bucket of each pair's distance.

    Distances count slots, padding included, as in the reference. Every run needs the bias, and so a mask.
    """
    table = "encoder.relative_attention_bias.weight"
    config.confirm_shape(table, g.weights.shape(table), "relative_attention_num_buckets", "num_attention_heads")
    reach = g.constant("distance_buckets", distance_buckets())
    by_distance = g.op("Gather", g.weight(table, transpose=True), reach, axis=1)  # [H, 2 * MAX_DISTANCE + 1]
    length = g.op("Squeeze", g.op("Shape", mask.keys, start=1, end=2))
    slots = g.op("Range", g.integer(0), length, g.integer(1))
    queries, keys = g.op("Unsqueeze", slots, g.integers(1)), g.op("Unsqueeze", slots, g.integers(0))
    distances = g.op("Clip", g.op("Sub", keys, queries), g.integer(-MAX_DISTANCE), g.integer(MAX_DISTANCE))
    places = g.op("Add", distances, g.integer(MAX_DISTANCE))  # [T, T]
    bias = g.op("Unsqueeze", g.op("Gather", by_distance, places, axis=1), g.integers(0))
    return replace(mask, bias=bias, free="")


def distance_buckets() -> NDArray[np.int64]:
    """The bucket of each key - query from -MAX_DISTANCE to MAX_DISTANCE; farther ones share the last.

    Half of the buckets are for keys before the query; of these, half are for one distance each, the
    others for ever wider ranges.
    """
    distances = np.arange(-MAX_DISTANCE, MAX_DISTANCE + 1)
    half, exact = BUCKETS // 2, BUCKETS // 4
    away = np.abs(distances)
    # In float32, as the reference: the ranges begin at powers, where rounding decides.
    logs = np.log(np.maximum(away, 1).astype(np.float32) / np.float32(exact))
    steps = logs / np.float32(math.log(MAX_DISTANCE / exact)) * np.float32(half - exact)
    wide = np.minimum(exact + steps.astype(np.int64), half - 1)
    buckets: NDArray[np.int64] = np.where(away < exact, away, wide) + half * (distances > 0)
    return buckets


MPNET = Architecture(
    build=mpnet,
    prefix="mpnet.",
    heads=HEADS,
    classifier=ROBERTA_CLASSIFIER,
    masked_lm=ROBERTA_MASKED_LM,
    packable=True,
    traceable=True,
    tokenizer_class="MPNetTokenizer",
)
