"""Multi-vector embeddings of a graph that another program made: a vector for each token."""

from __future__ import annotations

from dataclasses import replace

from onnxembed.decisions.compose_manifest import TokenLookup, multi_vector_section
from onnxembed.decisions.decide import Decisions
from onnxembed.errors import UnsupportedError
from onnxembed.facts.facts import Facts
from onnxembed.loading.adoption.embedding import TOKEN_OUTPUTS
from onnxembed.loading.adoption.outputs import check_axes, check_width, require_output
from onnxembed.loading.onnx_file import OnnxFile, Value
from onnxembed.manifest import MULTI_VECTOR, MultiVector

PROJECTED = (MULTI_VECTOR, "contextual")
"""The names of an output of projected token vectors; Vespa's graphs of ColBERT models have the second."""


def output(graph: OnnxFile, facts: Facts, decisions: Decisions) -> Value:
    """The output to read, [B, T, dimension]; UnsupportedError for a graph that stops before the projection."""
    head = decisions.multi_vector
    assert head is not None
    value = require_output(graph, (*PROJECTED, *TOKEN_OUTPUTS))
    check_axes(graph, value, rank=3)
    width = value.shape[-1] if value.shape else None
    hidden, wanted = decisions.encoder.hidden_size, head.dense[-1].out_features if head.dense else None
    if value.name not in PROJECTED and width in (None, hidden):
        raise UnsupportedError(
            f"{graph.path}: {value.name} has {width or 'a free number of'} numbers for each token, and nothing shows "
            "that they were projected to the model's token vectors; onnxembed export makes a graph that does so"
        )
    if wanted is not None:
        check_width(graph, value, wanted)
    elif width is None:
        raise UnsupportedError(f"{graph.path}: {value.name} does not say how many numbers each token has")
    return value


def section(decisions: Decisions, output: Value, ids: TokenLookup) -> MultiVector:
    """The manifest's section about an adopted graph's multi-vector embeddings."""
    head = decisions.multi_vector
    assert head is not None
    width = output.shape[-1] if output.shape else None
    section = multi_vector_section(head, ids, decisions.encoder, width or head.dense[-1].out_features)
    return replace(section, output=output.name, normalize_again=head.normalize.value)
