"""DistilBERT: BERT's layers under other names, without segments.

Reference: transformers, models/distilbert.
"""

from __future__ import annotations

from onnxembed.export.architectures.architecture import Architecture, Classifier, MaskedLM
from onnxembed.export.architectures.bert import LayerNames, LayerStyle, post_norm_layer
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.graph.inputs import Inputs

EPS = 1e-12  # fixed in the reference, not in the config

LAYERS = LayerNames(
    query="transformer.layer.{}.attention.q_lin",
    key="transformer.layer.{}.attention.k_lin",
    value="transformer.layer.{}.attention.v_lin",
    attention_out="transformer.layer.{}.attention.out_lin",
    attention_norm="transformer.layer.{}.sa_layer_norm",
    mlp_in="transformer.layer.{}.ffn.lin1",
    mlp_out="transformer.layer.{}.ffn.lin2",
    mlp_norm="transformer.layer.{}.output_layer_norm",
)


def distilbert(g: Graph, config: Config, inputs: Inputs) -> Value:
    """DistilBertModel; sinusoidal positions, where used, are stored in the checkpoint like learned ones."""
    config.take("pad_token_id", int, 0)
    for table, rows in (("word", "vocab_size"), ("position", "max_position_embeddings")):
        name = f"embeddings.{table}_embeddings.weight"
        config.confirm_shape(name, g.weights.shape(name), rows, "dim")
    words = g.embedding("embeddings.word_embeddings", inputs.input_ids)
    positions = inputs.position_rows("embeddings.position_embeddings.weight")  # [T, D]
    x = g.add_layer_norm(words, positions, "embeddings.LayerNorm", EPS)
    style = LayerStyle(config.take("n_heads", int), config.take("activation", str, "gelu"), EPS)
    for index in range(config.take("n_layers", int)):
        names = LAYERS.at(index)
        config.confirm_shape(names.mlp_in, g.weights.shape(f"{names.mlp_in}.weight"), "hidden_dim", "dim")
        x = post_norm_layer(g, x, inputs.mask, names, style)
    return x


DISTILBERT = Architecture(
    build=distilbert,
    prefix="distilbert.",
    heads=r"vocab_transform|vocab_layer_norm|vocab_projector|pre_classifier|classifier|qa_outputs",
    classifier=Classifier("classifier", dense="pre_classifier", activation="relu"),
    masked_lm=MaskedLM(
        "vocab_transform",
        "vocab_layer_norm",
        "vocab_projector",
        ("vocab_projector.bias",),
        activation="activation",
        eps=(None, EPS),
    ),
    packable=True,
    traceable=True,
    tokenizer_class="DistilBertTokenizer",
)
