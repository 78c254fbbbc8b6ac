"""onnxembed.json, proof.npz and the model card of a folder under construction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from onnxembed.errors import MissingExtraError
from onnxembed.export.artifact.model_card import read_metadata, write_card
from onnxembed.hub.source import Fetched
from onnxembed.loading.space import with_spaces
from onnxembed.manifest import FILE_NAME, PROOF_FILE, FileRecord, Manifest, Variant
from onnxembed.proof.record import read_proof
from onnxembed.proof.recording import add_proof, check_halves, proof_of_graph

Verify = Callable[[Path, Manifest, Fetched], Manifest]
"""Checks a finished draft folder against the checkpoint and returns the manifest with what was measured.

It may leave a proof in the folder: what the reference gives for a few probes.
"""

WriteFp32 = Callable[[Path], Variant]
"""Writes the fp32 graph into a folder."""


def record_manifest(
    draft: Path,
    manifest: Manifest,
    checkpoint: Fetched,
    verify: Verify | None,
    write_fp32: WriteFp32 | None = None,
) -> Manifest:
    """Write onnxembed.json, verify the folder, and write what was measured, and the card.

    Returns the manifest as it now stands. With `write_fp32`, the folder also gets its proof: from the reference if it
    was verified, else from the fp32 graph.
    """
    manifest = with_spaces(manifest, draft)
    _write(draft, manifest)
    if verify is not None:
        manifest = verify(draft, manifest, checkpoint)
        _write(draft, manifest)
    if write_fp32 is not None:
        manifest = _with_proof(draft, manifest, write_fp32)
        _write(draft, manifest)
    write_card(draft, manifest, read_metadata(checkpoint.folder))
    return manifest


def _with_proof(draft: Path, manifest: Manifest, write_fp32: WriteFp32) -> Manifest:
    """The manifest with the record of the proof; as it was without ONNX Runtime.

    Raises VerificationError if a graph gives numbers that are not finite, or fp16 others than fp32: such a graph makes
    no vectors. A comparison with the reference, which leaves its proof, has found that already.
    """
    try:
        proof = read_proof(draft)
        if proof is None:
            with _fp32_graph(draft, manifest, write_fp32):
                proof = proof_of_graph(draft)
            check_halves(draft, manifest, proof)
        return add_proof(draft, manifest, proof)
    except MissingExtraError:
        (draft / PROOF_FILE).unlink(missing_ok=True)
        return manifest


@contextmanager
def _fp32_graph(draft: Path, manifest: Manifest, write_fp32: WriteFp32) -> Iterator[None]:
    """The folder with an fp32 graph, which leaves it again if it is not one of the artifact's."""
    if "fp32" in manifest.variants:
        yield
        return
    variant = write_fp32(draft)
    added = [file for file in (variant.file, variant.data) if file]
    try:
        records = {file: FileRecord("", (draft / file).stat().st_size) for file in added}  # nobody else reads them
        _write(draft, replace(manifest, variants={"fp32": variant}, files=manifest.files | records))
        yield
    finally:
        for file in added:
            (draft / file).unlink()
        _write(draft, manifest)


def _write(draft: Path, manifest: Manifest) -> None:
    (draft / FILE_NAME).write_text(manifest.to_json(), encoding="utf-8")
