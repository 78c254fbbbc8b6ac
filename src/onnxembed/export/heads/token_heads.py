"""Sparse and multi-vector heads: their outputs in the graph, their sections of the manifest, and their files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import TensorProto

from onnxembed.arrays import Array
from onnxembed.decisions.decide import Decisions
from onnxembed.errors import ModelFilesError
from onnxembed.export.checkpoint.linear import linear, read_linear
from onnxembed.export.graph import pooling as heads
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.graph.inputs import B, Inputs, T
from onnxembed.export.heads import masked_lm
from onnxembed.export.tokenizer.token_ids import TokenIds
from onnxembed.facts.facts import Facts
from onnxembed.facts.json_file import write_json
from onnxembed.facts.multi_vector import STANFORD_LINEAR, MultiVectorFacts
from onnxembed.facts.sparse import SparseFacts
from onnxembed.manifest import (
    MULTI_VECTOR,
    SPARSE_EMBEDDING,
    SPARSE_WEIGHTS,
    Decision,
    MultiVector,
    QueryExpansion,
    Sparse,
    Task,
)


def add(g: Graph, inputs: Inputs, tokens: Value, facts: Facts, decisions: Decisions) -> None:
    """Declare the outputs of the heads that were decided on, made of token embeddings float32 [B, T, D]."""
    if decisions.sparse is not None:
        if decisions.sparse.head is None:
            weights, vocabulary = masked_lm.sparse_embedding(g, inputs, tokens, facts, decisions.sparse)
            g.output(SPARSE_EMBEDDING, weights, (B, vocabulary))
        else:
            weights = _token_weights(g, inputs, tokens, decisions.sparse.head, decisions.encoder.hidden_size)
            g.output(SPARSE_WEIGHTS, weights, (B, T))
    if decisions.multi_vector is not None:
        _add_multi_vector(g, tokens, facts, decisions.multi_vector, decisions.encoder.hidden_size)


def sections(facts: Facts, decisions: Decisions, g: Graph, folder: Path) -> dict[Task, Sparse | MultiVector]:
    """The manifest's sections about these heads; tokens are named in the files, and numbered by the tokenizer."""
    found: dict[Task, Sparse | MultiVector] = {}
    if decisions.sparse is not None:
        found["sparse"] = _sparse(decisions.sparse, int(facts.config["vocab_size"]), TokenIds(folder))
    if decisions.multi_vector is not None:
        width, limit = _width(g, MULTI_VECTOR), decisions.encoder.max_length
        found["multi_vector"] = _multi_vector(decisions.multi_vector, limit, width, TokenIds(folder))
    return found


def write_files(facts: Facts, decisions: Decisions, folder: Path) -> None:
    """config.json, and the file that tells other programs what kind of model this is."""
    write_json(folder / "config.json", facts.config)
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SparseEncoder" if decisions.sparse else "MultiVectorEncoder",
            "prompts": decisions.encoder.prompts.texts.value,
            "default_prompt_name": decisions.encoder.prompts.default.value,
            "similarity_fn_name": facts.similarity,
        },
    )


def _token_weights(g: Graph, inputs: Inputs, tokens: Value, head: Path, width: int) -> Value:
    """The weight of each token, [B, T]; 0 in padding."""
    logits = linear(g, tokens, head.stem, *read_linear(head, width, 1))
    weights = g.op("Relu", g.op("Squeeze", logits, g.integers(-1)))
    return g.op("Mul", weights, g.op("Cast", inputs.attention_mask, to=TensorProto.FLOAT))


def _add_multi_vector(g: Graph, tokens: Value, facts: Facts, said: MultiVectorFacts, width: int) -> None:
    for index, layer in enumerate(said.dense, start=1):
        if layer.in_features != width:
            file = layer.folder / "config.json"
            raise ModelFilesError(f"{file} takes {layer.in_features} features, but gets {width}")
        tokens, width = heads.dense(g, tokens, layer, f"{index}_Dense"), layer.out_features
    if not said.dense:
        name, weight, bias = _projection(g, facts, said, width)
        tokens, width = linear(g, tokens, name, weight, bias), weight.shape[0]
    if said.normalize.value:
        tokens = heads.normalize(g, tokens)
    g.output(MULTI_VECTOR, tokens, (B, T, width))


def _projection(g: Graph, facts: Facts, said: MultiVectorFacts, width: int) -> tuple[str, Array, Array | None]:
    """Name, weight [out, in] and bias of the one Linear of a model without Dense modules."""
    if said.head is not None:
        return said.head.stem, *read_linear(said.head, width)
    shape = g.weights.shape(STANFORD_LINEAR)
    if len(shape) != 2 or shape[1] != width:
        raise ModelFilesError(f"{facts.transformer_folder}: {STANFORD_LINEAR} has the shape {shape}, not (*, {width})")
    return "linear", np.ascontiguousarray(g.weights.read(STANFORD_LINEAR), dtype=np.float32), None


def _width(g: Graph, output: str) -> int:
    """The size of an output's last axis."""
    value = next(each for each in g.outputs if each.name == output)
    return int(value.type.tensor_type.shape.dim[-1].dim_value)


def _sparse(said: SparseFacts, vocabulary: int, ids: TokenIds) -> Sparse:
    dropped = said.dropped_tokens
    return Sparse(
        activation=said.activation,
        aggregation=said.aggregation,
        aggregated_by="graph" if said.head is None else "runtime",
        dropped_token_ids=Decision(tuple(sorted(map(ids.special, dropped.value))), dropped.origin, dropped.reason),
        dimension=vocabulary,
    )


def _multi_vector(said: MultiVectorFacts, limit: Decision[int], width: int, ids: TokenIds) -> MultiVector:
    expansion, words = said.query_expansion, said.skipped_words
    expanded: Decision[QueryExpansion | None] = Decision(None, expansion.origin, expansion.reason)
    if (how := expansion.value) is not None:
        token = ids.special("mask_token", "eos_token") if how.token is None else ids.token(how.token)
        expanded = replace(expanded, value=QueryExpansion(token, how.length, how.attended, how.longer))
    return MultiVector(
        normalize=said.normalize,
        first_token=said.first_token,
        query_length=said.query_length,
        document_length=Decision(None, "flag", limit.reason) if limit.origin == "flag" else said.document_length,
        query_expansion=expanded,
        skipped_token_ids=Decision(ids.known(words.value), words.origin, words.reason),
        skipped_in=said.skipped_in,
        dimension=width,
    )
