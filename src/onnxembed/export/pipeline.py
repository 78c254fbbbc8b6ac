"""The export journey: checkpoint -> facts -> decisions -> graphs -> artefact folder, verified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from onnxembed.errors import UnsupportedError
from onnxembed.export import heads
from onnxembed.export.adapters import open_checkpoint
from onnxembed.export.architectures import ARCHITECTURES
from onnxembed.export.artifact import Progress, check_output, hash_files, new_folder, write_graph
from onnxembed.export.config import Config
from onnxembed.export.graph import Graph
from onnxembed.export.inputs import B, Inputs, T
from onnxembed.export.modules import write_modules
from onnxembed.export.tokenizer import write_tokenizer
from onnxembed.facts import Facts, read_facts
from onnxembed.hub import Fetched, fetch_checkpoint, is_local
from onnxembed.manifest import (
    FILE_NAME,
    FORMAT_VERSION,
    Embedding,
    Manifest,
    Model,
    Precision,
    Source,
    Tokenization,
)
from onnxembed.recipes import Recipe, find_recipe, read_recipe
from onnxembed.resolve import Decisions, Flags, resolve

Verify = Callable[[Path, Manifest, Fetched], Manifest]
"""Checks a finished draft folder and returns the manifest with what it measured."""


@dataclass(frozen=True)
class Options:
    """What the caller decides about an export; the defaults follow the model's files.

    `recipe` names a recipe to follow; None follows that of a hub id, where the book has one.
    """

    precisions: tuple[Precision, ...] = ("fp32",)
    flags: Flags = field(default_factory=Flags)
    recipe: str | None = None
    pooling_out: bool = False
    ignored_config_keys: tuple[str, ...] = ()
    force: bool = False


def export(
    model: str | Path,
    output: Path,
    options: Options | None = None,
    *,
    revision: str | None = None,
    cache_dir: Path | None = None,
    local_files_only: bool = False,
    verify: Verify | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Manifest:
    """Export a checkpoint (hub id or folder) to an artefact folder, which appears whole or not at all."""
    options = options or Options()
    check_output(output, force=options.force)
    recipe = _recipe(model, options)
    checkpoint = fetch_checkpoint(model, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
    facts = read_facts(checkpoint.folder)
    decisions = resolve(facts, options.flags, recipe)
    graphs = {precision: build(facts, decisions, options, precision) for precision in options.precisions}
    with new_folder(output, force=options.force) as draft:
        changes = write_tokenizer(facts, decisions, draft)
        dense = write_modules(facts, decisions, options.pooling_out, draft)
        variants = {name: write_graph(graph, draft, name, progress) for name, graph in graphs.items()}
        graph = next(iter(graphs.values()))
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            created_with={name: version(name) for name in ("onnxembed", "onnx", "tokenizers")},
            source=Source(str(model), checkpoint.revision, recipe.name if recipe else None),
            tasks=("embedding",),
            model=Model(
                model_type=facts.model_type,
                attention=decisions.attention,
                engine="build",
                inputs=tuple(value.name for value in graph.inputs),
                ignored_config_keys=options.ignored_config_keys,
                adapter=decisions.adapter,
            ),
            tokenization=Tokenization(decisions.max_length, decisions.truncation_side, decisions.pad_token_id, changes),
            embedding=Embedding(
                pooling=decisions.pooling,
                dense=dense,
                normalize=decisions.normalize,
                dimension=decisions.dimension,
                pooled_by="runtime" if options.pooling_out else "graph",
            ),
            prompts=decisions.prompts,
            variants={str(name): variant for name, variant in variants.items()},
            files=hash_files(draft, progress),
            verification={},
        )
        (draft / FILE_NAME).write_text(manifest.to_json(), encoding="utf-8")
        if verify:
            manifest = verify(draft, manifest, checkpoint)
            (draft / FILE_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def _recipe(model: str | Path, options: Options) -> Recipe | None:
    """The recipe to follow: the named one, else the hub id's; never one for a folder that happens to be named so."""
    if options.recipe is not None:
        recipe: Recipe | None = read_recipe(options.recipe)
    else:
        recipe = None if is_local(model) else find_recipe(str(model))
    for refusal in recipe.refused if recipe else ():
        if refusal.precision in options.precisions:
            raise UnsupportedError(f"{model} is not built in {refusal.precision}: {refusal.reason}")
    return recipe


def build(facts: Facts, decisions: Decisions, options: Options, precision: Precision) -> Graph:
    """The graph of one precision, from token ids to its outputs."""
    architecture = ARCHITECTURES[facts.model_type]
    config = Config(facts.config, str(facts.transformer_folder / "config.json"))
    weights = open_checkpoint(facts.transformer_folder, architecture.prefix, decisions.adapter, config)
    graph = Graph(weights, precision)
    inputs = Inputs(graph, causal=decisions.attention.value == "causal")
    tokens = graph.to_float32(architecture.build(graph, config, inputs))
    config.finish(options.ignored_config_keys)
    strange = [name for name in weights.unused() if not architecture.heads.match(name)]
    if strange:
        names = ", ".join(strange[:3])
        raise UnsupportedError(
            f"{facts.folder} has tensors that a {facts.model_type} encoder does not use ({len(strange)}, as {names}): "
            "it is not the plain architecture its config.json says it is"
        )
    if options.pooling_out and inputs.pooled != inputs.attention_mask:
        raise UnsupportedError(f"--pooling-out: a {facts.model_type} leaves tokens out that only its graph knows")
    if not options.pooling_out:
        sentence = heads.pool(graph, tokens, inputs.pooled, decisions.pooling.value)
        for index, layer in enumerate(facts.dense, start=2):
            sentence = heads.dense(graph, sentence, layer, f"{index}_Dense")
        if decisions.normalize.value:
            sentence = heads.normalize(graph, sentence)
        graph.output("sentence_embedding", sentence, (B, decisions.dimension))
    graph.output("token_embeddings", tokens, (B, T, decisions.hidden_size))
    return graph
