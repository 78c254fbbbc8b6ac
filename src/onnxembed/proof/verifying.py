"""An artifact's graphs against its proof, in all ways of running: what `onnxembed verify DIR` does without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.execution.providers import CPU, Placement
from onnxembed.manifest import CUDA_ONLY, TASKS, Manifest, read_manifest
from onnxembed.proof.checking import asked_precision
from onnxembed.proof.compare import WAYS, Figure, compare, left_out
from onnxembed.proof.record import Proof, read_proof
from onnxembed.runtime.open_model import OpenModel
from onnxembed.runtime.tokenizing import make_tokenizer


@dataclass(frozen=True)
class GraphFigures:
    """How far one graph is from the proof."""

    precision: str
    provider: str
    threads: int
    figures: tuple[Figure, ...]


def require_proof(folder: Path) -> tuple[Manifest, Proof]:
    """An artifact's manifest and its proof; ModelFilesError, with the way to get one, if it has none."""
    manifest, proof = read_manifest(folder), read_proof(folder)
    if proof is not None:
        return manifest, proof
    if manifest.model.engine == "adopted":
        raise ModelFilesError(
            f"{folder} has no proof, as another program made its graph: compare it with --against MODEL"
        )
    raise ModelFilesError(
        f"{folder} has no proof: `onnxembed verify {folder} --against {manifest.source.model}` compares it with the "
        "original model (extra [torch]) and adds one; a new export has one, too"
    )


def verify_graphs(
    folder: Path, placement: Placement, precision: str | None = None, max_length: int | None = None
) -> Iterator[GraphFigures]:
    """The figures of one graph, or of all graphs that can run at the placement, one after another.

    A `max_length` below the model's own leaves out what is longer. UsageError if that is all of a part.

    Raises VerificationError for token ids that differ, for results of another shape, and for numbers that are not
    finite.
    """
    manifest, proof = require_proof(folder)
    for name in [precision] if precision else _runnable(manifest, placement):
        opened = OpenModel(
            folder, TASKS, placement, precision=name, max_length=max_length, make_tokenizer=make_tokenizer
        )
        try:
            if parts := left_out(proof, opened.max_length):
                raise UsageError(f"max_length={max_length}: nothing in the proof has so few tokens ({parts})")
            figures = compare(opened, proof, WAYS, as_precision=asked_precision(opened, placement))
            yield GraphFigures(opened.precision, opened.provider, opened.threads, tuple(figures))
        finally:
            opened.close()


def _runnable(manifest: Manifest, placement: Placement) -> list[str]:
    """The precisions of the graphs to verify: on the CPU without those that it has no kernels for."""
    on_cpu = placement.providers in ("cpu", CPU) or list(placement.providers) == [CPU]
    return [name for name in manifest.variants if not (on_cpu and name in CUDA_ONLY)]
