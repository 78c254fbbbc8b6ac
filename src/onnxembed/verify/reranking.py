"""A reranker's logits against sentence-transformers' CrossEncoder. Needs the extra [torch], `self_check` does not.

Compared are token ids and segments; logits and scores of each pair alone and of all together; and the raw graph
on left- and right-padded batches of the same ids, of which the logits must be those of the pairs alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxembed.errors import VerificationError
from onnxembed.export.probes import PROBES, overlong_text
from onnxembed.export.progress import Progress
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.manifest import Manifest, Verification
from onnxembed.reranker import OnnxReranker
from onnxembed.tokenizer.pairs import Pair
from onnxembed.tokenizer.texts import Tokens
from onnxembed.verify.batches import Run, among_others, distinct, every_way
from onnxembed.verify.comparison import Differences, FloatArray, compare_token_ids, opened, required, shown
from onnxembed.verify.references.reranking import CrossEncoderReference
from onnxembed.verify.references.stock_folder import stock_folder

QUERY = "What is the capital of France?"
# A template's placeholder in a text is text; the rest is what a pair can be: empty, alike, long on either side.
PAIRS: tuple[Pair, ...] = (
    *((QUERY, text) for text in PROBES),
    *((text, "Paris is the capital of France.") for text in PROBES[::4]),
    ("", ""),
    (PROBES[-1], PROBES[-1]),
    ("{query} of {document}", "{query} {instruction}"),
)

BRIEF_PAIRS = tuple(pair for pair in PAIRS if max(map(len, pair)) <= 100)
"""The short ones, for a check that a large model must not make long."""


def probe_pairs(max_length: int) -> list[Pair]:
    """The probes, and pairs longer than a limit of up to 512 tokens: in their document, their query, and both."""
    long = overlong_text(min(max_length, 512))
    return [*PAIRS, (QUERY, long), (long, "Paris"), (long, long)]


def verify_reranking(
    folder: Path, manifest: Manifest, checkpoint: Path, texts: Sequence[str], progress: Progress
) -> dict[str, Verification]:
    """Compare every graph of a reranker's artifact with its checkpoint; returns the figures by precision.

    `texts` are compared as documents, beside the built-in pairs. Raises VerificationError when token ids, logits
    or scores differ by more than the limits, or the reference cannot be run.
    """
    progress("loading the reference", 0, 1)
    with stock_folder(checkpoint) as stock:
        reference = CrossEncoderReference(stock, manifest)
    pairs = [*probe_pairs(manifest.tokenization.max_length.value), *((QUERY, text) for text in texts)]
    with opened(OnnxReranker, folder, manifest.on_cpu[0]) as model:
        tokens = model.tokenize(pairs)
    _compare_tokens(manifest, pairs, tokens, reference.tokenize(pairs))
    progress("running the reference", 0, 1)
    expected, scores = reference.logits(pairs), reference.scores(pairs)
    # No activation stretches differences of logits by much: others are those of another activation.
    decided = manifest.require_reranking().activation.origin in ("flag", "recipe")
    results = {}
    for precision in manifest.on_cpu:
        progress(f"verifying {precision}", 0, 1)
        seen = _differences(precision)
        with opened(OnnxReranker, folder, precision) as model:
            for run in every_way(tokens, manifest, _sides(manifest)):
                seen.see(run.way, run.of(pairs), _logits(model, pairs, run), expected[run.places, :, None])
            ours = model.score_pairs(pairs).reshape(scores.shape)
        found = seen.verification(reference.name, len(pairs))
        if not decided and np.abs(ours - scores).max() > 2 * found.required["max_abs_diff"]:
            raise VerificationError(
                f"{precision} scores are not the reference's, which makes them with {reference.activation}"
            )
        results[precision] = replace(found, min_cosine=None)
    return results


def self_check(model: OnnxReranker, precision: str) -> str:
    """Run one graph where there is no reference; returns what was done, in words.

    Raises VerificationError for logits that are not finite, or not the same: of each pair that has ids of its own,
    alone and in padded batches; and of those of the commonest length, alone and in a batch without padding.
    """
    pairs, tokens = distinct(BRIEF_PAIRS, model.tokenize(BRIEF_PAIRS))
    alone = [_logits(model, pairs, Run("alone", [place]))[0] for place in range(len(pairs))]
    seen = _differences(precision)
    for run in among_others(tokens, model.manifest, _sides(model.manifest)):
        seen.see(run.way, run.of(pairs), _logits(model, pairs, run), [alone[place] for place in run.places])
    return f"run on {len(BRIEF_PAIRS)} pairs: scores are finite, and {seen.same_among_others('pair')}"


def _differences(precision: str) -> Differences:
    """Of logits, which have a size and no direction."""
    return Differences(precision, "logits", {"max_abs_diff": required(precision)["max_abs_diff"]})


def _sides(manifest: Manifest) -> Sequence[str]:
    """The sides of padding that leave logits as they are."""
    known = MODEL_TYPES[manifest.model.model_type]
    # Padding on the left moves the positions of a table that counts slots: no such logit means anything.
    moved = known.has_position_table({}) and not known.positions_after_pad
    return ("right",) if moved else ("right", "left")


def _logits(model: OnnxReranker, pairs: Sequence[Pair], run: Run) -> FloatArray:
    """The logits of a run, [N, labels, 1]: a row for each label of each pair."""
    if run.feeds is None:
        return model.score_pairs(run.of(pairs), raw_scores=True).reshape(len(run.places), -1, 1)
    return model.forward(run.feeds)[:, :, None]


def _compare_tokens(
    manifest: Manifest, pairs: Sequence[Pair], tokens: Sequence[Tokens], theirs: Sequence[Mapping[str, list[int]]]
) -> None:
    segments = "token_type_ids" in manifest.model.inputs
    for pair, each, reference in zip(pairs, tokens, theirs, strict=True):
        ids = each.ids.tolist()
        compare_token_ids("pair", pair, ids, reference["input_ids"])
        if segments and each.type_ids.tolist() != reference.get("token_type_ids", [0] * len(ids)):
            raise VerificationError(f"the segments of {shown(pair)} are not the reference's")
