"""The head of a masked language model, reduced to a weight for each id of the vocabulary (SPLADE), in the graph.

Logits [B, T, V] take hundreds of megabytes for a run of a thousand tokens. So the vocabulary is cut into chunks,
and the logits of a chunk are reduced over the tokens before those of the next one are computed.

Reference: the *ForMaskedLM classes of transformers, and sentence-transformers 6.2 (sparse_encoder/modules/
splade_pooling.py). The maximum is taken before bias, relu and logarithm, which all preserve order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnx import TensorProto

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.architectures import ARCHITECTURES
from onnxembed.export.architectures.architecture import MaskedLM
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.graph.inputs import Encoded, PaddedInputs
from onnxembed.facts.facts import Facts
from onnxembed.facts.sparse import SparseFacts
from onnxembed.manifest import LOGARITHMS, SparseActivation

CHUNK = 4096
"""Ids of the vocabulary whose logits are computed together."""


@dataclass(frozen=True)
class Decoder:
    """The Linear that computes the vocabulary's logits, by name, and the name of its bias tensor, if it has one."""

    linear: str
    bias: str | None


def head_of(facts: Facts) -> MaskedLM:
    """The head of a checkpoint's model_type; UnsupportedError where onnxembed does not build it."""
    head = ARCHITECTURES[facts.model_type].masked_lm
    if head is None:
        supported = ", ".join(model_type for model_type, row in ARCHITECTURES.items() if row.masked_lm)
        raise UnsupportedError(
            f"onnxembed does not build the masked-language-model head of {facts.model_type}; it does of {supported}"
        )
    return head


def sparse_embedding(encoded: Encoded, facts: Facts, sparse: SparseFacts) -> tuple[Value, int]:
    """The weights float32 [B, V] of a graph's token embeddings; also V.

    Raises ModelFilesError for a decoder that is missing or of another width.
    """
    g, head = encoded.graph, head_of(facts)
    config = Config.of(facts)
    activation = "gelu" if head.activation is None else config.take(head.activation, str, "gelu")
    key, default = head.eps
    eps = default if key is None else config.take(key, float, default)
    x = g.from_float32(encoded.tokens)
    if _has_bias(config, head, "dense"):
        x = g.linear_act(x, head.dense, activation)
    else:
        x = g.activation(g.product(x, head.dense), activation)
    x = g.layer_norm(x, head.norm, eps, bias=_has_bias(config, head, "norm"))
    decoder = _decoder(g, config, head)
    reduce = _largest if sparse.aggregation.value == "max" else _total
    weights = reduce(g, encoded.inputs, x, decoder, sparse.activation.value)
    return weights, g.weights.shape(f"{decoder.linear}.weight")[0]


def _has_bias(config: Config, head: MaskedLM, part: str) -> bool:
    if part not in head.optional:
        return True
    key, default = head.optional[part]
    return config.take(key, bool, default)


def _decoder(g: Graph, config: Config, head: MaskedLM) -> Decoder:
    """The decoder's tensors; ModelFilesError for one of the wrong width."""
    vocabulary, width = config.take("vocab_size", int), g.weights.shape(f"{head.norm}.weight")[0]
    tied = config.take("tie_word_embeddings", bool, True)
    linear = head.decoder if g.weights.has(f"{head.decoder}.weight") else head.table
    if linear == head.table and not tied:
        raise ModelFilesError(
            f"{g.weights.folder}: config.json says that {head.decoder}.weight is not tied to the embeddings, "
            "but the weights have no such tensor"
        )
    if linear == head.table:
        g.weights.refuse_adapted(f"{linear}.weight", head.decoder)
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


def _largest(g: Graph, inputs: PaddedInputs, x: Value, decoder: Decoder, activation: SparseActivation) -> Value:
    """The largest weight over the tokens x [B, T, H]: [B, V].

    Padding is replaced by the text's first token, which changes no maximum and needs no mask as large as the logits.
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
    # A text without tokens has no weights.
    some = g.op("Cast", g.op("ReduceMax", inputs.attention_mask, g.integers(1)), to=TensorProto.FLOAT)
    return g.op("Mul", _activated(g, logits, activation), some)


def _total(g: Graph, inputs: PaddedInputs, x: Value, decoder: Decoder, activation: SparseActivation) -> Value:
    """The sum of the weights of the tokens x [B, T, H]: [B, V]."""
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
    for _ in range(LOGARITHMS[activation]):
        weights = g.op("Log", g.op("Add", weights, g.float32(1.0)))
    return weights
