"""The export journey: checkpoint -> facts -> plan -> graphs -> artifact folder, verified."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from onnxembed.decisions.compose_manifest import compose_manifest, tokenization_section
from onnxembed.decisions.overruled import find_overruled
from onnxembed.errors import UsageError
from onnxembed.export.artifact.folder import check_output, new_folder
from onnxembed.export.artifact.graph_file import write_graph, write_packed
from onnxembed.export.artifact.hashing import hash_files
from onnxembed.export.artifact.model_card import copy_license, license_of, read_metadata
from onnxembed.export.artifact.record_manifest import Verify, record_manifest
from onnxembed.export.artifact.sentence_transformers import write_sentence_transformers
from onnxembed.export.build_graph import build, build_packed
from onnxembed.export.checkpoint.digest import tensors_digest
from onnxembed.export.engines.engine import TOOLS, announce
from onnxembed.export.graph.graph import Graph, Widths
from onnxembed.export.heads import HEADS
from onnxembed.export.plan import ExportPlan, Options, make_plan
from onnxembed.export.quantize.calibration_texts import Samples, read_texts, tokenized, tokenized_pairs
from onnxembed.export.quantize.measures import (
    Measure,
    ScoreMeasure,
    SparseMeasure,
    VectorMeasure,
    score_floor,
    vector_floor,
)
from onnxembed.export.quantize.quantize import write_quantized
from onnxembed.export.tokenizer.files import write_tokenizer
from onnxembed.facts.facts import read_facts
from onnxembed.foreign_errors import foreign_errors
from onnxembed.hub.checkpoint_files import fetch_checkpoint
from onnxembed.hub.model_files import hub_id, local_paths
from onnxembed.hub.source import Fetched, HubOptions
from onnxembed.manifest import FileRecord, Manifest, Model, Precision, Source, Task, Variant
from onnxembed.progress import Progress, silent
from onnxembed.recipes.book import choose_recipe
from onnxembed.recipes.recipe import Recipe
from onnxembed.tokenizer.pairs import PairTokenizer, TemplateTokenizer
from onnxembed.tokenizer.texts import TextTokenizer


def export(
    model: str | Path,
    output: Path,
    options: Options | None = None,
    *,
    hub: HubOptions | None = None,
    verify: Verify | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Export a checkpoint (hub id or folder) to an artifact folder, which appears whole or not at all.

    Raises what `make_plan` does, UsageError for an `output` that is not to be replaced, VerificationError for vectors
    that are too far from the reference's, and what `fetch_checkpoint` and `read_facts` do.
    """
    options = options or Options()
    check_output(output, force=options.force, inputs=input_paths(model, options))
    recipe = choose_recipe(hub_id(model), options.recipe, options.precisions)
    make = partial(plan_checkpoint, recipe=recipe, options=options)
    checkpoint = fetch_checkpoint(model, hub, examine=make)  # a refusal comes before the weights do
    plan = make(checkpoint)
    graphs = build_graphs(plan)
    announce(plan.engine, graphs.values())
    graph = next(iter(graphs.values()))
    with new_folder(output, force=options.force) as draft:
        hashed: dict[str, FileRecord] = {}
        manifest = write_small_files(plan, checkpoint, inputs=graph.input_names, widths=graph.widths, draft=draft)
        variants = _write_graphs(plan, graphs, draft, progress, hashed)
        variants |= _write_quantized(plan, draft, manifest, progress)
        manifest = replace(
            manifest,
            variants={precision: variants[precision] for precision in options.precisions},
            files=hash_files(draft, progress, hashed),
            model=replace(manifest.model, tensors=tensors_digest(plan.facts)),
        )
        write_fp32 = partial(_write_fp32, plan, progress=progress)
        manifest = record_manifest(draft, manifest, checkpoint, verify, write_fp32)
        _check_proven(manifest, options)
        return manifest


def _check_proven(manifest: Manifest, options: Options) -> None:
    """Raise UsageError for tensors that were left out of a graph that was not compared with the reference."""
    if options.ignored_tensors and not manifest.verification:
        raise UsageError(
            f"--ignore-tensor {options.ignored_tensors[0]}: only a comparison with the reference shows that the model "
            "does without it, and there was none; install onnxembed[torch], and leave out --no-verify"
        )


def input_paths(model: str | Path, options: Options) -> list[Path]:
    """The paths that an export reads, which it must not replace."""
    return [*local_paths(model), *([options.calibration] if options.calibration else [])]


def plan_checkpoint(checkpoint: Fetched, recipe: Recipe | None, options: Options) -> ExportPlan:
    """The plan for a checkpoint; errors as for `read_facts` and `make_plan`."""
    with foreign_errors(_unexpected(checkpoint.folder), but=(OSError,)):
        return make_plan(read_facts(checkpoint.folder, checkpoint.base), recipe, options)


def build_graphs(plan: ExportPlan) -> dict[Precision, Graph]:
    """The floating-point graphs of a plan, whose weights are read later; that of fp32 if none is asked for."""
    with foreign_errors(_unexpected(plan.facts.folder), but=(OSError,)):
        return {precision: build(plan, precision) for precision in plan.float_precisions or ("fp32",)}


def write_small_files(
    plan: ExportPlan, checkpoint: Fetched, *, inputs: tuple[str, ...], widths: Widths, draft: Path
) -> Manifest:
    """Write every file of an artifact but its graphs and its card; returns the manifest, which names no file yet.

    `inputs` and `widths` are the inputs and the outputs of the graph.
    """
    facts, decisions, options = plan.facts, plan.decisions, plan.options
    tokenization = tokenization_section(decisions.encoder, write_tokenizer(facts, decisions.encoder, draft))
    sections: dict[Task, Any] = {task: HEADS[task].section(facts, decisions, widths, draft) for task in plan.tasks}
    write_sentence_transformers(facts, decisions, sections.get("embedding"), draft)
    copy_license(checkpoint.folder, draft)
    recipe, license_name = plan.recipe, license_of(read_metadata(checkpoint.folder))
    manifest = compose_manifest(
        packages=("onnxembed", "onnx", "tokenizers", *TOOLS[plan.engine.value]),
        source=Source(checkpoint.model, checkpoint.revision, recipe.name if recipe else None, license_name),
        model=_model_section(plan, inputs),
        tokenization=tokenization,
        encoder=decisions.encoder,
        sections=sections,
        variants={},
        files={},
    )
    own = choose_recipe(hub_id(checkpoint.model))
    return replace(manifest, overruled=find_overruled(facts, options.flags, recipe, decisions, own) or None)


def _unexpected(folder: Path) -> str:
    return f"the files of {folder} hold something that no published model has there"


def _write_graphs(
    plan: ExportPlan, graphs: dict[Precision, Graph], draft: Path, progress: Progress, hashed: dict[str, FileRecord]
) -> dict[Precision, Variant]:
    """Write the floating-point graphs, and their packed forms; `hashed` gets the records of files hashed meanwhile."""
    variants = {name: write_graph(graphs[name], draft, name, progress, hashed) for name in plan.float_precisions}
    if plan.options.packed:
        packed = {name: build_packed(plan, name) for name in variants}
        variants = {name: write_packed(packed[name], draft, variant) for name, variant in variants.items()}
    return variants


def _write_fp32(plan: ExportPlan, draft: Path, *, progress: Progress) -> Variant:
    """Write an fp32 graph for the proof of an artifact that has none."""
    return write_graph(build(plan, "fp32"), draft, "fp32", progress)


def _write_quantized(plan: ExportPlan, draft: Path, manifest: Manifest, progress: Progress) -> dict[Precision, Variant]:
    """Write the integer graphs, measured against the fp32 graph; the manifest does not yet name any graph."""
    if not plan.integer_precisions:
        return {}
    samples = _samples(plan, draft, manifest)
    return {
        precision: write_quantized(
            partial(build, plan, "fp32"),
            draft,
            precision,
            samples,
            measure=_measure(plan, precision),
            progress=progress,
        )
        for precision in plan.integer_precisions
    }


def _samples(plan: ExportPlan, draft: Path, manifest: Manifest) -> Samples:
    """The texts to make integer graphs with, or pairs of them for a reranker."""
    texts, limit = read_texts(plan.options.calibration), manifest.tokenization.max_length.value
    if (reranking := manifest.reranking) is None:
        return tokenized(texts, TextTokenizer(draft, manifest.tokenization, limit))
    if reranking.template is not None:
        return tokenized_pairs(texts, TemplateTokenizer(draft, manifest, limit, reranking.template.value))
    return tokenized_pairs(texts, PairTokenizer(draft, manifest, limit, reranking.truncation.value))


def _measure(plan: ExportPlan, precision: Precision) -> Measure:
    """How an integer graph is compared with fp32."""
    options, embedding = plan.options, plan.decisions.embedding
    if plan.decisions.reranking is not None:
        return ScoreMeasure(score_floor(precision, options.min_agreement))
    floor = vector_floor(precision, options.min_cosine)
    return SparseMeasure(floor) if embedding is None else VectorMeasure(floor, embedding.pooling.value)


def _model_section(plan: ExportPlan, inputs: tuple[str, ...]) -> Model:
    engine = plan.engine
    return Model(
        model_type=plan.facts.model_type,
        attention=plan.decisions.encoder.attention,
        engine=engine.value,
        engine_reason=None if engine.value == "build" else engine.reason,
        inputs=inputs,
        ignored_config_keys=plan.options.ignored_config_keys,
        ignored_tensors=plan.options.ignored_tensors,
        adapter=plan.decisions.encoder.adapter,
        form=plan.options.form,
    )
