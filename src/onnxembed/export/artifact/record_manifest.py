"""onnxembed.json and the model card of a folder under construction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from onnxembed.export.artifact.model_card import read_metadata, write_card
from onnxembed.hub.source import Fetched
from onnxembed.loading.space import with_spaces
from onnxembed.manifest import FILE_NAME, Manifest

Verify = Callable[[Path, Manifest, Fetched], Manifest]
"""Checks a finished draft folder against the checkpoint and returns the manifest with what was measured."""


def record_manifest(draft: Path, manifest: Manifest, checkpoint: Fetched, verify: Verify | None) -> Manifest:
    """Write onnxembed.json, verify the folder, and write what was measured, and the card.

    Returns the manifest as it now stands.
    """
    manifest = with_spaces(manifest, draft)
    (draft / FILE_NAME).write_text(manifest.to_json(), encoding="utf-8")
    if verify is not None:
        manifest = verify(draft, manifest, checkpoint)
        (draft / FILE_NAME).write_text(manifest.to_json(), encoding="utf-8")
    write_card(draft, manifest, read_metadata(checkpoint.folder))
    return manifest
