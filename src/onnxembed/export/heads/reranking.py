"""Reranking: logits of a pair's token embeddings, by a classification head or a language model's answers; all float32.

References: the ...ForSequenceClassification classes of transformers 5.23, and LogitScore of sentence-transformers
6.2 for language models that answer yes or no. The first token is the first real one: the classes read slot 0,
which differs only in a batch padded on the left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto

from onnxembed.decisions.decide import Decisions
from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.architectures import ARCHITECTURES
from onnxembed.export.architectures.architecture import Classifier, Key
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.checkpoint.tensors import check_finite
from onnxembed.export.graph.graph import Graph, Value, Widths
from onnxembed.export.graph.inputs import B, Encoded, PaddedInputs
from onnxembed.export.graph.pooling import pool
from onnxembed.facts.facts import Facts
from onnxembed.facts.token_ids import vocabulary
from onnxembed.manifest import LOGITS, HeadPooling, PoolingMode, Reranking

# The output layer of a language model, and the embedding table that serves as it where the two are tied.
LM_HEAD, TIED = "lm_head.weight", "embed_tokens.weight"


def is_wanted(decisions: Decisions) -> bool:
    """Whether the model scores pairs."""
    return decisions.reranking is not None


def check(facts: Facts, decisions: Decisions) -> None:
    """Raise UnsupportedError for a classification head that onnxembed does not build."""
    if decisions.reranking is not None and decisions.reranking.answers is None:
        _classifier(facts)


def add_output(encoded: Encoded, facts: Facts, decisions: Decisions) -> None:
    """Declare the output logits, float32 [B, labels].

    Raises ModelFilesError for a tensor that is missing or not of the shape that config.json gives.
    """
    reranking = decisions.reranking
    assert reranking is not None
    logits = _logits(encoded, facts, reranking, decisions.encoder.hidden_size)
    encoded.graph.output(LOGITS, logits, (B, len(reranking.labels.value)))


def section(facts: Facts, decisions: Decisions, widths: Widths, folder: Path) -> Reranking:
    """The manifest's section about reranking."""
    assert decisions.reranking is not None
    return decisions.reranking


def _classifier(facts: Facts) -> Classifier:
    head = ARCHITECTURES[facts.model_type].classifier
    if head is None:
        supported = ", ".join(model_type for model_type, row in ARCHITECTURES.items() if row.classifier)
        raise UnsupportedError(
            f"onnxembed does not build the classification head of {facts.model_type}; known: {supported}"
        )
    return head


def _logits(encoded: Encoded, facts: Facts, reranking: Reranking, hidden_size: int) -> Value:
    g, inputs, tokens = encoded.graph, encoded.inputs, encoded.tokens
    config = Config.of(facts)
    pooling = reranking.pooling.value
    if reranking.answers is not None:
        x = _pool(g, inputs, tokens, pooling, None)  # its template ends every text, never with padding
        return g.op("MatMul", x, _answer_weights(g, facts, config, reranking.answers.value))
    head = _classifier(facts)
    pad = config.take("pad_token_id", int) if config.has("pad_token_id") else None
    x = tokens if pooling == "mean_of_logits" else _pool(g, inputs, tokens, pooling, pad)
    x = _before_last(g, head, config, x, hidden_size)
    x = _linear(g, x, head.out, (len(reranking.labels.value), hidden_size), bias=head.out_bias)
    _check_unused(g, facts, head)
    return _pool(g, inputs, x, "mean", pad) if pooling == "mean_of_logits" else x


def _before_last(g: Graph, head: Classifier, config: Config, x: Value, size: int) -> Value:
    if head.dense is not None:
        x = _linear(g, x, head.dense, (size, size), bias=_value(config, head.dense_bias))
        x = g.activation(x, _value(config, head.activation), "fp32")
    if head.norm is not None:
        eps, biased = config.take("norm_eps", float, 1e-5), config.take("norm_bias", bool, False)
        parts = ("weight", "bias") if biased else ("weight",)
        weights = [_read(g, f"{head.norm}.{part}", (size,)) for part in parts]
        x = g.op("LayerNormalization", x, *weights, name=head.norm, epsilon=eps)
    return x


def _value(config: Config, value: Key | Any) -> Any:
    return config.take(value.name, type(value.default), value.default) if isinstance(value, Key) else value


def _pool(g: Graph, inputs: PaddedInputs, x: Value, mode: HeadPooling, pad_token_id: int | None) -> Value:
    """What the head reads: x [B, T, D] -> [B, D].

    The last token of transformers' decoders is the rightmost one that is not the pad token: a text that ends
    with that token itself is read before its end.
    """
    if mode != "lasttoken" or pad_token_id is None:
        modes: dict[HeadPooling, PoolingMode] = {"cls": "cls", "mean": "mean", "lasttoken": "lasttoken"}
        return pool(g, x, inputs.attention_mask, (modes[mode],))
    pad = g.constant("pad_token_id_of_the_head", np.array(pad_token_id, np.int64))
    real = g.op("Cast", g.op("Not", g.op("Equal", inputs.input_ids, pad)), to=TensorProto.INT64)  # [B, T]
    # The count of real tokens is largest at the last of them; if there is none, the first slot is read.
    places = g.op("Mul", g.op("CumSum", real, g.constant("axis_of_tokens", np.array(1, np.int64))), real)
    return g.op("GatherND", x, g.op("ArgMax", places, axis=1), batch_dims=1)


def _linear(g: Graph, x: Value, name: str, shape: tuple[int, int], *, bias: bool) -> Value:
    """A torch Linear with a weight (out, in) of this shape."""
    weight = _read(g, f"{name}.weight", shape, transpose=True)
    product = g.op("MatMul", x, weight, name=name)
    return g.op("Add", product, _read(g, f"{name}.bias", shape[:1])) if bias else product


def _read(g: Graph, name: str, shape: tuple[int, ...], *, transpose: bool = False) -> Value:
    """A tensor of the checkpoint as a float32 constant."""
    if (stored := g.weights.shape(name)) != shape:
        raise ModelFilesError(
            f"the weights in {g.weights.folder}: {name} has the shape {stored}, but config.json says {shape} "
            "(labels: id2label or num_labels)"
        )
    tensor = g.weights.read(name).astype(np.float32)
    check_finite(name, tensor)
    return g.constant(f"{name}.T" if transpose else name, np.ascontiguousarray(tensor.T if transpose else tensor))


def _check_unused(g: Graph, facts: Facts, head: Classifier) -> None:
    """Raise UnsupportedError for a head with more tensors than its class has."""
    own = tuple(f"{name}." for name in (head.out, head.dense, head.norm) if name)
    if strange := [name for name in g.weights.unused() if name.startswith(own)]:
        raise UnsupportedError(
            f"the weights in {g.weights.folder} have {', '.join(strange)}, which the head of {facts.model_type} "
            "does not use as config.json describes it"
        )


def _answer_weights(g: Graph, facts: Facts, config: Config, answers: tuple[str, ...]) -> Value:
    """[D, 1]: the first answer's row of the output layer, minus the second's."""
    ids = vocabulary(facts)
    if missing := [token for token in answers if token not in ids]:
        raise ModelFilesError(f"the tokenizer in {facts.transformer_folder} has no token {missing[0]!r}")
    name = LM_HEAD
    if not g.weights.has(LM_HEAD):
        if not config.take("tie_word_embeddings", bool, False):
            raise ModelFilesError(f"the weights in {g.weights.folder} have no tensor {LM_HEAD}, and it is not tied")
        name = TIED
        g.weights.refuse_adapted(TIED, LM_HEAD)
    rows = [g.weights.read(name)[ids[token]].astype(np.float32) for token in answers]
    for row in rows:
        check_finite(name, row)
    difference = rows[0] - rows[1] if len(rows) > 1 else rows[0]
    return g.constant("answers", np.ascontiguousarray(difference[:, None]))
