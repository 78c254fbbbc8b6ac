"""Adopts a model whose ONNX graph another program made.

The graph is used unchanged; how texts become vectors or scores is decided as for an export, from the same files,
recipes and flags, with the same errors. Properties of the graph are read from the graph, never guessed from names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from onnxembed.decisions.compose_manifest import TokenLookup, compose_manifest, tokenization_section
from onnxembed.decisions.decide import Decisions, decide
from onnxembed.decisions.flags import Flags
from onnxembed.decisions.overruled import find_overruled
from onnxembed.errors import ModelFilesError, UnsaidError, UnsupportedError, UsageError
from onnxembed.execution.backend import GraphFiles
from onnxembed.facts.facts import Facts
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.hub.model_files import ModelFiles, hub_id
from onnxembed.loading.adoption import embedding, multi_vector, reranking, sparse
from onnxembed.loading.adoption.measuring import refuse_scaled, run_ids
from onnxembed.loading.adoption.outputs import find_output, shown
from onnxembed.loading.choices import AdoptionChoices
from onnxembed.loading.found_graph import FoundGraph, read_found_graph
from onnxembed.loading.graph_walk import final_activation, integer_output, shared_scale
from onnxembed.loading.located import LocatedArtifact
from onnxembed.loading.onnx_file import OnnxFile, Value
from onnxembed.manifest import (
    CUDA_ONLY,
    INPUTS,
    SENTENCE_EMBEDDING,
    AttentionMode,
    Decision,
    Dense,
    FileRecord,
    IntegerOutput,
    Manifest,
    Model,
    Source,
    Task,
    Variant,
)
from onnxembed.manifest.describe import describe_overruled
from onnxembed.recipes.book import choose_recipe
from onnxembed.recipes.recipe import Recipe
from onnxembed.tokenizer.as_read import adapt_stored
from onnxembed.tokenizer.token_ids import TokenIds, special_tokens
from onnxembed.warning import warn

INPUT_TYPES = ("int64", "int32", "float32", "float16", "bool")
"""The types of inputs that token ids and masks can be cast to."""

OUTPUTS: dict[Task, Callable[[OnnxFile, Facts, Decisions], Value]] = {
    "embedding": embedding.output,
    "sparse": sparse.output,
    "multi_vector": multi_vector.output,
    "reranking": reranking.output,
}
"""What finds the output of a graph that a task reads."""


@dataclass(frozen=True)
class Adoption:
    """What is decided about a model with a graph that another program made."""

    found: FoundGraph
    flags: Flags
    recipe: Recipe | None
    decisions: Decisions
    outputs: Mapping[Task, Value]
    """The graph's output to read, by task."""
    integer_outputs: Mapping[str, IntegerOutput]
    one_text: Decision[bool] | None

    @property
    def overruled(self) -> tuple[str, ...]:
        """What flags decided otherwise than the files, the recipe or the graph do, in words."""
        flags, scores = self.flags, self.outputs.get("reranking")
        if scores is not None and final_activation(self.found.graph, scores):
            flags = replace(flags, activation=None)  # the graph has applied it: identity is then no contradiction
        own = choose_recipe(hub_id(self.found.files.model))
        decided = find_overruled(self.found.facts, flags, self.recipe, self.decisions, own)
        one_text = self.one_text
        return (*decided, one_text.reason) if one_text is not None and one_text.origin == "flag" else decided

    @property
    def leaves_out_dense(self) -> bool:
        """Whether the model has Dense layers that its graph does not compute."""
        output = self.outputs.get("embedding")
        return bool(output is not None and output.name != SENTENCE_EMBEDDING and self.found.facts.post.layers)

    def sections(self, ids: TokenLookup, dense: tuple[Dense, ...]) -> dict[Task, Any]:
        """The manifest's section of each task; `dense` are the entries of the Dense layers."""
        decisions, facts = self.decisions, self.found.facts
        sections: dict[Task, Any] = {}
        if decisions.embedding is not None:
            sections["embedding"] = embedding.section(decisions.embedding, facts, self.outputs["embedding"], dense, ids)
        if "sparse" in self.outputs:
            sections["sparse"] = sparse.section(decisions, facts, self.outputs["sparse"], ids)
        if "multi_vector" in self.outputs:
            sections["multi_vector"] = multi_vector.section(decisions, self.outputs["multi_vector"], ids)
        if decisions.reranking is not None:
            sections["reranking"] = decisions.reranking
        return sections

    def variant(self, file: str, data: str | None) -> Variant:
        """The manifest's entry of the graph, which lies in these files."""
        operators = dict(sorted(self.found.graph.operators.items()))
        return Variant(
            file=file,
            data=data,
            nodes=sum(operators.values()),
            operators=operators,
            integer_outputs=dict(self.integer_outputs),
            one_text=self.one_text,
        )


def decide_adoption(found: FoundGraph, flags: Flags, recipe: Recipe | None) -> Adoption:
    """Decide how the graph's outputs become vectors or scores.

    Raises the errors of `decide`, and UnsupportedError for a graph that cannot be fed or read.
    """
    facts, graph = found.facts, found.graph
    if recipe:
        recipe.refuse_precisions([found.precision])
    _check_inputs(graph)
    one_text = _one_text(found, flags)
    decisions = decide(facts, flags, recipe)
    outputs: dict[Task, Value] = {}
    for task, find in OUTPUTS.items():
        if getattr(decisions, task) is not None and not _lacks_extra(graph, task, decisions):
            outputs[task] = find(graph, facts, decisions)
    integers = {value.name: integer_output(graph, value) for value in outputs.values()}
    _check_lengths(graph, outputs, decisions)
    if MODEL_TYPES[facts.model_type].decoder:
        attention = _measured_attention(graph, next(iter(outputs.values())), decisions.encoder.attention)
        decisions = replace(decisions, encoder=replace(decisions.encoder, attention=attention))
    integer_outputs = {name: how for name, how in integers.items() if how is not None}
    return Adoption(found, flags, recipe, decisions, outputs, integer_outputs, one_text)


def _check_lengths(graph: OnnxFile, outputs: Mapping[Task, Value], decisions: Decisions) -> None:
    """Refuse a graph that scales vectors which the model does not scale; pooled by the runtime, they are as decided."""
    sentence, tokens = outputs.get("embedding"), outputs.get("multi_vector")
    if decisions.embedding and sentence and sentence.name == SENTENCE_EMBEDDING:
        refuse_scaled(graph, sentence, decisions.embedding.normalize)
    if decisions.multi_vector and tokens:
        refuse_scaled(graph, tokens, decisions.multi_vector.normalize)


def _lacks_extra(graph: OnnxFile, task: Task, decisions: Decisions) -> bool:
    """Whether the graph of an embedding model leaves out another of the model's heads, as most graphs of bge-m3 do."""
    extra = {"sparse": "sparse_weights", "multi_vector": "multi_vector"}
    return decisions.embedding is not None and task in extra and find_output(graph, [extra[task]]) is None


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
        if value.element_type not in INPUT_TYPES:
            raise UnsupportedError(f"{graph.path}: {value.name} is {value.element_type}, not integers of 32 or 64 bits")
        if value.shape is None or len(value.shape) != 2 or value.shape[0] not in (None, 1) or value.shape[1]:
            raise UnsupportedError(
                f"{graph.path}: {value.name} has shape {shown(value)}, not a free number of texts by a free number of "
                "tokens; make the graph again with both axes dynamic"
            )


def _one_text(found: FoundGraph, flags: Flags) -> Decision[bool] | None:
    """Whether each run must hold a single text; None for a graph whose texts leave each other alone."""
    if any(value.shape and value.shape[0] == 1 for value in found.graph.inputs):
        return Decision.default(True, f"{found.file} takes one text at a time")
    operator = shared_scale(found.graph)
    if operator is None and flags.share_scales:
        raise UsageError(f"--share-scales: the texts of {found.file} share no scale, so they run together anyway")
    if operator is None:
        return None
    why = f"{operator} gives all texts of a run one scale, by which each would change the others' vectors"
    if flags.share_scales:
        return Decision(False, "flag", f"--share-scales, although {why}")
    return Decision.default(True, f"{why} (share_scales=True or --share-scales runs them together all the same)")


def _measured_attention(graph: OnnxFile, output: Value, wanted: Decision[AttentionMode]) -> Decision[AttentionMode]:
    """A decoder's attention as decided; ModelFilesError if the graph attends in the other way.

    Whether the first token sees the second is measured in the graph, because the files cannot say how another exporter
    made it: one exporter is known to make every graph causal.
    """
    if len(output.shape or ()) != 3:
        return replace(wanted, reason=f"{wanted.reason}; not measured in the graph, which pools its tokens")
    # Two texts of two tokens that differ in the second.
    first, second = (tokens[0, 0] for (tokens,) in run_ids(graph, [output], [1, 2], [1, 3]))
    same = np.abs(first - second).max() <= 1e-5 * np.abs(first).max()
    measured = "causal" if same else "bidirectional"
    if measured != wanted.value:
        raise ModelFilesError(
            f"{graph.path} attends in the {measured} way, but the model is {wanted.value} ({wanted.origin}: "
            f"{wanted.reason}); make its graph with onnxembed export"
        )
    return replace(wanted, reason=f"{wanted.reason}; measured in the graph")


def adopt(files: ModelFiles, file: str, precision: str, choices: AdoptionChoices) -> LocatedArtifact:
    """Adopt a model with an ONNX graph in memory, for loading; nothing is written.

    Errors as for `read_found_graph` and `decide`. If files would have to be written, the error names the command that
    does so.
    """
    command = f"onnxembed adopt {files.model} -o DIR"
    found = read_found_graph(files, file, precision)
    flags = Flags(
        pooling=choices.pooling,
        normalize=choices.normalize,
        task=choices.task,
        activation=choices.activation,
        share_scales=choices.share_scales,
    )
    try:
        adoption = decide_adoption(found, flags, choose_recipe(hub_id(files.model)))
    except UnsaidError as error:
        raise UnsaidError(f"{error}, to: {command}{_argument(error.flag)}", error.flag) from None
    if adoption.leaves_out_dense:
        raise UnsupportedError(f"{found.file} leaves out the Dense layers of {found.folder}; to add them: {command}")
    source = found.facts.transformer_folder / "tokenizer.json"
    if not source.is_file():
        raise UnsupportedError(f"{found.folder} has no tokenizer.json; make one from its vocabulary with: {command}")
    text, changes = adapt_stored(found.facts, adoption.decisions.encoder, source)
    # Dense layers are in the graph, so no file holds their weights.
    layers = found.facts.post.dense
    dense = tuple(Dense(layer.in_features, layer.out_features, layer.activation, None, None) for layer in layers)
    ids = TokenIds(Tokenizer.from_str(text), special_tokens(found.facts, {}))
    manifest = adopted_manifest(
        adoption,
        sections=adoption.sections(ids, dense),
        variant=adoption.variant(found.file, None),
        changes=changes,
        files={},
    )
    for line in describe_overruled(manifest):
        warn(line)
    one_text = adoption.one_text
    if one_text and one_text.value:
        warn(f"{found.file}: each text runs by itself, which is slower, because {one_text.reason}")
    graph = GraphFiles(
        found.graph.path,
        size=sum(path.stat().st_size for path in found.graph.files),
        cuda_only=found.precision in CUDA_ONLY,
        one_text=bool(one_text and one_text.value),
    )
    return LocatedArtifact(files, manifest, found.precision, graph, {}, text)


def _argument(flag: str) -> str:
    """The argument of OnnxEmbedder that decides the same as a flag, as the end of a message."""
    arguments = {"--pooling": "pooling", "--normalize": "normalize"}
    return f", or load it with {arguments[flag]}=..." if flag in arguments else ""


def adopted_manifest(
    adoption: Adoption,
    *,
    sections: Mapping[Task, Any],
    variant: Variant,
    changes: tuple[str, ...],
    files: dict[str, FileRecord],
) -> Manifest:
    """The manifest of an adopted model."""
    found, encoder, recipe = adoption.found, adoption.decisions.encoder, adoption.recipe
    producer = found.graph.producer or "an unnamed program"
    manifest = compose_manifest(
        packages=("onnxembed", "tokenizers"),
        source=Source(found.files.model, found.files.revision, recipe.name if recipe else None),
        model=Model(
            model_type=found.facts.model_type,
            attention=encoder.attention,
            engine="adopted",
            inputs=tuple(value.name for value in found.graph.inputs),
            ignored_config_keys=(),
            adapter=encoder.adapter,
            engine_reason=f"{found.file} was made by {producer}",
        ),
        tokenization=tokenization_section(encoder, changes),
        encoder=encoder,
        sections=sections,
        variants={found.precision: variant},
        files=files,
    )
    return replace(manifest, overruled=adoption.overruled or None)
