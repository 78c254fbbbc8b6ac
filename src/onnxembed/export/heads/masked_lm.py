"""The head of a masked language model, reduced to a weight for each id of the vocabulary (SPLADE), in the graph.

Logits [B, T, V] are hundreds of megabytes for a run of a thousand tokens. So the vocabulary is cut into chunks,
and each chunk's logits are reduced over the tokens before the next chunk's are computed.

Reference: the *ForMaskedLM classes of transformers, and sentence-transformers 6.2 (sparse_encoder/modules/
splade_pooling.py). The largest logit is found before bias, relu and logarithm, which all keep the order of numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from onnx import TensorProto

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.graph.inputs import Inputs
from onnxembed.facts.facts import Facts
from onnxembed.facts.sparse import SparseFacts
from onnxembed.manifest import SparseActivation

CHUNK = 4096
"""Ids of the vocabulary whose logits are computed together."""


@dataclass(frozen=True)
class MaskedLM:
    """decoder(norm(activation(dense(x)))): tensor names, and config.json's keys.

    `biases`: what the decoder's bias is called, in order of preference; where it is not tied to the embeddings, in
    the other order. `table`: the embeddings that the decoder
    is tied to, where it has no weight of its own. `activation`: the key that names it, None for gelu. `eps`: the
    key and the default of the norm's epsilon. `optional`: parts whose bias a key, with its default, may leave out.
    """

    dense: str
    norm: str
    decoder: str
    biases: tuple[str, ...]
    table: str = "embeddings.word_embeddings"
    activation: str | None = None
    eps: tuple[str | None, float] = ("layer_norm_eps", 1e-12)
    optional: Mapping[str, tuple[str, bool]] = field(default_factory=dict)


_ROBERTA = MaskedLM("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", ("lm_head.bias", "lm_head.decoder.bias"))

HEADS: dict[str, MaskedLM] = {
    "bert": MaskedLM(
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.decoder",
        ("cls.predictions.bias", "cls.predictions.decoder.bias"),
        activation="hidden_act",
    ),
    "camembert": _ROBERTA,
    "distilbert": MaskedLM(
        "vocab_transform",
        "vocab_layer_norm",
        "vocab_projector",
        ("vocab_projector.bias",),
        activation="activation",
        eps=(None, 1e-12),
    ),
    "electra": MaskedLM(
        "generator_predictions.dense",
        "generator_predictions.LayerNorm",
        "generator_lm_head",
        ("generator_lm_head.bias",),
    ),
    "modernbert": MaskedLM(
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
    "mpnet": _ROBERTA,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}


@dataclass(frozen=True)
class Decoder:
    """The Linear whose weight gives the vocabulary's logits, by its name, and the tensor of the bias, if any."""

    linear: str
    bias: str | None


def sparse_embedding(g: Graph, inputs: Inputs, tokens: Value, facts: Facts, said: SparseFacts) -> tuple[Value, int]:
    """Token embeddings float32 [B, T, D] -> weights float32 [B, V]; also V."""
    if facts.model_type not in HEADS:
        raise UnsupportedError(
            f"onnxembed builds no masked-language-model head for {facts.model_type}; it does for {', '.join(HEADS)}"
        )
    head = HEADS[facts.model_type]
    config = Config(facts.config, str(facts.transformer_folder / "config.json"))
    activation = "gelu" if head.activation is None else config.take(head.activation, str, "gelu")
    key, default = head.eps
    eps = default if key is None else config.take(key, float, default)
    x = g.from_float32(tokens)
    if _has_bias(config, head, "dense"):
        x = g.linear_act(x, head.dense, activation)
    else:
        x = g.activation(g.product(x, head.dense), activation)
    x = g.layer_norm(x, head.norm, eps, bias=_has_bias(config, head, "norm"))
    decoder = _decoder(g, config, head)
    reduce = _largest if said.aggregation.value == "max" else _total
    weights = reduce(g, inputs, x, decoder, said.activation.value)
    return weights, g.weights.shape(f"{decoder.linear}.weight")[0]


def _has_bias(config: Config, head: MaskedLM, part: str) -> bool:
    if part not in head.optional:
        return True
    key, default = head.optional[part]
    return config.take(key, bool, default)


def _decoder(g: Graph, config: Config, head: MaskedLM) -> Decoder:
    """The decoder's tensors; one of the wrong width is an error."""
    vocabulary, width = config.take("vocab_size", int), g.weights.shape(f"{head.norm}.weight")[0]
    tied = config.take("tie_word_embeddings", bool, True)
    linear = head.decoder if g.weights.has(f"{head.decoder}.weight") else head.table
    if linear == head.table and not tied:
        raise ModelFilesError(
            f"{g.weights.folder}: config.json says that {head.decoder}.weight is not tied to the embeddings, "
            "but the weights have no such tensor"
        )
    expected: dict[str, tuple[int, ...]] = {f"{linear}.weight": (vocabulary, width)}
    bias = None
    if _has_bias(config, head, "decoder"):
        names = head.biases if tied else head.biases[::-1]
        bias = next((name for name in names if g.weights.has(name)), names[0])
        expected[bias] = (vocabulary,)
    for name, shape in expected.items():
        if g.weights.shape(name) != shape:
            raise ModelFilesError(
                f"{g.weights.folder}: {name} has the shape {g.weights.shape(name)}, but the head needs {shape}"
            )
    return Decoder(linear, bias)


def _chunks(g: Graph, linear: str) -> Iterator[slice]:
    rows = g.weights.shape(f"{linear}.weight")[0]
    return (slice(start, min(start + CHUNK, rows)) for start in range(0, rows, CHUNK))


def _largest(g: Graph, inputs: Inputs, x: Value, decoder: Decoder, activation: SparseActivation) -> Value:
    """Of x [B, T, H], the largest weight over the tokens, [B, V].

    A slot of padding stands for the text's first token once more, which changes no maximum and needs no mask as
    large as the logits.
    """
    first = g.op("ArgMax", inputs.attention_mask, axis=1)  # [B, 1]
    real = g.op("Unsqueeze", g.op("Cast", inputs.attention_mask, to=TensorProto.BOOL), g.integers(-1))
    stand_in = g.op("Unsqueeze", g.op("GatherND", x, first, batch_dims=1), g.integers(1))  # [B, 1, H]
    x = g.op("Where", real, x, stand_in)
    largest = [
        g.op("ReduceMax", g.product(x, decoder.linear, rows), g.integers(1), keepdims=0)
        for rows in _chunks(g, decoder.linear)
    ]
    logits = _joined(g, largest)
    logits = g.to_float32(g.op("Add", logits, g.weight(decoder.bias)) if decoder.bias else logits)
    # A text without any token has no weight either.
    some = g.op("Cast", g.op("ReduceMax", inputs.attention_mask, g.integers(1)), to=TensorProto.FLOAT)
    return g.op("Mul", _activated(g, logits, activation), some)


def _total(g: Graph, inputs: Inputs, x: Value, decoder: Decoder, activation: SparseActivation) -> Value:
    """Of x [B, T, H], the sum of the weights of the tokens, [B, V]."""
    mask = g.op("Unsqueeze", g.op("Cast", inputs.attention_mask, to=TensorProto.FLOAT), g.integers(1))  # [B, 1, T]
    sums = []
    for rows in _chunks(g, decoder.linear):
        logits = g.product(x, decoder.linear, rows)
        logits = g.to_float32(g.op("Add", logits, g.weight(decoder.bias, rows=rows)) if decoder.bias else logits)
        sums.append(g.op("Squeeze", g.op("MatMul", mask, _activated(g, logits, activation)), g.integers(1)))
    return _joined(g, sums)


def _joined(g: Graph, parts: list[Value]) -> Value:
    return parts[0] if len(parts) == 1 else g.op("Concat", *parts, axis=-1)


def _activated(g: Graph, logits: Value, activation: SparseActivation) -> Value:
    weights = g.op("Relu", logits)
    for _ in range(activation.count("log1p")):
        weights = g.op("Log", g.op("Add", weights, g.float32(1.0)))
    return weights
