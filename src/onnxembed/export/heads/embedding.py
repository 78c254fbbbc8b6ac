"""Sentence embeddings: pooled tokens, taken through Dense layers, normalized."""

from __future__ import annotations

from pathlib import Path

from onnxembed.decisions.compose_manifest import prompt_left_out
from onnxembed.decisions.decide import Decisions
from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.graph import pooling
from onnxembed.export.graph.graph import Graph, Value, Widths
from onnxembed.export.graph.inputs import B, Encoded, Pool
from onnxembed.facts.facts import Facts
from onnxembed.facts.modules import DenseFacts, Layer, PostModules, WeightedLayerPoolingFacts
from onnxembed.manifest import SENTENCE_EMBEDDING, Dense, Embedding
from onnxembed.tokenizer.declared_tokens import special_texts
from onnxembed.tokenizer.token_ids import TokenIds


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
    for name, layer in layer_names(facts.post).items():
        sentence = pooling.layer_output(g, sentence, layer, name)
    if embedding.normalize.value:
        sentence = pooling.normalize(g, sentence)
    g.output(SENTENCE_EMBEDDING, sentence, (B, embedding.dimension))


def section(facts: Facts, decisions: Decisions, widths: Widths, folder: Path) -> Embedding:
    """The manifest's section about sentence embeddings."""
    embedding = decisions.embedding
    assert embedding is not None
    pooled = SENTENCE_EMBEDDING in widths
    left_out = None
    if not embedding.include_prompt.value:
        left_out = prompt_left_out(embedding.include_prompt, special_texts(facts), TokenIds.of_folder(folder))
    return Embedding(
        pooling=embedding.pooling,
        dense=dense_entries(facts, in_files=not pooled),
        normalize=embedding.normalize,
        dimension=embedding.dimension,
        pooled_by="graph" if pooled else "runtime",
        layers=other_layers(facts.post),
        prompt_left_out=left_out,
    )


def through_token_layers(g: Graph, tokens: Value, facts: Facts) -> Value:
    """Token embeddings [B, T, D] as the Pooling gets them: taken through the modules that stand before it."""
    for name, layer in token_layer_names(facts.post).items():
        if isinstance(layer, WeightedLayerPoolingFacts):
            tokens = _weighted_layers(g, tokens, layer, facts)
        else:
            tokens = pooling.layer_output(g, tokens, layer, name)
    return tokens


def _weighted_layers(g: Graph, last: Value, layer: WeightedLayerPoolingFacts, facts: Facts) -> Value:
    """The weighted average of the layers' outputs, of which `last` is the last one, in float32."""
    if not g.layer_inputs:
        raise UnsupportedError(
            f"{layer.folder} averages the layers of the transformer (WeightedLayerPooling), which onnxembed does not "
            f"build for a {facts.model_type}, or with another engine than build"
        )
    outputs = [*map(g.to_float32, g.layer_inputs), last][layer.layer_start :]
    if len(outputs) != layer.count:
        raise ModelFilesError(
            f"{layer.folder / 'config.json'} averages {layer.count} layers from layer_start {layer.layer_start}, but "
            f"the transformer has {len(outputs)} there"
        )
    return pooling.weighted_sum(g, outputs, layer)


def token_layer_names(post: PostModules) -> dict[str, Layer]:
    """The modules before the Pooling, by name: in the graph, and of their folders."""
    return {f"{place}_{_class_name(layer)}": layer for place, layer in enumerate(post.token_layers, start=1)}


def layer_names(post: PostModules) -> dict[str, Layer]:
    """The modules after the Pooling but the last Normalize, by name: in the graph, and of their folders."""
    return {f"{place}_{_class_name(layer)}": layer for place, layer in enumerate(post.layers, pooling_place(post) + 1)}


def pooling_place(post: PostModules) -> int:
    """Where the Pooling stands among the modules: after the Transformer and the modules before it."""
    return 1 + len(post.token_layers)


def _class_name(layer: Layer) -> str:
    return type(layer).__name__.removesuffix("Facts")


def dense_entries(facts: Facts, *, in_files: bool) -> tuple[Dense, ...]:
    """The manifest's entries of the Dense layers; `in_files`: with weights in .npy files, for the runtime to apply."""
    return tuple(
        Dense(
            layer.in_features,
            layer.out_features,
            layer.activation,
            f"{name}/weight.npy" if in_files else None,
            f"{name}/bias.npy" if in_files and layer.bias else None,
        )
        for name, layer in layer_names(facts.post).items()
        if isinstance(layer, DenseFacts)
    )


def other_layers(post: PostModules) -> tuple[str, ...] | None:
    """The modules around the pooling in words, for the manifest; None for the usual ones, Dense layers after it."""
    if not post.token_layers and post.only_dense:
        return None
    return (
        *(f"{_in_words(layer)} of each token" for layer in post.token_layers),
        "pooling",
        *(_in_words(layer) for layer in post.layers),
    )


def _in_words(layer: Layer) -> str:
    if isinstance(layer, WeightedLayerPoolingFacts):
        return f"the average of {layer.count} layers from layer {layer.layer_start}, weighted,"
    if isinstance(layer, DenseFacts):
        words = f"Dense {layer.in_features} -> {layer.out_features}, {layer.activation}"
        return f"{words}, plus its input" if layer.residual else words
    return _class_name(layer)
