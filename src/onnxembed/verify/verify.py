"""An artifact against the reference implementation. Needs the extra [torch], `self_check` does not.

The reference is sentence-transformers on the checkpoint itself; the artifact is run by the real runtime.
What is compared depends on what the model does, and is told by the module of each task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import MissingExtraError, ModelFilesError, NoReferenceError, UsageError
from onnxembed.export.progress import Progress
from onnxembed.files.vectors import write_lines
from onnxembed.hub.checkpoint import fetch_checkpoint
from onnxembed.hub.source import HubOptions
from onnxembed.manifest import FILE_NAME, Manifest, Task, Verification, read_manifest
from onnxembed.reranker import OnnxReranker
from onnxembed.verify import embedding as verify_embedding
from onnxembed.verify import reranking as verify_reranking
from onnxembed.verify import token_heads as verify_token_heads
from onnxembed.verify.comparison import opened
from onnxembed.warning import warn

COMPARE: dict[Task, Callable[[Path, Manifest, Path, Sequence[str], Progress], dict[str, Verification]]] = {
    "embedding": verify_embedding.verify_embedding,
    "sparse": verify_token_heads.verify_token_heads,
    "multi_vector": verify_token_heads.verify_token_heads,
    "reranking": verify_reranking.verify_reranking,
}
"""What compares the graphs of a folder with a checkpoint, by task: given also more texts, and told of progress."""

NEEDED = ("torch", "transformers", "sentence_transformers")


def lacking() -> str:
    """What verification needs and is not installed, with the cure; "" when all is there."""
    missing = [name for name in (*NEEDED, "onnxruntime") if find_spec(name) is None]
    extras = ["cpu"] * ("onnxruntime" in missing) + ["torch"] * any(name in missing for name in NEEDED)
    return f"{', '.join(missing)} not installed: pip install 'onnxembed[{','.join(extras)}]'" if missing else ""


def verify(
    folder: Path,
    *,
    against: str | Path | None = None,
    hub: HubOptions | None = None,
    texts: Sequence[str] = (),
    progress: Progress = lambda stage, done, total: None,
) -> Manifest:
    """Compare every graph of an artifact with its checkpoint, record the figures in its manifest, return it.

    Where the manifest cannot be written, a warning says that nothing is recorded.

    Args:
        folder: the artifact.
        against: hub id or folder of the checkpoint; the manifest's source when None.
        hub: the revision of a hub model, its cache, and whether the hub may be asked. Without `against` the
            revision is the manifest's, unless one is named.
        texts: more texts to compare on, beside the built-in probes.
        progress: called with the stage and how many of its texts are done.

    Raises:
        MissingExtraError: torch, transformers or sentence-transformers is not installed.
        NoReferenceError: transformers has no class of its own for the model.
        VerificationError: prompts, token ids or vectors differ by more than the limits, or the reference
            cannot be run; nothing is recorded.
    """
    if why := lacking():
        raise MissingExtraError(f"verification compares with torch ({why})")
    manifest, hub = read_manifest(folder), hub or HubOptions()
    if against is None:
        against = manifest.source.model
        hub = replace(hub, revision=hub.revision or manifest.source.revision)
        if manifest.source.revision is None and not Path(against).expanduser().is_dir():
            raise ModelFilesError(f"the source of {folder} was the folder {against}, which is gone; see --against")
    checkpoint = fetch_checkpoint(against, hub)
    manifest = verify_against(folder, manifest, checkpoint.folder, texts=texts, progress=progress)
    try:
        write_lines(folder / FILE_NAME, manifest.to_json().encode().splitlines())
    except UsageError as error:  # an artifact that is mounted read-only can be verified, too
        warn(f"the figures are not recorded: {error}")
    return manifest


def verify_against(
    folder: Path,
    manifest: Manifest,
    checkpoint: Path,
    *,
    texts: Sequence[str] = (),
    progress: Progress = lambda stage, done, total: None,
) -> Manifest:
    """The manifest with the figures of `verify`, from a checkpoint folder at hand; writes nothing."""
    if not manifest.on_cpu:
        raise NoReferenceError(f"{_only_cuda(manifest)}; with --precision fp32,... all but the rounding is verified")
    figures: dict[str, Verification] = {}
    for compare in dict.fromkeys(COMPARE[task] for task in manifest.tasks):
        figures |= compare(folder, manifest, checkpoint, texts, progress)
    return replace(manifest, verification=figures)


def self_check(folder: Path) -> str:
    """Run an artifact where there is no reference to compare it with; returns what was done, in words.

    Raises ModelFilesError for a graph that cannot be opened, VerificationError for what it gives when that is not
    finite, not of the manifest's dimension, or not the same for a text alone and among others.
    """
    manifest = read_manifest(folder)
    if not manifest.on_cpu:
        return f"not even run: {_only_cuda(manifest)}"
    try:
        said = [words for precision in manifest.on_cpu for words in _self_check(folder, manifest, precision)]
    except MissingExtraError as error:
        return f"not even run: {error}"
    return "; ".join(dict.fromkeys(said))


def _self_check(folder: Path, manifest: Manifest, precision: str) -> list[str]:
    """`self_check` of one graph: what each of its tasks has to say."""
    if manifest.reranking:
        with opened(OnnxReranker, folder, precision) as reranker:
            return [verify_reranking.self_check(reranker, precision)]
    with opened(OnnxEmbedder, folder, precision) as embedder:
        checks = [verify_embedding.self_check] * bool(manifest.embedding)
        checks += [verify_token_heads.self_check] * bool(manifest.sparse or manifest.multi_vector)
        return [check(embedder, precision) for check in checks]


def _only_cuda(manifest: Manifest) -> str:
    return f"{', '.join(manifest.variants)} graphs run on CUDA only"
