"""The export journey: checkpoint -> facts -> plan -> graphs -> artifact folder, verified."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from onnxembed.decisions.compose_manifest import compose_manifest, tokenization_section
from onnxembed.export.artifact.folder import check_output, new_folder
from onnxembed.export.artifact.graph_file import write_graph, write_packed
from onnxembed.export.artifact.hashing import hash_files
from onnxembed.export.artifact.record_manifest import Verify, record_manifest
from onnxembed.export.artifact.sentence_transformers import write_sentence_transformers
from onnxembed.export.build_graph import build, build_packed
from onnxembed.export.engines.engine import TOOLS, announce
from onnxembed.export.graph.graph import Graph
from onnxembed.export.heads import HEADS
from onnxembed.export.plan import ExportPlan, Options, make_plan
from onnxembed.export.progress import Progress, silent
from onnxembed.export.quantize.calibration_texts import read_texts, tokenized
from onnxembed.export.quantize.quantize import write_quantized
from onnxembed.export.tokenizer.files import write_tokenizer
from onnxembed.facts.facts import read_facts
from onnxembed.hub.checkpoint_files import fetch_checkpoint
from onnxembed.hub.source import HubOptions
from onnxembed.manifest import FileRecord, Manifest, Model, Precision, Source, Task, Tokenization, Variant
from onnxembed.recipes.book import choose_recipe
from onnxembed.recipes.recipe import Recipe
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
    check_output(output, force=options.force)
    recipe = choose_recipe(model, options.recipe, options.precisions)
    make = partial(_plan, recipe=recipe, options=options)
    checkpoint = fetch_checkpoint(model, hub, examine=make)  # a refusal comes before the weights do
    plan = make(checkpoint.folder)
    graphs = {precision: build(plan, precision) for precision in plan.float_precisions or ("fp32",)}
    announce(plan.engine, graphs.values())
    encoder, graph = plan.decisions.encoder, next(iter(graphs.values()))
    with new_folder(output, force=options.force) as draft:
        tokenization = tokenization_section(encoder, write_tokenizer(plan.facts, encoder, draft))
        sections: dict[Task, Any] = {
            task: HEADS[task].section(plan.facts, plan.decisions, graph, draft) for task in plan.tasks
        }
        write_sentence_transformers(plan.facts, plan.decisions, sections.get("embedding"), draft)
        hashed: dict[str, FileRecord] = {}
        variants = _write_graphs(plan, graphs, draft, progress, hashed)
        variants |= _write_quantized(plan, draft, tokenization, progress)
        manifest = compose_manifest(
            packages=("onnxembed", "onnx", "tokenizers", *TOOLS[plan.engine.value]),
            source=Source(str(model), checkpoint.revision, recipe.name if recipe else None),
            model=_model_section(plan, graph),
            tokenization=tokenization,
            encoder=encoder,
            sections=sections,
            variants={precision: variants[precision] for precision in options.precisions},
            files=hash_files(draft, progress, hashed),
        )
        return record_manifest(draft, manifest, checkpoint, verify)


def _plan(folder: Path, recipe: Recipe | None, options: Options) -> ExportPlan:
    return make_plan(read_facts(folder), recipe, options)


def _write_graphs(
    plan: ExportPlan, graphs: dict[Precision, Graph], draft: Path, progress: Progress, hashed: dict[str, FileRecord]
) -> dict[Precision, Variant]:
    """Write the floating-point graphs, and their packed forms; `hashed` gets the records of files hashed meanwhile."""
    variants = {name: write_graph(graphs[name], draft, name, progress, hashed) for name in plan.float_precisions}
    if plan.options.packed:
        packed = {name: build_packed(plan, name) for name in variants}
        variants = {name: write_packed(packed[name], draft, variant) for name, variant in variants.items()}
    return variants


def _write_quantized(
    plan: ExportPlan, draft: Path, tokenization: Tokenization, progress: Progress
) -> dict[Precision, Variant]:
    """Write the integer graphs, measured against the fp32 graph."""
    embedding = plan.decisions.embedding
    if not plan.integer_precisions or embedding is None:
        return {}
    tokenizer = TextTokenizer(draft, tokenization, tokenization.max_length.value)
    samples = tokenized(read_texts(plan.options.calibration), tokenizer)
    return {
        precision: write_quantized(
            partial(build, plan, "fp32"),
            draft,
            precision,
            samples,
            pooling=embedding.pooling.value,
            min_cosine=plan.options.min_cosine,
            progress=progress,
        )
        for precision in plan.integer_precisions
    }


def _model_section(plan: ExportPlan, graph: Graph) -> Model:
    engine = plan.engine
    return Model(
        model_type=plan.facts.model_type,
        attention=plan.decisions.encoder.attention,
        engine=engine.value,
        engine_reason=None if engine.value == "build" else engine.reason,
        inputs=tuple(value.name for value in graph.inputs),
        ignored_config_keys=plan.options.ignored_config_keys,
        adapter=plan.decisions.encoder.adapter,
    )
