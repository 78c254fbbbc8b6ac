"""A manifest in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from onnxembed.counting import counted
from onnxembed.manifest.sections import (
    Decision,
    Embedding,
    IntegerOutput,
    Manifest,
    MultiVector,
    Quality,
    Reranking,
    Sparse,
    Variant,
)
from onnxembed.manifest.words import PROOF_FILE

NAME_WIDTH = 16
"""The width of a decision's name, in a table of them."""


def describe(manifest: Manifest) -> Iterator[str]:
    """An artifact's decisions and their origins, then its graphs, line by line."""
    yield from describe_overruled(manifest)
    for name, value in decisions(manifest):
        yield f"{name:<{NAME_WIDTH}} {value}"
    yield from describe_graphs(manifest)


def describe_graphs(manifest: Manifest) -> Iterator[str]:
    """The graphs, each after an empty line."""
    for precision, variant in manifest.variants.items():
        yield ""
        yield f"{precision}: {variant.file}, {_size(manifest, variant)}, {variant.nodes} nodes"
        if variant.quality:
            yield from _quality(variant.quality)
        for output, integers in variant.integer_outputs.items():
            yield f"  {output} holds integers: {_rule(integers)}"
        if variant.one_text:
            yield f"  one text in each run: {_decided(variant.one_text)}"
        yield from _operators(variant.operators)
        if variant.packed:
            yield f"{precision}, for CUDA without padding: {variant.packed.file}, {variant.packed.nodes} nodes"
            yield from _operators(variant.packed.operators)


def describe_overruled(manifest: Manifest) -> Iterator[str]:
    """What flags decided against the model's own files; nothing for a model's own vectors."""
    if manifest.overruled:
        results = "scores" if manifest.reranking else "vectors"
        yield f"these are not the model's own {results}: {'; '.join(manifest.overruled)}"


def _operators(counts: dict[str, int]) -> Iterator[str]:
    for operator, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        yield f"  {count:>4} {operator}"


def _rule(integers: IntegerOutput) -> str:
    """How integers become numbers."""
    if len(integers.scale) > 1 or len(integers.zero_point) > 1:
        return "each number has its own scale and zero point"
    return f"a number is {integers.scale[0]:.6g} * (integer - {integers.zero_point[0]:g})"


def _quality(quality: Quality) -> Iterator[str]:
    figures = []
    if quality.min_cosine is not None and quality.mean_cosine is not None:
        figures.append(f"min cosine {quality.min_cosine:.6f}, mean {quality.mean_cosine:.6f}")
    if quality.rank_agreement is not None:
        figures.append(f"rank agreement {quality.rank_agreement:.6f}")
    required = f" (at least {quality.required:g} was required)"
    if quality.min_overlap is not None and quality.max_dot_change is not None:
        required += f", smallest overlap {quality.min_overlap:.6f}, dot products off by {quality.max_dot_change:.1e}"
    if quality.max_score_diff is not None:
        required += f", largest difference of a logit {quality.max_score_diff:.1e}"
    items = "pairs" if quality.rank_agreement is not None else "texts"
    yield f"  against fp32, on {quality.texts} {items}: {', '.join(figures)}{required}"
    if quality.kept_wider:
        yield f"  {len(quality.kept_wider)} weights in 16 bits: {', '.join(quality.kept_wider)}"


def describe_proof(manifest: Manifest) -> str:
    """Whether the artifact's graphs can be checked where they run."""
    if record := manifest.files.get(PROOF_FILE):
        return (
            f"proof: {PROOF_FILE}, {record.bytes / 1024:.0f} KiB; other graphs than fp32 on the CPU are checked with it"
        )
    if manifest.model.engine == "adopted":
        return "no proof: another program made the graph, so nothing is known that it could be checked with"
    return "no proof: an export by this version has one, and verify --against adds one"


def describe_verification(manifest: Manifest) -> Iterator[str]:
    """One line for each verification, and one for each graph that was not verified."""
    for precision, result in manifest.verification.items():
        cosine = "" if result.min_cosine is None else f", min cosine {result.min_cosine:.7f}"
        items = "pairs" if manifest.reranking else "texts"
        yield (
            f"verified {precision} on {result.texts} {items} against {result.reference}: token ids equal, "
            f"max abs difference {result.max_abs_diff:.1e}{cosine}"
        )
    for precision in manifest.variants:
        if precision not in manifest.on_cpu:
            yield f"{precision}: not verified (needs CUDA)"
        if manifest.variants[precision].packed:
            yield f"{precision} without padding: not verified (needs CUDA)"


def _size(manifest: Manifest, variant: Variant) -> str:
    if not manifest.files:
        return "no hashes recorded, so none are checked"
    return megabytes(sum(manifest.files[file].bytes for file in (variant.file, variant.data) if file))


def describe_files(files: Mapping[str, int | None]) -> Iterator[str]:
    """One line for each file with its size, where that is known."""
    for name, size in files.items():
        yield f"  {name}" + ("" if size is None else f", {_bytes(size)}")


def describe_output(manifest: Manifest) -> str:
    """What a model returns for each text or pair, in a few words."""
    if manifest.reranking:
        labels = len(manifest.reranking.labels.value)
        return "a score" if labels == 1 else f"{labels} scores"
    made = [counted(manifest.embedding.dimension, "dimension")] if manifest.embedding else []
    if manifest.sparse:
        made.append(f"weights for {manifest.sparse.dimension} tokens")
    if manifest.multi_vector:
        made.append(f"{counted(manifest.multi_vector.dimension, 'dimension')} for each token")
    return ", ".join(made)


def megabytes(size: int) -> str:
    """A number of bytes in megabytes."""
    return f"{size / 1e6:.1f} MB"


def _bytes(size: int) -> str:
    """A number of bytes in megabytes, of a small file in kilobytes."""
    return megabytes(size) if size >= 1e5 else f"{size / 1e3:.1f} kB"


def decisions(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Each decision with its origin: its name, and the rest of its line."""
    source, model, tokens = manifest.source, manifest.model, manifest.tokenization
    yield "source", source.model + (f" at {source.revision}" if source.revision else "")
    if source.recipe:
        yield "recipe", source.recipe
    yield "tasks", ", ".join(manifest.tasks)
    if source.license:
        yield "license", source.license
    inputs = f", inputs {', '.join(model.inputs)}" if model.inputs else ""
    yield "architecture", f"{model.model_type}, engine {model.engine}{inputs}"
    if model.engine_reason:
        yield "engine", f"{model.engine} ({model.engine_reason})"
    yield from (("config.json", f"{key} was ignored (flag: --ignore-config-key)") for key in model.ignored_config_keys)
    yield from (("weights", f"{name} was left out (flag: --ignore-tensor)") for name in model.ignored_tensors)
    if model.form == "portable":
        yield "form", "portable: standard ONNX operators only, for any program that reads ONNX"
    yield "attention", _decided(model.attention)
    if model.adapter:
        yield "adapter", _decided(model.adapter)
    if manifest.embedding:
        yield from _embedding(manifest.embedding)
    if manifest.sparse:
        yield from _sparse(manifest.sparse)
    if manifest.multi_vector:
        yield from _multi_vector(manifest.multi_vector)
    if manifest.reranking:
        yield from _reranking(manifest.reranking)
    yield "max length", _decided(tokens.max_length)
    yield "truncation", _decided(tokens.truncation_side)
    yield "padding", _decided(tokens.pad_token_id, f"token {tokens.pad_token_id.value}")
    for change in tokens.changes:
        yield "tokenizer", change
    prompts = manifest.prompts
    for name, text in prompts.texts.value.items():
        yield "prompt", f"{name}: {text!r}" + (" (used by default)" if name == prompts.default.value else "")
    if not prompts.texts.value and not manifest.reranking:
        yield "prompts", _decided(prompts.texts, "none")
    yield "made with", ", ".join(f"{name} {version}" for name, version in manifest.created_with.items())
    yield from _spaces(manifest)


def _spaces(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """The id of the vector space of each task."""
    for task, space in (manifest.spaces or {}).items():
        yield "vector space", space if len(manifest.tasks) == 1 else f"{space} ({task})"


def _embedding(embedding: Embedding) -> Iterator[tuple[str, str]]:
    yield "pooling", _decided(embedding.pooling, "+".join(embedding.pooling.value)) + f", in the {embedding.pooled_by}"
    if left_out := embedding.prompt_left_out:
        yield "prompt", _decided(left_out, "left out of the pooling")
    for layer in embedding.dense:
        yield "dense", f"{layer.in_features} -> {layer.out_features}, {layer.activation}"
    if embedding.layers:
        yield "modules", "; ".join(embedding.layers)
    yield "normalize", _decided(embedding.normalize)
    yield "dimensions", str(embedding.dimension)


def _sparse(sparse: Sparse) -> Iterator[tuple[str, str]]:
    yield "sparse weights", _decided(sparse.activation, f"{sparse.activation.value} of the logit")
    yield "aggregation", _decided(sparse.aggregation) + f", in the {sparse.aggregated_by}"
    yield "dropped tokens", _decided(sparse.dropped_token_ids, _numbers(sparse.dropped_token_ids.value))
    yield "vocabulary", str(sparse.dimension)


def _multi_vector(multi_vector: MultiVector) -> Iterator[tuple[str, str]]:
    yield "token vectors", counted(multi_vector.dimension, "dimension")
    yield "normalize", _decided(multi_vector.normalize)
    yield "first token", _decided(multi_vector.first_token)
    for kind, length in (("query", multi_vector.query_length), ("document", multi_vector.document_length)):
        yield f"{kind} length", _decided(length, str(length.value or "the limit of every text"))
    expansion = multi_vector.query_expansion
    if how := expansion.value:
        attended = "attended" if how.attended else "not attended"
        words = f"to {how.length} tokens with token {how.token_id}, {attended}, longer ones {how.longer}"
        yield "expansion", _decided(expansion, words)
    if skipped := multi_vector.skipped_token_ids.value:
        where = " and ".join(multi_vector.skipped_in)
        yield "skipped tokens", _decided(multi_vector.skipped_token_ids, f"{_numbers(skipped)} of a {where}")


def _numbers(ids: tuple[int, ...]) -> str:
    return ", ".join(map(str, ids)) or "none"


def _reranking(reranking: Reranking) -> Iterator[tuple[str, str]]:
    yield "labels", _decided(reranking.labels, ", ".join(reranking.labels.value))
    yield "head reads", _decided(reranking.pooling)
    if reranking.answers:
        yield "answers", _decided(reranking.answers, " against ".join(reranking.answers.value))
    yield "score", _decided(reranking.activation, f"{reranking.activation.value} of the logit")
    yield "segments", _decided(reranking.token_types)
    if reranking.template:
        template = reranking.template.value
        yield "template", _decided(reranking.template, f"{template.prefix!r} {template.body!r} {template.suffix!r}")
        if template.instruction is not None:
            yield "instruction", repr(template.instruction)
    yield "long pairs", _decided(reranking.truncation)


def _decided(decision: Decision[Any], words: str | None = None) -> str:
    if isinstance(decision.value, bool):
        words = "yes" if decision.value else "no"
    return f"{words or decision.value} ({decision.origin}: {decision.reason})"
