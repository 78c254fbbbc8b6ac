"""An artefact's sparse and multi-vector embeddings against the reference's. Needs [torch]; `self_check` does not.

Compared are token ids and embeddings, each text alone in the reference, alone and among others in ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import MissingExtraError, VerificationError
from onnxembed.export.artifact import Progress
from onnxembed.export.probes import BRIEF, probe_texts
from onnxembed.export.token_heads_reference import HeadsReference, heads_reference
from onnxembed.manifest import Kind, Manifest, Precision, Task, Verification
from onnxembed.multi_vector import treats_alike
from onnxembed.session import load_onnxruntime
from onnxembed.sparse import SparseEmbedding
from onnxembed.tokenizing import TextTokenizer

FloatArray = NDArray[np.float32]

# For rows of length 1; rounding is a share of the numbers, so the limit of the difference grows with the longest.
REQUIRED: dict[Precision, dict[str, float]] = {
    "fp32": {"max_abs_diff": 1e-5, "min_cosine": 0.999999},
    "fp16": {"max_abs_diff": 0.02, "min_cosine": 0.9999},
}


def verify_token_heads(
    folder: Path,
    manifest: Manifest,
    checkpoint: Path,
    *,
    texts: Sequence[str] = (),
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, Verification]:
    """Compare every graph of an artefact with its checkpoint; returns the figures by "PRECISION TASK".

    `texts` are compared beside the built-in ones. Raises VerificationError when token ids or embeddings differ
    by more than the limits, or the reference cannot be run.
    """
    versions = {name: version(name) for name in ("torch", "transformers", "sentence-transformers")}
    versions["onnxruntime"] = load_onnxruntime().__version__  # from whichever of its two wheels
    everything = [*probe_texts(manifest.tokenization.max_length.value), *texts]
    results = {}
    for task in (task for task in manifest.tasks if task in ("sparse", "multi_vector")):
        progress(f"loading the reference of {task}", 0, 1)
        reference = heads_reference(checkpoint, manifest, task)
        kinds = _kinds(manifest, task)
        for kind in kinds:
            _compare_ids(folder, manifest, reference, everything, kind)
        progress(f"running the reference of {task}", 0, 1)
        expected = {kind: reference.embed(everything, kind) for kind in kinds}
        for precision in manifest.on_cpu:
            progress(f"verifying {precision} {task}", 0, 1)
            worst = _Worst(precision, task)
            with _opened(folder, precision) as model:
                for kind in kinds:
                    alone = [array for text in everything for array in _embed(model, task, [text], kind)]
                    worst.see("alone", everything, alone, expected[kind])
                    worst.see("together", everything, _embed(model, task, everything, kind), expected[kind])
            required = worst.judge("are not the reference's")
            results[f"{precision} {task}"] = Verification(
                reference=reference.name,
                texts=len(everything),
                max_abs_diff=float(f"{worst.diff:.3g}"),
                min_cosine=float(f"{worst.cosine:.9f}"),
                token_ids_equal=True,
                required=required,
                versions=versions,
            )
    return results


def self_check(folder: Path, manifest: Manifest) -> str:
    """Run sparse and multi-vector embeddings where there is no reference; returns what was done, in words.

    Raises VerificationError for embeddings that are not finite, or not the same alone and among others.
    """
    tasks: list[Task] = [task for task in manifest.tasks if task in ("sparse", "multi_vector")]
    try:
        for precision in manifest.on_cpu:
            for task in tasks:
                worst = _Worst(precision, task)
                with _opened(folder, precision) as model:
                    for kind in _kinds(manifest, task):
                        alone = [array for text in BRIEF for array in _embed(model, task, [text], kind)]
                        worst.see("together", BRIEF, _embed(model, task, BRIEF, kind), alone)
                worst.judge("are not the same for a text alone and among others")
    except MissingExtraError as error:
        return f"not even run: {error}"
    made = " and ".join(task.replace("_", "-") for task in tasks)
    return f"run on {len(BRIEF)} texts: {made} embeddings are finite, and the same for a text alone and among others"


def _kinds(manifest: Manifest, task: Task) -> tuple[Kind | None, ...]:
    """What the texts are taken for."""
    if task == "sparse" or treats_alike(manifest.require_multi_vector()):
        return (None,)
    return ("query", "document")


def _embed(model: OnnxEmbedder, task: Task, texts: Sequence[str], kind: Kind | None) -> list[FloatArray]:
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
    folder: Path, manifest: Manifest, reference: HeadsReference, texts: Sequence[str], kind: Kind | None
) -> None:
    limit, prompt = manifest.tokenization.max_length.value, ""
    if kind is not None:
        section = manifest.require_multi_vector()
        length = (section.query_length if kind == "query" else section.document_length).value
        limit, prompt = min(length or limit, limit), manifest.prompts.texts.value.get(kind, "")
    tokenizer = TextTokenizer(folder, manifest.tokenization, limit)
    for text, tokens in zip(texts, tokenizer.tokenize([prompt + text for text in texts]), strict=True):
        ours, theirs = tokens.ids.tolist(), reference.token_ids(text, kind)
        if ours != theirs:
            raise VerificationError(
                f"token ids of a {kind or 'text'} are not the reference's: {text[:40]!r} has {len(ours)} tokens, "
                f"not {len(theirs)}: {ours[:8]} ..., not {theirs[:8]} ..."
            )


class _Worst:
    """The worst of what has been seen of one graph's embeddings."""

    def __init__(self, precision: str, task: Task) -> None:
        self.diff, self.cosine = 0.0, 1.0
        self._precision, self._task = precision, task
        self._length, self._text = 1.0, ""

    def see(self, way: str, texts: Sequence[str], ours: Sequence[FloatArray], theirs: Sequence[FloatArray]) -> None:
        """Take in the array of each text, and the one that it should be."""
        for text, one, other in zip(texts, ours, theirs, strict=True):
            if one.shape != other.shape:
                raise VerificationError(
                    f"{self._precision} {self._task} embeddings of {text[:40]!r} have the shape {one.shape}, "
                    f"not {other.shape} (run {way})"
                )
            if not one.size:
                continue
            a, b = one.astype(np.float64), other.astype(np.float64)
            if not (np.isfinite(a).all() and np.isfinite(b).all()):
                raise VerificationError(f"{self._precision} {self._task} embeddings are not finite (run {way})")
            if (diff := float(np.abs(a - b).max())) > self.diff:
                self.diff, self._text = diff, text
            lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
            both = lengths[0] * lengths[1]
            # A row of zeros has no direction: it is like another one, and unlike all else.
            cosines = np.where(both > 0, (a * b).sum(axis=1) / np.where(both > 0, both, 1), lengths[0] == lengths[1])
            self.cosine = min(self.cosine, float(cosines.min()))
            self._length = max(self._length, float(lengths[1].max()))

    def judge(self, verdict: str) -> dict[str, float]:
        """The limits that apply; VerificationError, with `verdict`, when they are passed.

        None apply to coarser precisions, whose sparse weights and vectors of tokens are measured and recorded.
        """
        limits = REQUIRED.get(self._precision)  # type: ignore[call-overload]  # a manifest's variants are precisions
        if limits is None:
            return {}
        limits = {**limits, "max_abs_diff": float(f"{limits['max_abs_diff'] * self._length:.3g}")}
        if self.diff > limits["max_abs_diff"] or self.cosine < limits["min_cosine"]:
            raise VerificationError(
                f"{self._precision} {self._task} embeddings {verdict}: max abs difference {self.diff:.1e} (at most "
                f"{limits['max_abs_diff']:g}), min cosine {self.cosine:.6f} (at least {limits['min_cosine']:g}); "
                f"worst for {self._text[:40]!r}"
            )
        return limits


@contextmanager
def _opened(folder: Path, precision: str) -> Iterator[OnnxEmbedder]:
    """One graph of an artefact on the CPU, which does not warn of the probes that are too long on purpose."""
    with (
        OnnxEmbedder(folder, precision=precision, providers="cpu") as model,  # type: ignore[arg-type]
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", r"\d+ of \d+ texts were longer than max_length")
        yield model
