"""An artifact's vectors against the reference's. Needs the extra [torch], `self_check` does not.

Compared are prompts; token ids; vectors of each text alone and of all together; and the raw graph on left-
and right-padded batches of the same ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import VerificationError
from onnxembed.export.probes import BRIEF, overlong_text, probe_texts
from onnxembed.export.progress import Progress
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.manifest import Manifest, Verification
from onnxembed.tokenizer.texts import TextTokenizer
from onnxembed.verify.batches import Run, among_others, distinct, every_way
from onnxembed.verify.comparison import Differences, FloatArray, compare_token_ids, opened, required
from onnxembed.verify.references.embedding import Reference
from onnxembed.verify.references.static import StaticReference
from onnxembed.verify.references.stock_folder import stock_folder


def verify_embedding(
    folder: Path, manifest: Manifest, checkpoint: Path, texts: Sequence[str], progress: Progress
) -> dict[str, Verification]:
    """Compare every graph of an artifact with its checkpoint; returns the figures by precision.

    `texts` are compared beside the built-in ones. Raises VerificationError when prompts, token ids or vectors
    differ by more than the limits, or the reference cannot be run.
    """
    progress("loading the reference", 0, 1)
    static = MODEL_TYPES[manifest.model.model_type].static
    with stock_folder(checkpoint) as stock:
        reference = (StaticReference if static else Reference)(stock, manifest)
    _compare_prompts(reference, manifest)
    limit = manifest.tokenization.max_length.value
    everything = [*probe_texts(limit), *texts]
    # Where a limit is long, only the ids of a text beyond it are compared: running it would take too long.
    with_overlong = [*everything, overlong_text(limit)]
    *tokens, _ = every = TextTokenizer(folder, manifest.tokenization, limit).tokenize(with_overlong)
    for text, ours, theirs in zip(with_overlong, every, reference.tokenize(with_overlong), strict=True):
        compare_token_ids("text", text, ours.ids.tolist(), theirs)
    runs = list(every_way(tokens, manifest))
    expected = [_vectors(reference, everything, run) for run in _told(runs, progress, "running the reference")]
    results = {}
    for precision in manifest.on_cpu:
        seen = _differences(manifest, precision)
        with opened(OnnxEmbedder, folder, precision) as model:
            for run, vectors in zip(_told(runs, progress, f"verifying {precision}"), expected, strict=True):
                seen.see(run.way, run.of(everything), _vectors(model, everything, run), vectors)
        results[precision] = seen.verification(reference.name, len(everything))
    return results


def self_check(model: OnnxEmbedder, precision: str) -> str:
    """Run one graph where there is no reference; returns what was done, in words.

    Raises VerificationError for vectors that are not finite, not of the manifest's dimension, or not the same: of
    each text that has ids of its own, alone and in a batch padded on the right; and of those of the commonest
    length, alone and in a batch without padding, which graphs compute in another way.
    """
    texts, tokens = distinct(BRIEF, model.tokenize(BRIEF))
    alone = [_vectors(model, texts, Run("alone", [place]))[0] for place in range(len(texts))]
    seen = _differences(model.manifest, precision)
    for run in among_others(tokens, model.manifest):
        # Padding to the left of a text moves its positions, which changes some models' vectors.
        seen.see(run.way, run.of(texts), _vectors(model, texts, run), [alone[place] for place in run.places])
    return f"run on {len(BRIEF)} texts: vectors are finite, and {seen.same_among_others('text')}"


def _differences(manifest: Manifest, precision: str) -> Differences:
    limits = required(precision, manifest.variants[precision].quality)
    return Differences(precision, "vectors", limits, manifest.require_embedding().dimension)


def _vectors(model: OnnxEmbedder | Reference, texts: Sequence[str], run: Run) -> FloatArray:
    """The vectors of a run, [N, 1, D]: one row of each text."""
    vectors = model.encode(run.of(texts), prompt="") if run.feeds is None else model.forward(run.feeds)
    return vectors[:, None]


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


def _told(runs: Sequence[Run], progress: Progress, stage: str) -> Iterator[Run]:
    """The runs, each of which is told when it begins."""
    for done, run in enumerate(runs):
        progress(stage, done, len(runs))
        yield run
