"""onnxembed.json of a folder under construction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from onnxembed.hub.source import Fetched
from onnxembed.manifest import FILE_NAME, Manifest

Verify = Callable[[Path, Manifest, Fetched], Manifest]
"""Checks a finished draft folder against the checkpoint and returns the manifest with what was measured."""


def record_manifest(draft: Path, manifest: Manifest, checkpoint: Fetched, verify: Verify | None) -> Manifest:
    """Write onnxembed.json, verify the folder, and write what was measured; returns the manifest as it now stands."""
    (draft / FILE_NAME).write_text(manifest.to_json(), encoding="utf-8")
    if verify is not None:
        manifest = verify(draft, manifest, checkpoint)
        (draft / FILE_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return manifest
