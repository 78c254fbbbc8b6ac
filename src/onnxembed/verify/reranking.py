"""A reranker's logits against sentence-transformers' CrossEncoder. Needs the extra [torch]; `self_check` does not.

Token ids and segments are compared, then the logits and scores of each pair alone and of all pairs together, and
what the graph gives for left- and right-padded batches of the same ids: the logits of the pairs alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from onnxembed.arrays import FloatArray
from onnxembed.errors import VerificationError
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.manifest import Manifest, Verification
from onnxembed.proof.differences import Differences, quote
from onnxembed.proof.limits import required
from onnxembed.proof.probes import BRIEF_PAIRS, QUERY, probe_pairs
from onnxembed.proof.record import Part
from onnxembed.reranker import OnnxReranker
from onnxembed.tokenizer.pairs import Pair
from onnxembed.tokenizer.texts import Tokens
from onnxembed.verify.batches import Batch, all_ways, among_others, distinct, report_batches, with_tokens
from onnxembed.verify.comparison import Comparison, compare_token_ids, open_on_cpu, verification
from onnxembed.verify.references.reranking import CrossEncoderReference
from onnxembed.verify.references.stock_folder import stock_folder


def verify_reranking(comparison: Comparison) -> dict[str, Verification]:
    """Compare every graph of a reranker's artifact with its checkpoint; returns the figures by precision.

    The comparison's texts are compared as documents, in addition to the built-in pairs. Raises VerificationError
    when token ids, logits or scores differ by more than the limits, or the reference cannot be run.
    """
    manifest, progress = comparison.manifest, comparison.progress
    progress("loading the reference", 0, 1)
    with stock_folder(comparison.checkpoint) as folder:
        reference = CrossEncoderReference(folder, manifest)
    pairs = [*probe_pairs(manifest.tokenization.max_length.value), *((QUERY, text) for text in comparison.texts)]
    with open_on_cpu(OnnxReranker, comparison.folder, manifest.on_cpu[0]) as model:
        tokens = model.tokenize(pairs)
    _compare_tokens(manifest, pairs, tokens, reference.tokenize(pairs))
    pairs, tokens = with_tokens(pairs, tokens)
    progress("running the reference", 0, 1)
    expected, expected_scores = reference.logits(pairs), reference.scores(pairs)
    comparison.keep(reference.name, Part("reranking", None, pairs, tokens, [row[:, None] for row in expected]))
    batches = list(all_ways(tokens, manifest, _padding_sides(manifest)))
    figures = {}
    for precision in manifest.on_cpu:
        differences = _differences(precision)
        with open_on_cpu(OnnxReranker, comparison.folder, precision) as model:
            for batch in report_batches(batches, progress, f"verifying {precision}"):
                logits = _logits(model, pairs, batch)
                differences.add(batch.way, batch.of(pairs), logits, expected[batch.places, :, None])
            scores = model.score_pairs(pairs).reshape(expected_scores.shape)
        figure = verification(differences, reference.name, len(pairs))
        if figure.required:
            _compare_scores(manifest, precision, reference, np.abs(scores - expected_scores).max(), figure)
        figures[precision] = replace(figure, min_cosine=None)
    return figures


def self_check(model: OnnxReranker, precision: str) -> str:
    """Run one graph without a reference; returns what was checked, in words.

    Raises VerificationError for logits that are not finite or depend on the batch. Each pair with distinct ids is
    run alone and in padded batches; pairs of the most common length also run in a batch without padding.
    """
    pairs, tokens = distinct(BRIEF_PAIRS, model.tokenize(BRIEF_PAIRS))
    alone = [_logits(model, pairs, Batch("alone", [place]))[0] for place in range(len(pairs))]
    differences = _differences(precision)
    for batch in among_others(tokens, model.manifest, _padding_sides(model.manifest)):
        expected = [alone[place] for place in batch.places]
        differences.add(batch.way, batch.of(pairs), _logits(model, pairs, batch), expected)
    return f"run on {len(BRIEF_PAIRS)} pairs: scores are finite, and {differences.same_among_others('pair')}"


def _differences(precision: str) -> Differences:
    """The differences of logits, which have a size but no direction."""
    limits = required(precision)
    return Differences(precision, "logits", limits and replace(limits, min_cosine=None))


def _padding_sides(manifest: Manifest) -> Sequence[str]:
    """The sides on which padding leaves logits as they are."""
    model_type = MODEL_TYPES[manifest.model.model_type]
    # Where positions count slots, padding on the left moves them, and the logits mean nothing.
    moves_positions = model_type.has_position_table({}) and not model_type.positions_after_pad
    return ("right",) if moves_positions else ("right", "left")


def _logits(model: OnnxReranker, pairs: Sequence[Pair], batch: Batch) -> FloatArray:
    """The logits of a batch, [N, labels, 1]: a row for each label of each pair."""
    if batch.feeds is None:
        return model.score_pairs(batch.of(pairs), raw_scores=True).reshape(len(batch.places), -1, 1)
    return model.forward(batch.feeds)[:, :, None]


def _compare_scores(
    manifest: Manifest, precision: str, reference: CrossEncoderReference, difference: float, figure: Verification
) -> None:
    """Raise VerificationError for scores of another activation than the one in the reference's files.

    Activations hardly stretch differences of logits, so scores much further apart are those of another one.
    """
    if manifest.require_reranking().activation.origin in ("flag", "recipe"):
        return
    if difference > 2 * figure.required["max_abs_diff"]:
        raise VerificationError(
            f"{precision} scores are not the reference's, which makes them with {reference.activation}"
        )


def _compare_tokens(
    manifest: Manifest, pairs: Sequence[Pair], tokens: Sequence[Tokens], theirs: Sequence[Mapping[str, list[int]]]
) -> None:
    has_segments = "token_type_ids" in manifest.model.inputs
    for pair, pair_tokens, reference in zip(pairs, tokens, theirs, strict=True):
        ids = pair_tokens.ids.tolist()
        compare_token_ids("pair", pair, ids, reference["input_ids"])
        if has_segments and pair_tokens.type_ids.tolist() != reference.get("token_type_ids", [0] * len(ids)):
            raise VerificationError(f"the segments of {quote(pair)} are not the reference's")
