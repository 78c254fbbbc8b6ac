"""Decisions -> a manifest: the one place where the sections are put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from onnxembed.decisions.encoder import EncoderDecisions
from onnxembed.manifest import FORMAT_VERSION, TASKS, FileRecord, Manifest, Model, Source, Task, Tokenization, Variant


def tokenization_section(encoder: EncoderDecisions, changes: tuple[str, ...]) -> Tokenization:
    """The manifest's section about the tokenizer, whose files were changed as `changes` say in words."""
    return Tokenization(encoder.max_length, encoder.truncation_side, encoder.pad_token_id, changes)


def compose_manifest(
    *,
    packages: Iterable[str],
    source: Source,
    model: Model,
    tokenization: Tokenization,
    encoder: EncoderDecisions,
    sections: Mapping[Task, Any],
    variants: Mapping[str, Variant],
    files: dict[str, FileRecord],
) -> Manifest:
    """The manifest of an artifact that has not been verified.

    `packages`: distributions that took part, whose versions are recorded. `sections`: one for each task.
    """
    return Manifest(
        format_version=FORMAT_VERSION,
        created_with={name: version(name) for name in packages},
        source=source,
        tasks=tuple(task for task in TASKS if task in sections),
        model=model,
        tokenization=tokenization,
        prompts=encoder.prompts,
        variants=dict(variants),
        files=files,
        verification={},
        embedding=sections.get("embedding"),
        sparse=sections.get("sparse"),
        multi_vector=sections.get("multi_vector"),
        reranking=sections.get("reranking"),
    )
