"""BERT, RoBERTa (and XLM-R, CamemBERT) and ELECTRA: post-norm encoders with a table of positions.

Reference: transformers, models/bert, models/roberta and models/electra.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from onnx import TensorProto

from onnxembed.export.architectures.architecture import Architecture, Classifier, MaskedLM
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.graph.attention import Mask, attention
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.graph.inputs import Inputs


@dataclass(frozen=True)
class LayerNames:
    """Tensor names of a layer; `{}` stands for its number."""

    query: str
    key: str
    value: str
    attention_out: str
    attention_norm: str
    mlp_in: str
    mlp_out: str
    mlp_norm: str

    def at(self, index: int) -> LayerNames:
        """The names in layer `index`."""
        return LayerNames(**{part: name.format(index) for part, name in asdict(self).items()})


@dataclass(frozen=True)
class LayerStyle:
    """What a layer's weights do not show."""

    heads: int
    activation: str
    eps: float


BERT_LAYERS = LayerNames(
    query="encoder.layer.{}.attention.self.query",
    key="encoder.layer.{}.attention.self.key",
    value="encoder.layer.{}.attention.self.value",
    attention_out="encoder.layer.{}.attention.output.dense",
    attention_norm="encoder.layer.{}.attention.output.LayerNorm",
    mlp_in="encoder.layer.{}.intermediate.dense",
    mlp_out="encoder.layer.{}.output.dense",
    mlp_norm="encoder.layer.{}.output.LayerNorm",
)


def bert(g: Graph, config: Config, inputs: Inputs) -> Value:
    """BertModel; positions count from the first slot, padding included."""
    positions = inputs.position_rows("embeddings.position_embeddings.weight")  # [T, D]
    return _layers(g, config, inputs, _embed(g, config, inputs, positions))


def electra(g: Graph, config: Config, inputs: Inputs) -> Value:
    """ElectraModel; its embeddings may be narrower than its layers."""
    positions = inputs.position_rows("embeddings.position_embeddings.weight")  # [T, E]
    x = _embed(g, config, inputs, positions, width="embedding_size")
    if config.take("embedding_size", int) != config.take("hidden_size", int):
        x = g.linear(x, "embeddings_project")
    return _layers(g, config, inputs, x)


def roberta(g: Graph, config: Config, inputs: Inputs) -> Value:
    """RobertaModel; positions count the tokens that are not pad_token_id, from pad_token_id + 1."""
    ids = places_after_pad(g, inputs, config.take("pad_token_id", int, 1))
    positions = g.embedding("embeddings.position_embeddings", ids)  # [B, T, D]
    return _layers(g, config, inputs, _embed(g, config, inputs, positions))


def places_after_pad(g: Graph, inputs: Inputs, pad_token_id: int) -> Value:
    """Positions [B, T] as RoBERTa counts them; a pad token has position pad_token_id, even inside a text."""
    pad = g.constant("pad_token_id", np.array(pad_token_id, np.int64))
    real = g.op("Cast", g.op("Not", g.op("Equal", inputs.input_ids, pad)), to=TensorProto.INT64)  # [B, T]
    places = inputs.running_count(real)
    return g.op("Add", g.op("Mul", places, real), pad)


def _embed(g: Graph, config: Config, inputs: Inputs, positions: Value, *, width: str = "hidden_size") -> Value:
    """LayerNorm(words + positions + segments) -> [B, T, D]; the config key `width` gives their width D."""
    config.expect("position_embedding_type", "absolute")
    config.take("pad_token_id", int, 0)
    tables = {"word": "vocab_size", "position": "max_position_embeddings", "token_type": "type_vocab_size"}
    for table, rows in tables.items():
        name = f"embeddings.{table}_embeddings.weight"
        config.confirm_shape(name, g.weights.shape(name), rows, width)
    words = g.embedding("embeddings.word_embeddings", inputs.input_ids)
    types = "embeddings.token_type_embeddings"
    if config.take("type_vocab_size", int) > 1:
        places = g.op("Add", g.embedding(types, inputs.token_type_ids), positions)
    else:
        places = g.op("Add", positions, g.weight(f"{types}.weight"))
    return g.add_layer_norm(words, places, "embeddings.LayerNorm", _eps(config))


def _eps(config: Config) -> float:
    return config.take("layer_norm_eps", float, 1e-12)


def _layers(g: Graph, config: Config, inputs: Inputs, x: Value) -> Value:
    style = LayerStyle(config.take("num_attention_heads", int), config.take("hidden_act", str, "gelu"), _eps(config))
    for index in range(config.take("num_hidden_layers", int)):
        names = BERT_LAYERS.at(index)
        config.confirm_shape(
            names.mlp_in, g.weights.shape(f"{names.mlp_in}.weight"), "intermediate_size", "hidden_size"
        )
        x = post_norm_layer(g, x, inputs.mask, names, style)
    return x


def post_norm_layer(g: Graph, x: Value, mask: Mask, names: LayerNames, style: LayerStyle) -> Value:
    """x -> norm(x + attention(x)) -> norm(x + mlp(x)), all [B, T, D]."""
    g.layer_inputs.append(x)
    projections = (names.query, names.key, names.value)
    query, key, value = (g.product(x, name) for name in projections)
    head_dim = g.weights.shape(f"{names.query}.weight")[0] // style.heads
    attended = attention(g, query, key, value, heads=style.heads, head_dim=head_dim, mask=mask, biases=projections)
    out = names.attention_out
    x = g.add_layer_norm(g.product(attended, out), x, names.attention_norm, style.eps, linear=out)
    inner = g.linear_act(x, names.mlp_in, style.activation)
    return g.add_layer_norm(g.product(inner, names.mlp_out), x, names.mlp_norm, style.eps, linear=names.mlp_out)


HEADS = r"pooler|cls|classifier|qa_outputs|lm_head|embeddings\.position_ids"
ROBERTA_CLASSIFIER = Classifier("classifier.out_proj", dense="classifier.dense")
ROBERTA_MASKED_LM = MaskedLM(
    "lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", ("lm_head.bias", "lm_head.decoder.bias")
)

BERT = Architecture(
    build=bert,
    prefix="bert.",
    heads=HEADS,
    classifier=Classifier("classifier", dense="pooler.dense"),
    masked_lm=MaskedLM(
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.decoder",
        ("cls.predictions.bias", "cls.predictions.decoder.bias"),
        activation="hidden_act",
    ),
    packable=True,
    traceable=True,
    tokenizer_class="BertTokenizer",
)
ROBERTA = Architecture(
    build=roberta,
    prefix="roberta.",
    heads=HEADS,
    classifier=ROBERTA_CLASSIFIER,
    masked_lm=ROBERTA_MASKED_LM,
    packable=True,
    traceable=True,
    tokenizer_class="RobertaTokenizer",
)
XLM_ROBERTA = replace(ROBERTA, tokenizer_class="XLMRobertaTokenizer")
CAMEMBERT = replace(ROBERTA, tokenizer_class="CamembertTokenizer")
ELECTRA = Architecture(
    build=electra,
    prefix="electra.",
    heads=r"discriminator_predictions|generator_predictions|generator_lm_head|classifier|qa_outputs"
    r"|embeddings\.position_ids",
    classifier=Classifier("classifier.out_proj", dense="classifier.dense", activation="gelu"),
    masked_lm=MaskedLM(
        "generator_predictions.dense",
        "generator_predictions.LayerNorm",
        "generator_lm_head",
        ("generator_lm_head.bias",),
    ),
    packable=True,
    traceable=True,
    tokenizer_class="ElectraTokenizer",
)
