"""An artefact's vectors against the reference implementation's. Needs the extra [torch], `self_check` does not.

The reference is sentence-transformers on the checkpoint itself; the artefact is run by the real runtime.
Compared are prompts; token ids; vectors of each text alone and of all together; and the raw graph on left-
and right-padded batches of the same ids.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import MissingExtraError, ModelFilesError, NoReferenceError, VerificationError
from onnxembed.export import verify_reranking, verify_token_heads
from onnxembed.export.probes import BRIEF, overlong_text, probe_texts
from onnxembed.export.reference import BATCH, Reference
from onnxembed.export.static_reference import StaticReference
from onnxembed.export.stock import stock_folder
from onnxembed.hub import fetch_checkpoint
from onnxembed.manifest import FILE_NAME, PRECISIONS, Manifest, Precision, Quality, Verification, read_manifest
from onnxembed.model_types import MODEL_TYPES
from onnxembed.session import load_onnxruntime
from onnxembed.tokenizing import TextTokenizer, Tokens

if TYPE_CHECKING:
    from onnxembed.export.artifact import Progress

FloatArray = NDArray[np.float32]
Feeds = dict[str, NDArray[np.int64]]

# fp32 differs from torch by the order of sums; fp16 is judged by direction. Each has the other limit too,
# for what the first does not see: a cosine says nothing about lengths, a difference little about vectors
# much shorter than 1. Differences are limited for vectors of length 1; rounding errors are a share of the
# numbers, so for longer ones, of a model that does not normalise, the limit grows with the longest.
REQUIRED: dict[Precision, dict[str, float]] = {
    "fp32": {"max_abs_diff": 1e-5, "min_cosine": 0.999999},
    "fp16": {"max_abs_diff": 0.02, "min_cosine": 0.9999},
}

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
    revision: str | None = None,
    cache_dir: Path | None = None,
    local_files_only: bool = False,
    texts: Sequence[str] = (),
    progress: Progress = lambda stage, done, total: None,
) -> Manifest:
    """Compare every graph of an artefact with its checkpoint, record the figures in its manifest, return it.

    Args:
        folder: the artefact.
        against: hub id or folder of the checkpoint; the manifest's source when None.
        revision: branch, tag or commit of a hub model; the manifest's when `against` is None, too.
        cache_dir: where hub files are kept; the hub client's standard cache when None.
        local_files_only: never ask the hub; use what is in the cache.
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
    manifest = read_manifest(folder)
    if against is None:
        against, revision = manifest.source.model, revision or manifest.source.revision
        if manifest.source.revision is None and not Path(against).expanduser().is_dir():
            raise ModelFilesError(f"the source of {folder} was the folder {against}, which is gone; see --against")
    checkpoint = fetch_checkpoint(against, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
    return verify_against(folder, manifest, checkpoint.folder, texts=texts, progress=progress)


def verify_against(
    folder: Path,
    manifest: Manifest,
    checkpoint: Path,
    *,
    texts: Sequence[str] = (),
    progress: Progress = lambda stage, done, total: None,
) -> Manifest:
    """`verify` with a checkpoint folder at hand."""
    if not manifest.on_cpu:
        raise NoReferenceError(f"{_only_cuda(manifest)}; with --precision fp32,... all but the rounding is verified")
    if manifest.reranking:
        manifest = verify_reranking.verify_reranking(folder, manifest, checkpoint, texts=texts, progress=progress)
        _record(folder, manifest)
        return manifest
    heads = verify_token_heads.verify_token_heads(folder, manifest, checkpoint, texts=texts, progress=progress)
    if not manifest.embedding:
        manifest = replace(manifest, verification=heads)
        _record(folder, manifest)
        return manifest
    progress("loading the reference", 0, 1)
    static = MODEL_TYPES[manifest.model.model_type].static
    with stock_folder(checkpoint) as stock:
        reference = (StaticReference if static else Reference)(stock, manifest)
    _compare_prompts(reference, manifest)
    everything = [*probe_texts(manifest.tokenization.max_length.value), *texts]
    # Where a limit is long, only the ids of a text beyond it are compared: running it would take too long.
    with_overlong = [*everything, overlong_text(manifest.tokenization.max_length.value)]
    *tokens, _ = every = _tokenize(folder, manifest, with_overlong)
    _compare_ids(reference, with_overlong, every)
    runs = list(_runs(everything, tokens, manifest))
    expected = [run.vectors(reference) for run in _shown(runs, progress, "running the reference")]
    versions = {name.replace("_", "-"): version(name) for name in NEEDED}
    versions["onnxruntime"] = load_onnxruntime().__version__  # from whichever of its two wheels
    results = {}
    for precision in manifest.on_cpu:
        worst = _Worst(precision, manifest.require_embedding().dimension, manifest.variants[precision].quality)
        with _opened(folder, precision) as model:
            for run, vectors in zip(_shown(runs, progress, f"verifying {precision}"), expected, strict=True):
                worst.see(run, run.vectors(model), vectors)
        required = worst.judge("not the reference's")
        results[precision] = Verification(
            reference=reference.name,
            texts=len(everything),
            max_abs_diff=float(f"{worst.diff:.3g}"),
            min_cosine=float(f"{worst.cosine:.9f}"),
            token_ids_equal=True,
            required=required,
            versions=versions,
        )
    manifest = replace(manifest, verification={**results, **heads})
    _record(folder, manifest)
    return manifest


def self_check(folder: Path) -> str:
    """Run an artefact where there is no reference to compare it with; returns what was done, in words.

    Raises ModelFilesError for a graph that cannot be opened, VerificationError for vectors that are not
    finite, not of the manifest's dimension, or not the same alone, in runs and in a padded batch.
    """
    manifest = read_manifest(folder)
    if not manifest.on_cpu:
        return f"not even run: {_only_cuda(manifest)}"
    if manifest.reranking:
        return verify_reranking.self_check(folder, manifest)
    heads = verify_token_heads.self_check(folder, manifest) if manifest.sparse or manifest.multi_vector else ""
    if not manifest.embedding:
        return heads
    runs = list(_runs(BRIEF, _tokenize(folder, manifest, BRIEF), manifest))
    same = "the same for a text alone and among others"
    try:
        for precision in manifest.on_cpu:
            worst = _Worst(precision, manifest.require_embedding().dimension, manifest.variants[precision].quality)
            with _opened(folder, precision) as model:
                alone = {run.texts[0]: run.vectors(model) for run in runs if run.way == "alone"}
                for run in runs:
                    # Padding to the left of a text moves its positions, which changes some models' vectors.
                    if run.way in ("together", "padded right"):
                        worst.see(run, run.vectors(model), np.concatenate([alone[text] for text in run.texts]))
            if not worst.judge("not the same for a text alone and among others"):
                same = f"up to {worst.diff:.1e} apart for a text alone and among others, min cosine {worst.cosine:.6f}"
    except MissingExtraError as error:
        return f"not even run: {error}"
    said = f"run on {len(BRIEF)} texts: vectors are finite, and {same}"
    return f"{said}; {heads}" if heads else said


def _only_cuda(manifest: Manifest) -> str:
    return f"{', '.join(manifest.variants)} graphs run on CUDA only"


def _compare_prompts(reference: Reference, manifest: Manifest) -> None:
    texts, default = manifest.prompts.texts, manifest.prompts.default
    # An empty prompt is as good as none; sentence-transformers adds some of its own accord.
    ours, theirs = ({name: text for name, text in each.items() if text} for each in (texts.value, reference.prompts))
    if ours != (theirs if texts.origin == "file" else ours | theirs):
        raise VerificationError(f"prompts are {ours or 'none'}, the reference's {theirs or 'none'}")
    if default.origin == "file" and default.value != reference.default_prompt:
        raise VerificationError(
            f"the default prompt is {default.value!r}, the reference's {reference.default_prompt!r}"
        )


def _compare_ids(reference: Reference, texts: Sequence[str], tokens: Sequence[Tokens]) -> None:
    for text, ids, theirs in zip(texts, tokens, reference.tokenize(texts), strict=True):
        ours = ids.ids.tolist()
        if ours != theirs:
            shorter = min(len(ours), len(theirs))
            at = next((i for i in range(shorter) if ours[i] != theirs[i]), shorter)
            raise VerificationError(
                f"token ids are not the reference's: {text[:40]!r} has {len(ours)} tokens, not {len(theirs)}, "
                f"and from token {at} on they are {ours[at : at + 8]}, not {theirs[at : at + 8]}"
            )


@dataclass(frozen=True)
class _Run:
    """Texts to run at once: as they are, or as a padded batch of their ids."""

    way: str
    texts: Sequence[str]
    feeds: Feeds | None = None

    def vectors(self, model: OnnxEmbedder | Reference) -> FloatArray:
        return model.encode(self.texts, prompt="") if self.feeds is None else model.forward(self.feeds)


def _runs(texts: Sequence[str], tokens: Sequence[Tokens], manifest: Manifest) -> Iterator[_Run]:
    """Every way of running the texts."""
    yield from (_Run("alone", [text]) for text in texts)
    yield _Run("together", texts)
    for side in ("right", "left"):
        for start in range(0, len(texts), BATCH):
            rows = slice(start, start + BATCH)
            yield _Run(f"padded {side}", texts[rows], _padded(tokens[rows], manifest, side))


def _padded(tokens: Sequence[Tokens], manifest: Manifest, side: str) -> Feeds:
    """A batch with every row padded to the longest on one side."""
    shape = (len(tokens), max(1, *map(len, tokens)))
    feeds = {
        "input_ids": np.full(shape, manifest.tokenization.pad_token_id.value, np.int64),
        "attention_mask": np.zeros(shape, np.int64),
    }
    for row, each in enumerate(tokens):
        place = slice(0, len(each)) if side == "right" else slice(shape[1] - len(each), shape[1])
        feeds["input_ids"][row, place] = each.ids
        feeds["attention_mask"][row, place] = 1
    if "token_type_ids" in manifest.model.inputs:
        feeds["token_type_ids"] = np.zeros(shape, np.int64)  # what a single text has
    return feeds


class _Worst:
    """The worst of what has been seen of one graph."""

    def __init__(self, precision: str, dimension: int, quality: Quality | None = None) -> None:
        self.diff, self.cosine = 0.0, 1.0
        self._precision, self._dimension = precision, dimension
        self._quality = quality  # of an 8-bit graph, which its export has set a limit of its own
        self._length = 1.0
        self._text = ""
        self._diffs: dict[str, float] = {}  # of each way of running the texts

    def see(self, run: _Run, ours: FloatArray, theirs: FloatArray) -> None:
        """Take in the vectors [N, D] of a run and those that they should be."""
        if ours.shape != theirs.shape or ours.shape[1] != self._dimension:
            raise VerificationError(
                f"{self._precision} vectors have shape {ours.shape}, should have {theirs.shape}, "
                f"and {self._dimension} dimensions according to the manifest"
            )
        a, b = ours.astype(np.float64), theirs.astype(np.float64)
        if not np.isfinite(a).all():
            raise VerificationError(f"{self._precision} vectors are not finite (run {run.way})")
        if not np.isfinite(b).all():
            raise VerificationError(f"the reference's vectors are not finite (run {run.way})")
        diffs = np.abs(a - b).max(axis=1)
        self._diffs[run.way] = max(self._diffs.get(run.way, 0.0), float(diffs.max()))
        if diffs.max() > self.diff:
            self.diff, self._text = float(diffs.max()), run.texts[int(diffs.argmax())]
        lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
        both = lengths[0] * lengths[1]
        # A vector of zeros has no direction: it is like another one, and unlike all else.
        cosines = np.where(both > 0, (a * b).sum(axis=1) / np.where(both > 0, both, 1), lengths[0] == lengths[1])
        self.cosine = min(self.cosine, float(cosines.min()))
        self._length = max(self._length, float(lengths[1].max()))

    def judge(self, verdict: str) -> dict[str, float]:
        """The limits that apply; VerificationError, with `verdict`, when they are passed.

        An adopted graph that is quantised has none: what it costs is up to who made it, and is only measured.
        """
        if self._quality:
            floor = self._quality.required  # and vectors of length 1 with this cosine are so far apart
            limits: dict[str, float] | None = {"max_abs_diff": float(np.sqrt(2 * (1 - floor))), "min_cosine": floor}
        else:
            limits = REQUIRED.get(self._precision)  # type: ignore[call-overload]  # an adopted one may have another name
        if limits is None:
            return {}
        limits = {**limits, "max_abs_diff": float(f"{limits['max_abs_diff'] * self._length:.3g}")}
        if self.diff > limits["max_abs_diff"] or self.cosine < limits["min_cosine"]:
            ways = ", ".join(f"{way} {diff:.1e}" for way, diff in self._diffs.items())
            raise VerificationError(
                f"{self._precision} vectors are {verdict}: max abs difference {self.diff:.1e} (at most "
                f"{limits['max_abs_diff']:g}), min cosine {self.cosine:.6f} (at least {limits['min_cosine']:g}); "
                f"by way of running: {ways}; worst for {self._text[:40]!r}"
            )
        return limits


def _tokenize(folder: Path, manifest: Manifest, texts: Sequence[str]) -> list[Tokens]:
    return TextTokenizer(folder, manifest.tokenization, manifest.tokenization.max_length.value).tokenize(texts)


@contextmanager
def _opened(folder: Path, precision: str) -> Iterator[OnnxEmbedder]:
    """One graph of an artefact on the CPU, which does not warn of the probes that are too long on purpose."""
    asked = precision if precision in PRECISIONS else "auto"  # an adopted graph, the only one of its artefact
    with (
        OnnxEmbedder(folder, precision=asked, providers="cpu") as model,
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", r"\d+ of \d+ texts were longer than max_length")
        yield model


def _shown(runs: Sequence[_Run], progress: Progress, stage: str) -> Iterator[_Run]:
    for done, run in enumerate(runs):
        progress(stage, done, len(runs))
        yield run


def _record(folder: Path, manifest: Manifest) -> None:
    draft = folder / f".{FILE_NAME}.{os.getpid()}.part"
    try:
        draft.write_text(manifest.to_json(), encoding="utf-8")
        draft.replace(folder / FILE_NAME)
    finally:
        draft.unlink(missing_ok=True)
