"""The engine `build`: onnxembed's own builders, one for each architecture."""

from __future__ import annotations

from dataclasses import dataclass

from onnxembed.decisions.decide import Decisions
from onnxembed.errors import UnsupportedError
from onnxembed.export.architectures import ARCHITECTURES
from onnxembed.export.checkpoint.adapters import open_checkpoint
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.checkpoint.lora import open_weights
from onnxembed.export.engines.engine import Ignored
from onnxembed.export.graph.graph import Graph, GraphFactory, Value
from onnxembed.export.graph.inputs import Encoded, Inputs, PaddedInputs
from onnxembed.export.graph.packed import PackedInputs
from onnxembed.facts.facts import Facts
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.facts.multi_vector import STANFORD_LINEAR
from onnxembed.json_file import read_json


@dataclass(frozen=True)
class PackedEncoded:
    """What `Encoded` is for a packed graph, whose token embeddings are float32 [1, N, D]."""

    graph: Graph
    inputs: PackedInputs
    tokens: Value


def write_encoder(facts: Facts, decisions: Decisions, make: GraphFactory, ignored: Ignored) -> Encoded:
    """The encoder of a checkpoint, written by the builder of its architecture.

    Raises UnsupportedError for a config.json with keys, and weights with tensors, that the builder does not read;
    `ignored` is what the caller vouches for.
    """
    config, graph = _open(facts, decisions, make)
    causal, one_segment = decisions.encoder.attention.value == "causal", _has_one_segment(facts, decisions)
    inputs = PaddedInputs(graph, causal=causal, one_segment=one_segment)
    tokens = _build(facts, graph, config, inputs)
    unpooled = unpooled_token(facts)
    pool = inputs.pool if unpooled is None else inputs.pool_without(unpooled)
    tokens = graph.to_float32(tokens)
    _check_all_read(facts, decisions, graph, config, ignored)
    return Encoded(graph, inputs, tokens, pool)


def write_packed_encoder(facts: Facts, decisions: Decisions, make: GraphFactory, ignored: Ignored) -> PackedEncoded:
    """The packed encoder of a checkpoint whose architecture is packable; errors as for `write_encoder`."""
    config, graph = _open(facts, decisions, make)
    inputs = PackedInputs(graph)
    tokens = graph.to_float32(_build(facts, graph, config, inputs))
    _check_all_read(facts, decisions, graph, config, ignored)
    return PackedEncoded(graph, inputs, tokens)


def _has_one_segment(facts: Facts, decisions: Decisions) -> bool:
    """Whether the graph leaves out the segments of its texts: that of a multi-vector model whose tokenizer sets none.

    Other programs insert markers into the ids and the mask of such texts, and forget the segments.
    """
    if decisions.multi_vector is None or decisions.embedding is not None:
        return False
    file = facts.transformer_folder / "tokenizer.json"
    processor = read_json(file).get("post_processor") if file.is_file() else None
    single = processor.get("single", ()) if isinstance(processor, dict) else ()
    parts = [part for piece in single if isinstance(piece, dict) for part in piece.values() if isinstance(part, dict)]
    return not any(part.get("type_id") for part in parts)


def unpooled_token(facts: Facts) -> int | None:
    """The id of the token that pooling leaves out; None for most models, which pool every token."""
    read = ARCHITECTURES[facts.model_type].unpooled_token
    return None if read is None else read(facts.transformer_folder)


def _open(facts: Facts, decisions: Decisions, make: GraphFactory) -> tuple[Config, Graph]:
    prefix = ARCHITECTURES[facts.model_type].prefix
    config = Config.of(facts)
    weights = open_weights(facts, prefix)
    if facts.adapters:
        weights = open_checkpoint(facts.transformer_folder, prefix, decisions.encoder.adapter, config)
    graph = make(weights)
    if not MODEL_TYPES[facts.model_type].static:
        config.check_claims(len(graph.weights.names()), graph.weights.largest())
    return config, graph


def _build(facts: Facts, graph: Graph, config: Config, inputs: Inputs) -> Value:
    build = ARCHITECTURES[facts.model_type].build
    if build is None:
        raise UnsupportedError(f"there is no builder for {facts.model_type}")
    return build(graph, config, inputs)


def _check_all_read(facts: Facts, decisions: Decisions, graph: Graph, config: Config, ignored: Ignored) -> None:
    config.finish(ignored.config_keys)
    is_head = ARCHITECTURES[facts.model_type].is_head
    unread = [name for name in graph.weights.unused() if not is_head(name) and not ignored.has_tensor(name)]
    if decisions.multi_vector is not None and decisions.multi_vector.of_checkpoint:
        unread = [name for name in unread if name != STANFORD_LINEAR]
    if unread:
        names = ", ".join(unread[:3])
        raise UnsupportedError(
            f"{facts.folder} has tensors that a {facts.model_type} encoder does not use ({len(unread)}, such as "
            f"{names}): it is not the plain architecture its config.json says it is; "
            f"--ignore-tensor {unread[0]} leaves it out, if a comparison with the reference shows that it may be"
        )
