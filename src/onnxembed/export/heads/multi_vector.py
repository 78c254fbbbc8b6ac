"""Multi-vector embeddings: a vector for each token, as ColBERT makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onnxembed.arrays import Array
from onnxembed.decisions.compose_manifest import multi_vector_section
from onnxembed.decisions.decide import Decisions
from onnxembed.errors import ModelFilesError
from onnxembed.export.checkpoint.linear import read_linear
from onnxembed.export.checkpoint.tensors import check_finite
from onnxembed.export.graph import pooling
from onnxembed.export.graph.graph import Graph, Widths
from onnxembed.export.graph.inputs import B, Encoded, T
from onnxembed.export.graph.pooling import linear
from onnxembed.facts.facts import Facts
from onnxembed.facts.multi_vector import STANFORD_LINEAR, MultiVectorFacts
from onnxembed.manifest import MULTI_VECTOR, MultiVector
from onnxembed.tokenizer.token_ids import TokenIds


def is_wanted(decisions: Decisions) -> bool:
    """Whether the model makes multi-vector embeddings."""
    return decisions.multi_vector is not None


def check(facts: Facts, decisions: Decisions) -> None:
    """Do nothing: every multi-vector head can be built."""


def add_output(encoded: Encoded, facts: Facts, decisions: Decisions) -> None:
    """Declare the output multi_vector, float32 [B, T, dimension].

    Raises ModelFilesError for a layer of another width than the one before it gives.
    """
    g, tokens, width, head = encoded.graph, encoded.tokens, decisions.encoder.hidden_size, decisions.multi_vector
    assert head is not None
    for index, layer in enumerate(head.dense, start=1):
        if layer.in_features != width:
            file = layer.folder / "config.json"
            raise ModelFilesError(f"{file} takes {layer.in_features} features, but gets {width}")
        tokens, width = pooling.dense(g, tokens, layer, f"{index}_Dense"), layer.out_features
    if not head.dense:
        name, weight, bias = _projection(g, facts, head, width)
        tokens, width = linear(g, tokens, name, weight, bias), weight.shape[0]
    if head.normalize.value:
        tokens = pooling.normalize(g, tokens)
    g.output(MULTI_VECTOR, tokens, (B, T, width))


def section(facts: Facts, decisions: Decisions, widths: Widths, folder: Path) -> MultiVector:
    """The manifest's section about multi-vector embeddings; its tokens get the ids of the tokenizer in `folder`."""
    head = decisions.multi_vector
    assert head is not None
    return multi_vector_section(head, TokenIds.of_folder(folder), decisions.encoder, widths[MULTI_VECTOR])


def width_of_files(head: MultiVectorFacts, hidden_size: int) -> int | None:
    """The length of the vectors, as the model's small files say it; None if only its weights do."""
    if head.dense:
        return head.dense[-1].out_features
    return None if head.head is None else read_linear(head.head, hidden_size)[0].shape[0]


def _projection(g: Graph, facts: Facts, head: MultiVectorFacts, width: int) -> tuple[str, Array, Array | None]:
    """Name, weight [out, in] and bias of the one Linear of a model without Dense modules."""
    if head.head is not None:
        return head.head.stem, *read_linear(head.head, width)
    shape = g.weights.shape(STANFORD_LINEAR)
    if len(shape) != 2 or shape[1] != width:
        raise ModelFilesError(f"{facts.transformer_folder}: {STANFORD_LINEAR} has the shape {shape}, not (*, {width})")
    weight = np.ascontiguousarray(g.weights.read(STANFORD_LINEAR), dtype=np.float32)
    check_finite(STANFORD_LINEAR, weight)
    return "linear", weight, None
