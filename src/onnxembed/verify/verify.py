"""An artifact against the reference implementation. Needs the extra [torch]; `self_check` does not.

The reference is sentence-transformers on the checkpoint itself; the artifact is run by the real runtime. The module
of each task says what is compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import MissingExtraError, ModelFilesError, NoReferenceError, UsageError
from onnxembed.files.vectors import write_lines
from onnxembed.hub.checkpoint_files import fetch_checkpoint
from onnxembed.hub.source import HubOptions
from onnxembed.manifest import FILE_NAME, PROOF_FILE, Manifest, Task, Verification, read_manifest
from onnxembed.progress import Progress, silent
from onnxembed.proof.recording import Recorder, add_proof
from onnxembed.reranker import OnnxReranker
from onnxembed.verify import embedding, multi_vector, reranking, sparse
from onnxembed.verify.comparison import Comparison, open_on_cpu
from onnxembed.verify.references.stock_folder import with_adapter
from onnxembed.verify.requirements import require_verification
from onnxembed.warning import warn

VERIFIERS: dict[Task, Callable[[Comparison], dict[str, Verification]]] = {
    "embedding": embedding.verify_embedding,
    "sparse": sparse.verify_sparse,
    "multi_vector": multi_vector.verify_multi_vector,
    "reranking": reranking.verify_reranking,
}
"""What compares the graphs of an artifact with its checkpoint, by task; returns the figures by precision."""

SELF_CHECKS: dict[Task, Callable[[OnnxEmbedder, str], str]] = {
    "embedding": embedding.self_check,
    "sparse": sparse.self_check,
    "multi_vector": multi_vector.self_check,
}
"""What runs one graph of an embedder without a reference, by task; returns what was checked, in words."""


def verification_key(precision: str, task: Task) -> str:
    """The key of a graph's figures in the manifest: the precision, and the task if a model may have several."""
    return f"{precision} {task}" if task in ("sparse", "multi_vector") else precision


def verify(
    folder: Path,
    *,
    against: str | Path | None = None,
    hub: HubOptions | None = None,
    texts: Sequence[str] = (),
    progress: Progress = silent,
) -> Manifest:
    """Compare every graph of an artifact with its checkpoint, record the figures in its manifest, and return it.

    If the manifest cannot be written, a warning says that nothing was recorded.

    Args:
        folder: the artifact.
        against: hub id or folder of the checkpoint; the manifest's source if None.
        hub: how a hub model is fetched. Without a revision, it is the manifest's if `against` is None too.
        texts: texts to compare in addition to the built-in probes.
        progress: called with the stage, and with how many of its batches are done, of how many.

    Raises:
        MissingExtraError: torch, transformers or sentence-transformers is not installed.
        NoReferenceError: transformers has no class of its own for the model.
        VerificationError: prompts, token ids or vectors differ by more than the limits, or the reference
            cannot be run; nothing is recorded.
    """
    require_verification()
    manifest, hub = read_manifest(folder), hub or HubOptions()
    if against is None:
        against = manifest.source.model
        hub = replace(hub, revision=hub.revision or manifest.source.revision)
        if manifest.source.revision is None and not os.path.isdir(os.path.expanduser(against)):
            raise ModelFilesError(f"the source of {folder} was the folder {against}, which is gone; see --against")
    checkpoint = fetch_checkpoint(against, hub)
    recorder = Recorder()
    compared = Comparison(folder, manifest, checkpoint.folder, texts, progress, checkpoint.base, recorder.keep)
    manifest = verify_against(compared)
    if manifest.model.engine != "adopted" and PROOF_FILE not in manifest.files:
        try:
            manifest = add_proof(folder, manifest, recorder.proof(manifest))
        except OSError as error:
            warn(f"the proof is not kept: {error}")
    try:
        write_lines(folder / FILE_NAME, manifest.to_json().encode().splitlines(), force=True)
    except UsageError as error:  # an artifact on a read-only mount can be verified too
        warn(f"the figures are not recorded: {error}")
    return manifest


def verify_against(comparison: Comparison) -> Manifest:
    """The manifest with the figures of a comparison with a checkpoint at hand; writes nothing.

    Raises NoReferenceError and VerificationError as `verify` does.
    """
    manifest = comparison.manifest
    if not manifest.on_cpu:
        raise NoReferenceError(
            f"{_cuda_only(manifest)}; an export with --precision fp32,... is verified in all but the rounding"
        )
    with with_adapter(comparison.checkpoint, comparison.base) as checkpoint:
        adapted = replace(comparison, checkpoint=checkpoint)
        figures = {
            verification_key(precision, task): figure
            for task in manifest.tasks
            for precision, figure in VERIFIERS[task](adapted).items()
        }
    return replace(manifest, verification=figures)


def self_check(folder: Path) -> str:
    """Run an artifact without a reference to compare it with; returns what was checked, in words.

    Raises ModelFilesError for a graph that cannot be opened, and VerificationError for output that is not finite,
    does not have the manifest's dimension, or is not the same for a text alone and among others.
    """
    manifest = read_manifest(folder)
    if not manifest.on_cpu:
        return f"not even run: {_cuda_only(manifest)}"
    try:
        sentences = [words for precision in manifest.on_cpu for words in _check_graph(folder, manifest, precision)]
    except MissingExtraError as error:
        return f"not even run: {error}"
    return "; ".join(dict.fromkeys(sentences))


def _check_graph(folder: Path, manifest: Manifest, precision: str) -> list[str]:
    """`self_check` of one graph: a sentence for each of its tasks."""
    if manifest.reranking:
        with open_on_cpu(OnnxReranker, folder, precision) as reranker:
            return [reranking.self_check(reranker, precision)]
    with open_on_cpu(OnnxEmbedder, folder, precision) as embedder:
        return [SELF_CHECKS[task](embedder, precision) for task in manifest.tasks]


def _cuda_only(manifest: Manifest) -> str:
    return f"{', '.join(manifest.variants)} graphs run on CUDA only"
