"""An artifact's sparse and multi-vector embeddings against the reference's. Needs [torch]; `self_check` does not.

Compared are token ids and embeddings, each text alone in the reference, alone and among others in ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onnxembed.embedder import OnnxEmbedder
from onnxembed.export.probes import BRIEF, probe_texts
from onnxembed.export.progress import Progress
from onnxembed.manifest import Manifest, Task, TextKind, Verification
from onnxembed.runtime.outputs.multi_vector import treats_alike
from onnxembed.runtime.outputs.sparse import SparseEmbedding
from onnxembed.tokenizer.texts import TextTokenizer
from onnxembed.verify.comparison import Differences, FloatArray, compare_token_ids, opened, required
from onnxembed.verify.references.token_heads import HeadsReference, heads_reference


def verify_token_heads(
    folder: Path, manifest: Manifest, checkpoint: Path, texts: Sequence[str], progress: Progress
) -> dict[str, Verification]:
    """Compare every graph of an artifact with its checkpoint; returns the figures by "PRECISION TASK".

    `texts` are compared beside the built-in ones. Raises VerificationError when token ids or embeddings differ
    by more than the limits, or the reference cannot be run.
    """
    everything = [*probe_texts(manifest.tokenization.max_length.value), *texts]
    results = {}
    for task in _tasks(manifest):
        progress(f"loading the reference of {task}", 0, 1)
        reference = heads_reference(checkpoint, manifest, task)
        kinds = _kinds(manifest, task)
        for kind in kinds:
            _compare_ids(folder, manifest, reference, everything, kind)
        progress(f"running the reference of {task}", 0, 1)
        expected = {kind: reference.embed(everything, kind) for kind in kinds}
        for precision in manifest.on_cpu:
            progress(f"verifying {precision} {task}", 0, 1)
            seen = _differences(manifest, precision, task)
            with opened(OnnxEmbedder, folder, precision) as model:
                for kind in kinds:
                    seen.see("alone", everything, _alone(model, task, everything, kind), expected[kind])
                    seen.see("together", everything, _embed(model, task, everything, kind), expected[kind])
            results[f"{precision} {task}"] = seen.verification(reference.name, len(everything))
    return results


def self_check(model: OnnxEmbedder, precision: str) -> str:
    """Run one graph's sparse and multi-vector embeddings where there is no reference; says what was done, in words.

    Raises VerificationError for embeddings that are not finite, or not the same alone and among others.
    """
    manifest = model.manifest
    tasks = _tasks(manifest)
    same = ""
    for task in tasks:
        seen = _differences(manifest, precision, task)
        for kind in _kinds(manifest, task):
            seen.see("together", BRIEF, _embed(model, task, BRIEF, kind), _alone(model, task, BRIEF, kind))
        same = seen.same_among_others("text")
    made = " and ".join(task.replace("_", "-") for task in tasks)
    return f"run on {len(BRIEF)} texts: {made} embeddings are finite, and {same}"


def _tasks(manifest: Manifest) -> list[Task]:
    return [task for task in manifest.tasks if task in ("sparse", "multi_vector")]


def _differences(manifest: Manifest, precision: str, task: Task) -> Differences:
    section = manifest.require_sparse() if task == "sparse" else manifest.require_multi_vector()
    return Differences(precision, f"{task} embeddings", required(precision), section.dimension)


def _kinds(manifest: Manifest, task: Task) -> tuple[TextKind | None, ...]:
    """What the texts are taken for."""
    if task == "sparse" or treats_alike(manifest.require_multi_vector()):
        return (None,)
    return ("query", "document")


def _alone(model: OnnxEmbedder, task: Task, texts: Sequence[str], kind: TextKind | None) -> list[FloatArray]:
    return [array for text in texts for array in _embed(model, task, [text], kind)]


def _embed(model: OnnxEmbedder, task: Task, texts: Sequence[str], kind: TextKind | None) -> list[FloatArray]:
    """Weights [1, V] or vectors [T, D] of each text."""
    if task == "sparse":
        dimension = model.manifest.require_sparse().dimension
        return [_row(embedding, dimension) for embedding in model.embed_sparse(texts, prompt="")]
    # A model without kinds gets no prompt either; the others get their kind's.
    return list(model.embed_multi_vector(texts, kind=kind, prompt=None if kind else ""))


def _row(embedding: SparseEmbedding, dimension: int) -> FloatArray:
    row = np.zeros((1, dimension), np.float32)
    row[0, embedding.indices] = embedding.values
    return row


def _compare_ids(
    folder: Path, manifest: Manifest, reference: HeadsReference, texts: Sequence[str], kind: TextKind | None
) -> None:
    limit, prompt = manifest.tokenization.max_length.value, ""
    if kind is not None:
        section = manifest.require_multi_vector()
        length = (section.query_length if kind == "query" else section.document_length).value
        limit, prompt = min(length or limit, limit), manifest.prompts.texts.value.get(kind, "")
    tokenizer = TextTokenizer(folder, manifest.tokenization, limit)
    for text, tokens in zip(texts, tokenizer.tokenize([prompt + text for text in texts]), strict=True):
        compare_token_ids(kind or "text", text, tokens.ids.tolist(), reference.token_ids(text, kind))
