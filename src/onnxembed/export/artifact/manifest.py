"""onnxembed.json of a folder under construction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onnxembed.decisions.encoder import EncoderDecisions
from onnxembed.hub.source import Fetched
from onnxembed.manifest import (
    FILE_NAME,
    FORMAT_VERSION,
    TASKS,
    FileRecord,
    Manifest,
    Model,
    Precision,
    Source,
    Task,
    Tokenization,
    Variant,
)

Verify = Callable[[Path, Manifest, Fetched], Manifest]
"""Checks a finished draft folder against the checkpoint and returns the manifest with what was measured."""


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
    variants: Mapping[Precision, Variant],
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
        variants={str(precision): variant for precision, variant in variants.items()},
        files=files,
        verification={},
        embedding=sections.get("embedding"),
        sparse=sections.get("sparse"),
        multi_vector=sections.get("multi_vector"),
        reranking=sections.get("reranking"),
    )


def record_manifest(draft: Path, manifest: Manifest, checkpoint: Fetched, verify: Verify | None) -> Manifest:
    """Write onnxembed.json, verify the folder, and write what was measured; returns the manifest as it now stands."""
    (draft / FILE_NAME).write_text(manifest.to_json(), encoding="utf-8")
    if verify is not None:
        manifest = verify(draft, manifest, checkpoint)
        (draft / FILE_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return manifest
