"""One graph of a plan: its encoder, then the outputs of its tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from onnxembed.decisions.decide import Decisions
from onnxembed.export.engines import build as build_engine
from onnxembed.export.engines.engine import Ignored
from onnxembed.export.graph.graph import Graph, GraphFactory
from onnxembed.export.graph.inputs import B, Encoded, T
from onnxembed.export.graph.portable import PortableGraph
from onnxembed.export.heads import HEADS, embedding
from onnxembed.export.plan import ExportPlan
from onnxembed.facts.facts import Facts
from onnxembed.facts.modules import width_after
from onnxembed.manifest import TOKEN_EMBEDDINGS, Engine, Form, Precision

WriteEncoder = Callable[[Facts, Decisions, GraphFactory, Ignored], Encoded]
"""Writes the encoder of a checkpoint; with what the caller vouches for."""


def build(plan: ExportPlan, precision: Precision, make: GraphFactory | None = None) -> Graph:
    """The graph of one precision, from token ids to the outputs of the plan's tasks.

    `make` makes another kind of graph than one of `precision`, which is then not used.

    Raises UnsupportedError and ModelFilesError for a checkpoint whose config.json or weights the engine cannot take.
    """
    write_encoder = ENGINES[plan.engine.value]
    make = make or partial(FORMS[plan.options.form], precision=precision)
    encoded = write_encoder(plan.facts, plan.decisions, make, plan.options.ignored)
    encoded = replace(encoded, tokens=embedding.through_token_layers(encoded.graph, encoded.tokens, plan.facts))
    for task in plan.graph_tasks:
        HEADS[task].add_output(encoded, plan.facts, plan.decisions)
    if plan.decisions.reranking is None:
        width = width_after(plan.facts.post.token_layers, plan.decisions.encoder.hidden_size)
        encoded.graph.output(TOKEN_EMBEDDINGS, encoded.tokens, (B, T, width))
    if plan.decisions.embedding is not None:
        # Readers by position expect token_embeddings, then sentence_embedding.
        outputs = encoded.graph.outputs
        outputs.insert(0, outputs.pop())
    return encoded.graph


def build_packed(plan: ExportPlan, precision: Precision) -> Graph:
    """The packed graph of one precision: its output is sentence_embedding alone."""
    encoded = build_engine.write_packed_encoder(
        plan.facts, plan.decisions, partial(Graph, precision=precision), plan.options.ignored
    )
    tokens = embedding.through_token_layers(encoded.graph, encoded.tokens, plan.facts)
    embedding.add_sentence_embedding(encoded.graph, tokens, encoded.inputs.pool, plan.facts, plan.decisions)
    return encoded.graph


def _trace(facts: Facts, decisions: Decisions, make: GraphFactory, ignored: Ignored) -> Encoded:
    from onnxembed.export.engines.trace import write_encoder  # needs the extra [torch]

    return write_encoder(facts, decisions, make, ignored)


def _optimum(facts: Facts, decisions: Decisions, make: GraphFactory, ignored: Ignored) -> Encoded:
    from onnxembed.export.engines.optimum import write_encoder  # needs the extra [optimum]

    return write_encoder(facts, decisions, make, ignored)


FORMS: dict[Form, type[Graph]] = {"fused": Graph, "portable": PortableGraph}

ENGINES: dict[Engine, WriteEncoder] = {
    "build": build_engine.write_encoder,
    "trace": _trace,
    "optimum": _optimum,
}
