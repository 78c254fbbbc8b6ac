"""Scores of a graph that another program made: its logits, to which the runtime applies the activation."""

from __future__ import annotations

from onnxembed.decisions.decide import Decisions
from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.facts.facts import Facts
from onnxembed.loading.adoption.outputs import check_axes, require_output, shown
from onnxembed.loading.graph_walk import final_activation
from onnxembed.loading.onnx_file import OnnxFile, Value
from onnxembed.manifest import LOGITS


def output(graph: OnnxFile, facts: Facts, decisions: Decisions) -> Value:
    """The output logits, [B, labels]; UnsupportedError for scores that an activation has already made."""
    reranking = decisions.reranking
    assert reranking is not None
    value = require_output(graph, [LOGITS])
    if reranking.answers is not None and value.shape is not None and len(value.shape) == 3:
        raise UnsupportedError(
            f"{graph.path} gives the logits of the whole vocabulary, {shown(value)}; onnxembed export makes a graph "
            "that gives the score alone"
        )
    check_axes(graph, value, rank=2)
    labels = len(reranking.labels.value)
    if value.shape and value.shape[-1] not in (None, labels):
        raise ModelFilesError(
            f"{graph.path}: {LOGITS} has {value.shape[-1]} numbers, but the model's files name {labels} labels: the "
            "graph belongs to another model"
        )
    activation = final_activation(graph, value)
    if activation and reranking.activation.value != "identity":
        raise UnsupportedError(
            f"{graph.path}: {LOGITS} are what {activation} gives, not logits, and {reranking.activation.value} would "
            f"be applied again ({reranking.activation.reason}); --activation identity takes them as they are"
        )
    return value
