"""Sparse embeddings of a graph that another program made: finished ones, weights of tokens, or logits."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from onnxembed.decisions.compose_manifest import TokenLookup, sparse_section
from onnxembed.decisions.decide import Decisions
from onnxembed.errors import UnsupportedError
from onnxembed.facts.facts import Facts
from onnxembed.loading.adoption.outputs import check_axes, check_width, require_output
from onnxembed.loading.graph_walk import final_activation
from onnxembed.loading.onnx_file import OnnxFile, Value
from onnxembed.manifest import LOGITS, SPARSE_EMBEDDING, SPARSE_WEIGHTS, Sparse


def output(graph: OnnxFile, facts: Facts, decisions: Decisions) -> Value:
    """The output to read: sparse_embedding [B, V], or logits [B, T, V]; for bge-m3's head sparse_weights [B, T]."""
    assert decisions.sparse is not None
    if decisions.sparse.head is not None:
        value = require_output(graph, [SPARSE_WEIGHTS])
        check_axes(graph, value, rank=2)
        return value
    value = require_output(graph, [SPARSE_EMBEDDING, LOGITS])
    check_axes(graph, value, rank=3 if value.name == LOGITS else 2)
    check_width(graph, value, _vocabulary(facts))
    activation = final_activation(graph, value)
    if value.name == LOGITS and activation:
        raise UnsupportedError(f"{graph.path}: {LOGITS} are what {activation} gives, not logits")
    return value


def section(decisions: Decisions, facts: Facts, output: Value, ids: TokenLookup) -> Sparse:
    """The manifest's section about an adopted graph's sparse embeddings."""
    assert decisions.sparse is not None
    aggregated_by: Literal["graph", "runtime"] = "graph" if output.name == SPARSE_EMBEDDING else "runtime"
    return replace(sparse_section(decisions.sparse, ids, _vocabulary(facts), aggregated_by), output=output.name)


def _vocabulary(facts: Facts) -> int:
    return int(facts.config["vocab_size"])
