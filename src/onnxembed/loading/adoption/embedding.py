"""Sentence embeddings of a graph that another program made: pooled by the graph, or by the runtime."""

from __future__ import annotations

import numpy as np

from onnxembed.decisions.compose_manifest import TokenLookup, prompt_left_out
from onnxembed.decisions.decide import Decisions
from onnxembed.decisions.embedding import EmbeddingDecisions
from onnxembed.errors import ModelFilesError, UnsupportedError, UsageError
from onnxembed.facts.facts import Facts
from onnxembed.facts.modules import NormalizeFacts
from onnxembed.loading.adoption.measuring import run_ids
from onnxembed.loading.adoption.outputs import check_axes, check_width, find_output, require_output
from onnxembed.loading.graph_walk import pools_first_token
from onnxembed.loading.onnx_file import OnnxFile, Value
from onnxembed.manifest import (
    LAST_HIDDEN_STATE,
    LOGITS,
    SENTENCE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    Dense,
    Embedding,
)
from onnxembed.tokenizer.declared_tokens import special_texts

TOKEN_OUTPUTS = (TOKEN_EMBEDDINGS, LAST_HIDDEN_STATE)
"""The names of an output of token embeddings, in order of preference."""

MEANS = ("mean", "mean_sqrt_len", "weightedmean")
"""The poolings that take every token into account, by a sum."""

# A token's embedding and a sentence embedding of that token alone have at least this cosine if no module is between.
_SAME = 0.9999


def output(graph: OnnxFile, facts: Facts, decisions: Decisions) -> Value:
    """The output to read: the token embeddings, which the runtime pools as was decided, or the sentence embedding.

    A graph that gives both may pool in another way than its files say, so its sentence embedding is read only where
    modules follow the pooling that the graph computes.
    """
    embedding = decisions.embedding
    assert embedding is not None
    value = _chosen(graph, facts, embedding)
    pooled = value.name == SENTENCE_EMBEDDING
    check_axes(graph, value, rank=2 if pooled else 3)
    check_width(graph, value, embedding.dimension if pooled else decisions.encoder.hidden_size)
    if pooled and _changes_direction_alone(facts, decisions):
        value = _before_or_after_layers(graph, value, embedding)
    if value.name != SENTENCE_EMBEDDING and (facts.post.token_layers or not facts.post.only_dense):
        raise UnsupportedError(
            f"{graph.path} leaves the modules around the pooling to the runtime, which applies only Dense modules "
            f"after it and Normalize; make a graph with the output {SENTENCE_EMBEDDING}, or export the checkpoint"
        )
    return value


def section(
    embedding: EmbeddingDecisions, facts: Facts, output: Value, dense: tuple[Dense, ...], ids: TokenLookup
) -> Embedding:
    """The manifest's section about an adopted graph's sentence embeddings."""
    pooled = output.name == SENTENCE_EMBEDDING
    left_out = None
    if not embedding.include_prompt.value:
        left_out = prompt_left_out(embedding.include_prompt, special_texts(facts), ids)
    return Embedding(
        pooling=embedding.pooling,
        dense=dense,
        normalize=embedding.normalize,
        dimension=embedding.dimension,
        pooled_by="graph" if pooled else "runtime",
        output=output.name,
        normalize_again=pooled and embedding.normalize.value,
        prompt_left_out=left_out,
    )


def _chosen(graph: OnnxFile, facts: Facts, embedding: EmbeddingDecisions) -> Value:
    tokens, sentence = find_output(graph, TOKEN_OUTPUTS), find_output(graph, [SENTENCE_EMBEDDING])
    post = facts.post
    modes_in_files = post.poolings[0].modes if len(post.poolings) == 1 else ()
    as_made = embedding.pooling.value == modes_in_files and (embedding.normalize.value or not post.normalize)
    if not embedding.include_prompt.value:
        if tokens is None:
            raise UnsupportedError(
                f"{graph.path} pools its tokens, the prompt's included, but {embedding.include_prompt.reason}; make a "
                f"graph with the output {TOKEN_EMBEDDINGS}, or export the checkpoint"
            )
        return tokens
    follow = bool(facts.post.token_layers or facts.post.layers)
    if tokens is not None and not (follow and as_made and sentence is not None):
        return tokens
    if sentence is None:
        hint = "; --task sparse makes sparse embeddings of logits" if find_output(graph, [LOGITS]) else ""
        return require_output(graph, (SENTENCE_EMBEDDING, *TOKEN_OUTPUTS), hint)
    if modes_in_files and not as_made:
        raise UsageError(
            f"{graph.path} pools its tokens as the model's files say, and gives nothing else: neither --pooling nor "
            "--no-normalize can change that"
        )
    _check_pooling(graph, sentence, embedding)
    return sentence


def _check_pooling(graph: OnnxFile, sentence: Value, embedding: EmbeddingDecisions) -> None:
    """Raise ModelFilesError for a graph that shows that it pools in another way than was decided."""
    modes, first_token = embedding.pooling.value, pools_first_token(graph, sentence)
    wrong = {True: MEANS, False: ("cls",)}
    if first_token is not None and set(modes) <= set(wrong[first_token]):
        raise ModelFilesError(
            f"{graph.path}: {sentence.name} is {'one token' if first_token else 'a sum over the tokens'} of each text, "
            f"but pooling is {'+'.join(modes)} ({embedding.pooling.origin}: {embedding.pooling.reason})"
        )


def _changes_direction_alone(facts: Facts, decisions: Decisions) -> bool:
    """Whether the modules around the pooling change vectors, but not their width, by which a graph would show them."""
    embedding, post = decisions.embedding, facts.post
    layers = [layer for layer in (*post.token_layers, *post.layers) if not isinstance(layer, NormalizeFacts)]
    width = decisions.encoder.hidden_size * len(embedding.pooling.value) if embedding else 0
    return bool(layers and embedding and width == embedding.dimension)


def _before_or_after_layers(graph: OnnxFile, sentence: Value, embedding: EmbeddingDecisions) -> Value:
    """The sentence embedding if the model's layers made it; the token embeddings if the graph stops before them.

    It is measured: without layers, every pooling of a text of one token gives that token's embedding.
    """
    tokens = find_output(graph, TOKEN_OUTPUTS)
    if tokens is None:
        raise UnsupportedError(
            f"{graph.path} gives {SENTENCE_EMBEDDING} alone, and nothing shows whether that is before or after the "
            f"model's Dense modules; make the graph with {TOKEN_EMBEDDINGS} beside it, or with onnxembed export"
        )
    ((pooled, (token,)),) = run_ids(graph, [sentence, tokens], [1])
    repeated = np.tile(token[0], len(embedding.pooling.value))
    cosine = float(pooled[0] @ repeated / max(np.linalg.norm(pooled[0]) * np.linalg.norm(repeated), 1e-12))
    return tokens if cosine >= _SAME else sentence
