"""Adopts a model whose ONNX graph another program made.

The graph is used unchanged; how texts become vectors is decided as for an export, from the same files, recipes
and flags, with the same errors. Properties of the graph are read from the graph, never guessed from names.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxembed.decisions.compose_manifest import compose_manifest, tokenization_section
from onnxembed.decisions.embedding import EmbeddingDecisions, decide_embedding
from onnxembed.decisions.encoder import EncoderDecisions, decide_encoder
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, UnsaidError, UnsupportedError, UsageError
from onnxembed.execution.backend import Placement
from onnxembed.execution.session import Session
from onnxembed.facts.facts import Facts
from onnxembed.facts.json_file import read_json
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.hub.source import HubOptions
from onnxembed.loading.found_graph import FoundGraph, read_found_graph
from onnxembed.loading.located import LocatedArtifact
from onnxembed.loading.onnx_file import OnnxFile, Value
from onnxembed.manifest import (
    INPUTS,
    LAST_HIDDEN_STATE,
    SENTENCE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    AttentionMode,
    Decision,
    Dense,
    Embedding,
    FileRecord,
    Manifest,
    Model,
    Source,
    Variant,
)
from onnxembed.recipes.book import choose_recipe
from onnxembed.recipes.recipe import Recipe
from onnxembed.tokenizer.changes import apply_class_options, apply_decisions
from onnxembed.warning import warn

# The names of an output of token embeddings, in order of preference.
TOKEN_OUTPUTS = (TOKEN_EMBEDDINGS, LAST_HIDDEN_STATE)

# Operators of dynamic quantization that use one scale for the activations of all texts of a run.
SHARED_SCALES = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul")


def decide_adoption(
    model_files: FoundGraph, flags: Flags, recipe: Recipe | None
) -> tuple[EncoderDecisions, EmbeddingDecisions, Value]:
    """Decide how the graph's outputs become vectors; the last of the three is the output to read.

    Raises the errors of `decide`, and UnsupportedError for a graph that cannot be fed or read.
    """
    facts, graph = model_files.facts, model_files.graph
    class_name = facts.sentence_transformers_class
    if class_name not in (None, "SentenceTransformer"):
        raise UnsupportedError(
            f"{model_files.model} is a {class_name}; only embedding models are adopted: export it instead"
        )
    if recipe:
        recipe.refuse_precisions([model_files.precision])
    _check_inputs(graph)
    encoder = decide_encoder(facts, flags, recipe)
    embedding = decide_embedding(facts, encoder, flags, recipe)
    output = _output(graph, facts, embedding)
    pooled = output.name == SENTENCE_EMBEDDING
    _check_output(graph, output, embedding.dimension if pooled else encoder.hidden_size, rank=2 if pooled else 3)
    if MODEL_TYPES[facts.model_type].decoder:
        encoder = replace(encoder, attention=_measured_attention(graph, output, encoder.attention))
    return encoder, embedding, output


def embedding_section(embedding: EmbeddingDecisions, output: Value, dense: tuple[Dense, ...]) -> Embedding:
    """The manifest's section about an adopted graph's sentence embeddings."""
    pooled = output.name == SENTENCE_EMBEDDING
    return Embedding(
        pooling=embedding.pooling,
        dense=dense,
        normalize=embedding.normalize,
        dimension=embedding.dimension,
        pooled_by="graph" if pooled else "runtime",
        output=output.name,
        normalize_again=pooled and embedding.normalize.value,
    )


def _check_inputs(graph: OnnxFile) -> None:
    names = [value.name for value in graph.inputs]
    unknown = [name for name in names if name not in INPUTS]
    if unknown:
        raise UnsupportedError(
            f"{graph.path} takes {', '.join(unknown)}, which onnxembed does not feed; it feeds {', '.join(INPUTS)}"
        )
    missing = [name for name in INPUTS[:2] if name not in names]
    if missing:
        raise UnsupportedError(f"{graph.path} takes no {' and no '.join(missing)}, so texts cannot be run together")
    for value in graph.inputs:
        if value.shape is None or len(value.shape) != 2 or any(size is not None for size in value.shape):
            raise UnsupportedError(
                f"{graph.path}: {value.name} has shape {_shown(value)}, not a free number of texts by a free number of "
                "tokens; make the graph again with both axes dynamic"
            )


def _output(graph: OnnxFile, facts: Facts, embedding: EmbeddingDecisions) -> Value:
    """The output to read: the sentence embedding if the graph pools as was decided, else the token embeddings."""
    outputs = {value.name: value for value in graph.outputs}
    tokens = next((outputs[name] for name in TOKEN_OUTPUTS if name in outputs), None)
    modes_in_files = facts.poolings[0].modes if len(facts.poolings) == 1 else ()
    as_made = embedding.pooling.value == modes_in_files and (embedding.normalize.value or not facts.normalize)
    if tokens is not None and not (as_made and SENTENCE_EMBEDDING in outputs):
        if facts.post.token_layers or not facts.post.only_dense:
            raise UnsupportedError(
                f"{graph.path} leaves the modules around the pooling to the runtime, which applies only Dense modules "
                f"after it and Normalize; make a graph with the output {SENTENCE_EMBEDDING}, or export the checkpoint"
            )
        return tokens
    if SENTENCE_EMBEDDING not in outputs:
        readable = f"{SENTENCE_EMBEDDING}, {' or '.join(TOKEN_OUTPUTS)}"
        raise UnsupportedError(f"{graph.path} has no output {readable}; it has {', '.join(outputs)}")
    if modes_in_files and not as_made:
        raise UsageError(
            f"{graph.path} pools its tokens as the model's files say, and gives nothing else: neither --pooling nor "
            "--no-normalize can change that"
        )
    return outputs[SENTENCE_EMBEDDING]


def _check_output(graph: OnnxFile, output: Value, width: int, rank: int) -> None:
    shape = output.shape
    if shape is None or len(shape) != rank:
        axes = "texts by numbers" if rank == 2 else "texts by tokens by numbers"
        raise UnsupportedError(f"{graph.path}: {output.name} has shape {_shown(output)}, not {axes}")
    if shape[-1] not in (None, width):
        raise ModelFilesError(
            f"{graph.path}: {output.name} has {shape[-1]} numbers, but the model's files say {width}: the graph "
            "belongs to another model"
        )


def _shown(value: Value) -> str:
    if value.shape is None:
        return "unknown"
    return "[" + ", ".join("free" if size is None else str(size) for size in value.shape) + "]"


def _measured_attention(graph: OnnxFile, output: Value, wanted: Decision[AttentionMode]) -> Decision[AttentionMode]:
    """A decoder's attention as decided; ModelFilesError if the graph attends in the other way.

    Whether the first token sees the second is measured in the graph, because the files cannot say how another exporter
    made it: one exporter is known to make every graph causal.
    """
    if output.name == SENTENCE_EMBEDDING:
        return replace(wanted, reason=f"{wanted.reason}; not measured in the graph, which pools its tokens")
    # Two texts of two tokens that differ in the second.
    ids = np.array([[1, 2], [1, 3]], np.int64)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    session = Session(graph.path, "cpu", threads=1)
    (tokens,) = session.run([output.name], {value.name: feeds[value.name] for value in graph.inputs})
    same = np.abs(tokens[0, 0] - tokens[1, 0]).max() <= 1e-5 * np.abs(tokens[0, 0]).max()
    measured = "causal" if same else "bidirectional"
    if measured != wanted.value:
        raise ModelFilesError(
            f"{graph.path} attends in the {measured} way, but the model is {wanted.value} ({wanted.origin}: "
            f"{wanted.reason}); make its graph with onnxembed export"
        )
    return replace(wanted, reason=f"{wanted.reason}; measured in the graph")


def adopt(model: str | Path, hub: HubOptions, file: str, *, precision: str, placement: Placement) -> LocatedArtifact:
    """Adopt a model with an ONNX graph in memory, for loading; nothing is written.

    Errors as for `read_found_graph` and `decide`. If files would have to be written, the error names the command that
    does so.
    """
    command = f"onnxembed adopt {model} -o DIR"
    model_files = read_found_graph(model, hub, file, precision)
    recipe = choose_recipe(model)
    try:
        encoder, embedding, output = decide_adoption(model_files, Flags(), recipe)
    except UnsaidError as error:
        raise UnsaidError(f"{error}, to: {command}", error.flag) from None
    if output.name != SENTENCE_EMBEDDING and model_files.facts.post.layers:
        raise UnsupportedError(
            f"{model_files.file} leaves out the Dense layers of {model_files.folder}; to add them: {command}"
        )
    source = model_files.facts.transformer_folder / "tokenizer.json"
    if not source.is_file():
        raise UnsupportedError(
            f"{model_files.folder} has no tokenizer.json; make one from its vocabulary with: {command}"
        )
    state = dict(read_json(source))
    loaded = tuple(apply_class_options(model_files.facts, state))
    text, changes = apply_decisions(model_files.facts, encoder, state, source)
    variant = Variant(model_files.file, None, model_files.graph.operators.total(), dict(model_files.graph.operators))
    layers = model_files.facts.dense  # in the graph, so no file holds their weights
    dense = tuple(Dense(layer.in_features, layer.out_features, layer.activation, None, None) for layer in layers)
    manifest = adopted_manifest(
        model_files,
        encoder,
        embedding=embedding_section(embedding, output, dense),
        recipe=recipe,
        variant=variant,
        changes=(*loaded, *changes),
        files={},
    )
    if any(name in model_files.graph.operators for name in SHARED_SCALES):
        warn(
            f"{model_files.file} is quantized so that a text's vector depends a little on the other texts of its run: "
            "they share the scale of their activations"
        )
    return LocatedArtifact(model_files.folder, manifest, model_files.precision, placement, text)


def adopted_manifest(
    model_files: FoundGraph,
    encoder: EncoderDecisions,
    *,
    embedding: Embedding,
    recipe: Recipe | None,
    variant: Variant,
    changes: tuple[str, ...],
    files: dict[str, FileRecord],
) -> Manifest:
    """The manifest of an adopted model."""
    producer = model_files.graph.producer or "an unnamed program"
    return compose_manifest(
        packages=("onnxembed", "tokenizers"),
        source=Source(model_files.model, model_files.revision, recipe.name if recipe else None),
        model=Model(
            model_type=model_files.facts.model_type,
            attention=encoder.attention,
            engine="adopted",
            inputs=tuple(value.name for value in model_files.graph.inputs),
            ignored_config_keys=(),
            adapter=encoder.adapter,
            engine_reason=f"{model_files.file} was made by {producer}",
        ),
        tokenization=tokenization_section(encoder, changes),
        encoder=encoder,
        sections={"embedding": embedding},
        variants={model_files.precision: variant},
        files=files,
    )
