"""A manifest in words, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onnxembed.manifest import Decision, Embedding, Manifest


def describe(manifest: Manifest) -> Iterator[str]:
    """Lines that say what an artefact is: its decisions and their origins, then each of its graphs."""
    for name, value in _decisions(manifest):
        yield f"{name:<16} {value}"
    for precision, variant in manifest.variants.items():
        size = sum(manifest.files[file].bytes for file in (variant.file, variant.data) if file)
        yield ""
        yield f"{precision}: {variant.file}, {megabytes(size)}, {variant.nodes} nodes"
        for operator, count in sorted(variant.operators.items(), key=lambda item: (-item[1], item[0])):
            yield f"  {count:>4} {operator}"


def describe_verification(manifest: Manifest) -> Iterator[str]:
    """One line for each precision that was verified."""
    for precision, result in manifest.verification.items():
        ids = "token ids equal" if result.token_ids_equal else "token ids DIFFER"
        yield (
            f"verified {precision} on {result.texts} texts against {result.reference}: {ids}, "
            f"max abs difference {result.max_abs_diff:.1e}, min cosine {result.min_cosine:.7f}"
        )


def megabytes(size: int) -> str:
    """A number of bytes as people read it."""
    return f"{size / 1e6:.1f} MB"


def _decisions(manifest: Manifest) -> Iterator[tuple[str, str]]:
    source, model, tokens = manifest.source, manifest.model, manifest.tokenization
    yield "source", source.model + (f" at {source.revision}" if source.revision else "")
    if source.recipe:
        yield "recipe", source.recipe
    yield "tasks", ", ".join(manifest.tasks)
    yield "architecture", f"{model.model_type}, engine {model.engine}, inputs {', '.join(model.inputs)}"
    for key in model.ignored_config_keys:
        yield "config.json", f"{key} was ignored (flag: --ignore-config-key)"
    yield "attention", _decided(model.attention)
    if model.adapter:
        yield "adapter", _decided(model.adapter)
    if manifest.embedding:
        yield from _embedding(manifest.embedding)
    yield "max length", _decided(tokens.max_length)
    yield "truncation", _decided(tokens.truncation_side)
    yield "padding", _decided(tokens.pad_token_id, f"token {tokens.pad_token_id.value}")
    for change in tokens.changes:
        yield "tokenizer", change
    prompts = manifest.prompts
    for name, text in prompts.texts.value.items():
        yield "prompt", f"{name}: {text!r}" + (" (used by default)" if name == prompts.default.value else "")
    if not prompts.texts.value:
        yield "prompts", _decided(prompts.texts, "none")
    yield "made with", ", ".join(f"{name} {version}" for name, version in manifest.created_with.items())


def _embedding(embedding: Embedding) -> Iterator[tuple[str, str]]:
    yield "pooling", _decided(embedding.pooling, "+".join(embedding.pooling.value)) + f", in the {embedding.pooled_by}"
    for layer in embedding.dense:
        yield "dense", f"{layer.in_features} -> {layer.out_features}, {layer.activation}"
    yield "normalize", _decided(embedding.normalize)
    yield "dimensions", str(embedding.dimension)


def _decided(decision: Decision[Any], words: str | None = None) -> str:
    if isinstance(decision.value, bool):
        words = "yes" if decision.value else "no"
    return f"{words or decision.value} ({decision.origin}: {decision.reason})"
