"""Sentence embeddings: pooled tokens, taken through Dense layers, normalized."""

from __future__ import annotations

from pathlib import Path

from onnxembed.decisions.decide import Decisions
from onnxembed.export.graph import pooling
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.graph.inputs import B, Encoded, Pool
from onnxembed.facts.facts import Facts
from onnxembed.manifest import SENTENCE_EMBEDDING, Dense, Embedding


def is_wanted(decisions: Decisions) -> bool:
    """Whether the model makes sentence embeddings."""
    return decisions.embedding is not None


def check(facts: Facts, decisions: Decisions) -> None:
    """Do nothing: every sentence embedding can be built."""


def add_output(encoded: Encoded, facts: Facts, decisions: Decisions) -> None:
    """Declare the output sentence_embedding, float32 [B, dimension]."""
    add_sentence_embedding(encoded.graph, encoded.tokens, encoded.pool, facts, decisions)


def add_sentence_embedding(g: Graph, tokens: Value, pool: Pool, facts: Facts, decisions: Decisions) -> None:
    """Declare the output sentence_embedding, float32 [B, dimension], of token embeddings that `pool` takes."""
    embedding = decisions.embedding
    assert embedding is not None
    sentence = pool(tokens, embedding.pooling.value)
    for number, layer in enumerate(facts.dense):
        sentence = pooling.dense(g, sentence, layer, dense_name(number))
    if embedding.normalize.value:
        sentence = pooling.normalize(g, sentence)
    g.output(SENTENCE_EMBEDDING, sentence, (B, embedding.dimension))


def section(facts: Facts, decisions: Decisions, graph: Graph, folder: Path) -> Embedding:
    """The manifest's section about sentence embeddings."""
    embedding = decisions.embedding
    assert embedding is not None
    pooled = SENTENCE_EMBEDDING in [value.name for value in graph.outputs]
    return Embedding(
        pooling=embedding.pooling,
        dense=dense_entries(facts, in_files=not pooled),
        normalize=embedding.normalize,
        dimension=embedding.dimension,
        pooled_by="graph" if pooled else "runtime",
    )


def dense_name(number: int) -> str:
    """The name of a Dense layer (0, 1, ...), in the graph and of its folder, after the Transformer and the Pooling."""
    return f"{number + 2}_Dense"


def dense_entries(facts: Facts, *, in_files: bool) -> tuple[Dense, ...]:
    """The manifest's entries of the Dense layers; `in_files`: with weights in .npy files, for the runtime to apply."""
    return tuple(
        Dense(
            layer.in_features,
            layer.out_features,
            layer.activation,
            f"{dense_name(number)}/weight.npy" if in_files else None,
            f"{dense_name(number)}/bias.npy" if in_files and layer.bias else None,
        )
        for number, layer in enumerate(facts.dense)
    )
