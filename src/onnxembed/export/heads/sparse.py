"""Sparse embeddings: a weight for each id of the vocabulary, by SPLADE in the graph, or by token for the runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from onnx import TensorProto

from onnxembed.decisions.compose_manifest import sparse_section
from onnxembed.decisions.decide import Decisions
from onnxembed.export.checkpoint.linear import read_linear
from onnxembed.export.graph.graph import Value, Widths
from onnxembed.export.graph.inputs import B, Encoded, T
from onnxembed.export.graph.pooling import linear
from onnxembed.export.heads import masked_lm
from onnxembed.facts.facts import Facts
from onnxembed.manifest import SPARSE_EMBEDDING, SPARSE_WEIGHTS, Sparse
from onnxembed.tokenizer.token_ids import TokenIds


def is_wanted(decisions: Decisions) -> bool:
    """Whether the model makes sparse embeddings."""
    return decisions.sparse is not None


def check(facts: Facts, decisions: Decisions) -> None:
    """Raise UnsupportedError for a masked-language-model head that onnxembed does not build."""
    if decisions.sparse is not None and decisions.sparse.head is None:
        masked_lm.head_of(facts)


def add_output(encoded: Encoded, facts: Facts, decisions: Decisions) -> None:
    """Declare the output sparse_embedding, float32 [B, V], or sparse_weights, float32 [B, T]."""
    head = decisions.sparse
    assert head is not None
    if head.head is None:
        weights, vocabulary = masked_lm.sparse_embedding(encoded, facts, head)
        encoded.graph.output(SPARSE_EMBEDDING, weights, (B, vocabulary))
    else:
        weights = _token_weights(encoded, head.head, decisions.encoder.hidden_size)
        encoded.graph.output(SPARSE_WEIGHTS, weights, (B, T))


def section(facts: Facts, decisions: Decisions, widths: Widths, folder: Path) -> Sparse:
    """The manifest's section about sparse embeddings; its tokens get the ids of the tokenizer in `folder`."""
    head = decisions.sparse
    assert head is not None
    aggregated_by: Literal["graph", "runtime"] = "graph" if head.head is None else "runtime"
    return sparse_section(head, TokenIds.of_folder(folder), int(facts.config["vocab_size"]), aggregated_by)


def _token_weights(encoded: Encoded, file: Path, width: int) -> Value:
    """The weight of each token by the Linear in `file`, [B, T]; 0 in padding."""
    g = encoded.graph
    logits = linear(g, encoded.tokens, file.stem, *read_linear(file, width, 1))
    weights = g.op("Relu", g.op("Squeeze", logits, g.integers(-1)))
    return g.op("Mul", weights, g.op("Cast", encoded.inputs.attention_mask, to=TensorProto.FLOAT))
