"""The export journey: checkpoint -> facts -> decisions -> graphs -> artifact folder, verified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onnxembed.decisions.decide import Decisions, decide
from onnxembed.decisions.flags import Flags
from onnxembed.errors import UnsupportedError, UsageError
from onnxembed.export.architectures import ARCHITECTURES
from onnxembed.export.artifact.cross_encoder import write_cross_encoder
from onnxembed.export.artifact.folder import check_output, new_folder
from onnxembed.export.artifact.graph_file import write_graph, write_packed
from onnxembed.export.artifact.hashing import hash_files
from onnxembed.export.artifact.sentence_transformers import write_modules
from onnxembed.export.checkpoint.adapters import open_checkpoint
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.export.engines.engine import TOOLS, EngineOption, announce, choose_engine
from onnxembed.export.graph import pooling as heads
from onnxembed.export.graph.graph import Graph, GraphFactory, Value
from onnxembed.export.graph.inputs import B, Inputs, T
from onnxembed.export.graph.packed import PackedInputs
from onnxembed.export.heads import token_heads
from onnxembed.export.heads.reranking import classify
from onnxembed.export.plan import check_packable
from onnxembed.export.progress import Progress, silent
from onnxembed.export.quantize.calibration_texts import read_texts, tokenized
from onnxembed.export.quantize.write import check_quantizable, write_quantized
from onnxembed.export.tokenizer.files import write_tokenizer
from onnxembed.facts.facts import Facts, read_facts
from onnxembed.facts.multi_vector import STANFORD_LINEAR
from onnxembed.hub.checkpoint import fetch_checkpoint
from onnxembed.hub.source import Fetched, HubOptions
from onnxembed.manifest import (
    FILE_NAME,
    FORMAT_VERSION,
    LOGITS,
    MIN_COSINES,
    SENTENCE_EMBEDDING,
    TASKS,
    TOKEN_EMBEDDINGS,
    Embedding,
    Engine,
    FileRecord,
    Manifest,
    Model,
    Precision,
    Source,
    Task,
    Tokenization,
    Variant,
)
from onnxembed.recipes.book import choose_recipe
from onnxembed.tokenizer.texts import TextTokenizer

Encoder = tuple[Graph, Inputs, Value]
"""A graph under construction, its inputs, and its token embeddings in float32 [B, T, D]."""

Verify = Callable[[Path, Manifest, Fetched], Manifest]
"""Checks a finished draft folder and returns the manifest with what it measured."""


@dataclass(frozen=True)
class Options:
    """What the caller decides about an export; the defaults follow the model's files.

    `recipe` names a recipe to follow; None follows that of a hub id, where the book has one. Of graphs of integers,
    `calibration` is a file of texts to make them with, ours when None, and `min_cosine` the lowest cosine with the
    fp32 vector that a text may have, MIN_COSINES of the manifest when None. `packed` adds the form that CUDA runs
    without padding.
    """

    precisions: tuple[Precision, ...] = ("fp32",)
    flags: Flags = field(default_factory=Flags)
    recipe: str | None = None
    pooling_out: bool = False
    ignored_config_keys: tuple[str, ...] = ()
    force: bool = False
    engine: EngineOption = "auto"
    calibration: Path | None = None
    min_cosine: float | None = None
    packed: bool = False


def export(
    model: str | Path,
    output: Path,
    options: Options | None = None,
    *,
    hub: HubOptions | None = None,
    verify: Verify | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Export a checkpoint (hub id or folder) to an artifact folder, which appears whole or not at all."""
    options = options or Options()
    check_output(output, force=options.force)
    recipe = choose_recipe(model, options.recipe, options.precisions)
    checkpoint = fetch_checkpoint(model, hub)
    facts = read_facts(checkpoint.folder)
    engine = choose_engine(facts, options.engine)
    decisions = decide(facts, options.flags, recipe)
    encoder = decisions.encoder
    quantized = [precision for precision in options.precisions if precision in MIN_COSINES]
    if quantized:
        check_quantizable(decisions, engine.value, quantized)
    floats: list[Precision] = [precision for precision in options.precisions if precision not in MIN_COSINES]
    graphs = {precision: build(facts, decisions, options, precision) for precision in floats or ["fp32"]}
    announce(facts, engine, graphs.values())
    if options.packed:
        check_packable(facts, decisions, engine.value, options.precisions)
    with new_folder(output, force=options.force) as draft:
        changes = write_tokenizer(facts, encoder, draft)
        graph = next(iter(graphs.values()))
        sections = _sections(facts, decisions, options, graph, draft)
        tokenization = Tokenization(encoder.max_length, encoder.truncation_side, encoder.pad_token_id, changes)
        hashed: dict[str, FileRecord] = {}
        variants = {name: write_graph(graphs[name], draft, name, progress, hashed) for name in floats}
        if options.packed:
            packed = {name: build(facts, decisions, options, name, packed=True) for name in floats}
            variants = {name: write_packed(packed[name], draft, variants[name]) for name in floats}
        if quantized:
            variants |= _quantized(
                facts, decisions, options, quantized, draft=draft, tokenization=tokenization, progress=progress
            )
        variants = {name: variants[name] for name in options.precisions}
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            created_with={name: version(name) for name in ("onnxembed", "onnx", "tokenizers", *TOOLS[engine.value])},
            source=Source(str(model), checkpoint.revision, recipe.name if recipe else None),
            tasks=tuple(task for task in TASKS if task in sections),
            model=Model(
                model_type=facts.model_type,
                attention=encoder.attention,
                engine=engine.value,
                engine_reason=None if engine.value == "build" else engine.reason,
                inputs=tuple(value.name for value in graph.inputs),
                ignored_config_keys=options.ignored_config_keys,
                adapter=encoder.adapter,
            ),
            tokenization=tokenization,
            prompts=encoder.prompts,
            variants={str(name): variant for name, variant in variants.items()},
            files=hash_files(draft, progress, hashed),
            verification={},
            **sections,
        )
        (draft / FILE_NAME).write_text(manifest.to_json(), encoding="utf-8")
        if verify:
            manifest = verify(draft, manifest, checkpoint)
            (draft / FILE_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def _sections(facts: Facts, decisions: Decisions, options: Options, graph: Graph, draft: Path) -> dict[Task, Any]:
    """Write the files that other programs read the task from; returns the manifest's section about each task."""
    if decisions.reranking is not None:
        write_cross_encoder(facts, decisions.reranking, draft)
        return {"reranking": decisions.reranking}
    sections = token_heads.sections(facts, decisions, graph, draft)
    if decisions.embedding is None:
        token_heads.write_files(facts, decisions, draft)
        return sections
    dense = write_modules(facts, decisions.encoder, decisions.embedding, options.pooling_out, draft)
    embedding = Embedding(
        pooling=decisions.embedding.pooling,
        dense=dense,
        normalize=decisions.embedding.normalize,
        dimension=decisions.embedding.dimension,
        pooled_by="runtime" if options.pooling_out else "graph",
    )
    return {"embedding": embedding, **sections}


def _quantized(
    facts: Facts,
    decisions: Decisions,
    options: Options,
    precisions: Sequence[Precision],
    *,
    draft: Path,
    tokenization: Tokenization,
    progress: Progress,
) -> dict[Precision, Variant]:
    """Write the graphs of integers, measured against the fp32 graph."""
    assert decisions.embedding is not None  # check_quantizable has refused all else
    tokenizer = TextTokenizer(draft, tokenization, decisions.encoder.max_length.value)
    samples = tokenized(read_texts(options.calibration), tokenizer)
    return {
        precision: write_quantized(
            lambda make: build(facts, decisions, options, "fp32", make),
            draft,
            precision,
            samples,
            pooling=decisions.embedding.pooling.value,
            min_cosine=options.min_cosine,
            progress=progress,
        )
        for precision in precisions
    }


def build(
    facts: Facts,
    decisions: Decisions,
    options: Options,
    precision: Precision,
    make: GraphFactory | None = None,
    *,
    packed: bool = False,
) -> Graph:
    """The graph of one precision, from token ids to its outputs; `make` is told to make another kind of graph.

    `packed`: its packed form, of a model that `check_packable` has let pass.
    """
    engine = choose_engine(facts, options.engine).value
    encoder = partial(_built, make=make, packed=packed) if engine == "build" else partial(_taken_over, engine)
    graph, inputs, tokens = encoder(facts, decisions, options, precision)
    hidden_size = decisions.encoder.hidden_size
    if decisions.reranking is not None:
        if options.pooling_out:
            raise UsageError("--pooling-out is for embeddings: what a reranker reads of its tokens stays in its graph")
        logits = classify(graph, facts, decisions.reranking, inputs, tokens, hidden_size=hidden_size)
        graph.output(LOGITS, logits, (B, len(decisions.reranking.labels.value)))
        return graph
    token_heads.add(graph, inputs, tokens, facts, decisions)
    if options.pooling_out and packed:
        raise UnsupportedError("--packed: a packed graph pools itself, so it cannot be had with --pooling-out")
    if options.pooling_out and inputs.pooled != inputs.attention_mask:
        raise UnsupportedError(f"--pooling-out: a {facts.model_type} leaves tokens out that only its graph knows")
    if decisions.embedding is not None and not options.pooling_out:
        sentence = inputs.pool(tokens, decisions.embedding.pooling.value)
        for index, layer in enumerate(facts.dense, start=2):
            sentence = heads.dense(graph, sentence, layer, f"{index}_Dense")
        if decisions.embedding.normalize.value:
            sentence = heads.normalize(graph, sentence)
        graph.output(SENTENCE_EMBEDDING, sentence, (B, decisions.embedding.dimension))
    if not packed:
        graph.output(TOKEN_EMBEDDINGS, tokens, (B, T, hidden_size))
    return graph


def _built(
    facts: Facts,
    decisions: Decisions,
    options: Options,
    precision: Precision,
    *,
    make: GraphFactory | None = None,
    packed: bool = False,
) -> Encoder:
    """The encoder that a builder of ours writes."""
    architecture = ARCHITECTURES[facts.model_type]
    config = Config(facts.config, str(facts.config_file))
    weights = open_checkpoint(facts.transformer_folder, architecture.prefix, decisions.encoder.adapter, config)
    graph = make(weights) if make else Graph(weights, precision)
    inputs = PackedInputs(graph) if packed else Inputs(graph, causal=decisions.encoder.attention.value == "causal")
    assert architecture.build is not None  # choose_engine has seen it
    tokens = architecture.build(graph, config, inputs)
    if architecture.unpooled_token is not None:
        unpooled = architecture.unpooled_token(facts.transformer_folder)
        if unpooled is not None:
            inputs.pooled = inputs.mask_without(unpooled)
    tokens = graph.to_float32(tokens)
    config.finish(options.ignored_config_keys)
    projection = decisions.multi_vector is not None and decisions.multi_vector.of_checkpoint
    strange = [name for name in weights.unused() if not architecture.is_head(name)]
    strange = [name for name in strange if not (projection and name == STANFORD_LINEAR)]
    if strange:
        names = ", ".join(strange[:3])
        raise UnsupportedError(
            f"{facts.folder} has tensors that a {facts.model_type} encoder does not use ({len(strange)}, as {names}): "
            "it is not the plain architecture its config.json says it is"
        )
    return graph, inputs, tokens


def _taken_over(engine: Engine, facts: Facts, decisions: Decisions, options: Options, precision: Precision) -> Encoder:
    """The encoder that another engine writes."""
    builder = ARCHITECTURES.get(facts.model_type)  # its names are those that task heads are written in
    graph = Graph(Checkpoint(facts.transformer_folder, builder.prefix if builder else ""), precision)
    inputs = Inputs(graph)
    write = import_module(f"onnxembed.export.engines.{engine}").write_encoder  # it needs the engine's extra
    tokens = write(graph, inputs, facts, decisions.encoder.attention.value, options.ignored_config_keys)
    return graph, inputs, graph.to_float32(tokens)
