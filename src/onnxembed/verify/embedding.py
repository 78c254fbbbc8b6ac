"""An artifact's vectors against the reference's. Needs the extra [torch]; `self_check` does not.

Prompts and token ids are compared, then the vectors of each text alone and of all texts together, and what the
graph gives for left- and right-padded batches of the same ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from onnxembed.arrays import FloatArray
from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import VerificationError
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.manifest import Manifest, PoolingMode, Verification
from onnxembed.proof.differences import Differences
from onnxembed.proof.limits import required
from onnxembed.proof.probes import BRIEF, overlong_text, probe_texts
from onnxembed.proof.record import Part
from onnxembed.tokenizer.texts import TextTokenizer, Tokens
from onnxembed.verify.batches import Batch, all_ways, among_others, distinct, report_batches, with_tokens
from onnxembed.verify.comparison import Comparison, compare_token_ids, open_on_cpu, verification
from onnxembed.verify.references.embedding import EmbeddingReference
from onnxembed.verify.references.static import StaticReference
from onnxembed.verify.references.stock_folder import stock_folder

Reference = EmbeddingReference | StaticReference

POOLED_TO_ZEROS: frozenset[PoolingMode] = frozenset({"mean", "mean_sqrt_len", "weightedmean", "lasttoken"})
"""What sentence-transformers makes zeros of where a text has no tokens; its other modes read a slot of padding."""


def verify_embedding(comparison: Comparison) -> dict[str, Verification]:
    """Compare every graph of an artifact with its checkpoint; returns the figures by precision.

    Raises VerificationError when prompts, token ids or vectors differ by more than the limits, or the reference
    cannot be run.
    """
    manifest, progress = comparison.manifest, comparison.progress
    progress("loading the reference", 0, 1)
    reference = _load_reference(comparison)
    _compare_prompts(reference, manifest)
    texts = [*probe_texts(manifest.tokenization.max_length.value), *comparison.texts]
    tokens = _compare_tokens(comparison, reference, texts)
    if not set(manifest.require_embedding().pooling.value) <= POOLED_TO_ZEROS:
        texts, tokens = with_tokens(texts, tokens)
    batches = list(all_ways(tokens, manifest))
    expected = _expected(reference, texts, tokens, report_batches(batches, progress, "running the reference"))
    alone = [expected[place][0] for place in range(len(texts))]  # the first batches are those of one text
    comparison.keep(reference.name, Part("embedding", None, texts, tokens, alone))
    figures = {}
    for precision in manifest.on_cpu:
        differences = _differences(manifest, precision)
        with open_on_cpu(OnnxEmbedder, comparison.folder, precision) as model:
            reported = report_batches(batches, progress, f"verifying {precision}")
            for batch, vectors in zip(reported, expected, strict=True):
                differences.add(batch.way, batch.of(texts), _vectors(model, texts, batch), vectors)
            for prompt in _prompts_left_out(manifest):
                words = [text for text in BRIEF if text.strip()]
                ours, theirs = (each.encode(words, prompt=prompt)[:, None] for each in (model, reference))
                differences.add(f"after the prompt {prompt!r}", words, ours, theirs)
        figures[precision] = verification(differences, reference.name, len(texts))
    return figures


def _prompts_left_out(manifest: Manifest) -> list[str]:
    """The prompts to compare with, of a model whose pooling leaves them out: its own, and one that it does not have."""
    if manifest.require_embedding().prompt_left_out is None:
        return []
    return list(dict.fromkeys(text for text in (*manifest.prompts.texts.value.values(), "Represent: ") if text))


def self_check(model: OnnxEmbedder, precision: str) -> str:
    """Run one graph without a reference; returns what was checked, in words.

    Raises VerificationError for vectors that are not finite, do not have the manifest's dimension, or depend on the
    batch. Each text with distinct ids is run alone and in a batch padded on the right; texts of the most common
    length also run in a batch without padding, which graphs compute in another way.
    """
    texts, tokens = distinct(BRIEF, model.tokenize(BRIEF))
    alone = [_vectors(model, texts, Batch("alone", [place]))[0] for place in range(len(texts))]
    differences = _differences(model.manifest, precision)
    # Not padded on the left: that moves a text's positions, which changes some models' vectors.
    for batch in among_others(tokens, model.manifest):
        expected = [alone[place] for place in batch.places]
        differences.add(batch.way, batch.of(texts), _vectors(model, texts, batch), expected)
    return f"run on {len(BRIEF)} texts: vectors are finite, and {differences.same_among_others('text')}"


def _load_reference(comparison: Comparison) -> Reference:
    manifest = comparison.manifest
    with stock_folder(comparison.checkpoint) as folder:
        if MODEL_TYPES[manifest.model.model_type].static:
            return StaticReference(folder, manifest)
        return EmbeddingReference(folder, manifest)


def _expected(
    reference: Reference, texts: Sequence[str], tokens: Sequence[Tokens], batches: Iterable[Batch]
) -> list[FloatArray]:
    """The reference's vectors of each batch.

    It cannot run a text without tokens alone. Such a text must get the vector alone that it has among others.
    """
    expected: list[FloatArray] = []
    missing: dict[int, int] = {}
    for number, batch in enumerate(batches):
        if batch.way == "alone" and len(tokens[batch.places[0]]) == 0:
            missing[number] = batch.places[0]
            expected.append(np.empty(0, np.float32))
            continue
        expected.append(_vectors(reference, texts, batch))
        if batch.way == "together":
            for alone, place in missing.items():
                expected[alone] = expected[-1][place : place + 1]
    return expected


def _differences(manifest: Manifest, precision: str) -> Differences:
    limits = required(precision, manifest.variants[precision].quality)
    return Differences(precision, "vectors", limits)


def _vectors(model: OnnxEmbedder | Reference, texts: Sequence[str], batch: Batch) -> FloatArray:
    """The vectors of a batch, [N, 1, D]: one row for each text."""
    vectors = model.encode(batch.of(texts), prompt="") if batch.feeds is None else model.forward(batch.feeds)
    return vectors[:, None]


def _compare_prompts(reference: Reference, manifest: Manifest) -> None:
    texts, default = manifest.prompts.texts, manifest.prompts.default
    # sentence-transformers adds some empty prompts of its own, and an empty prompt changes nothing.
    ours, theirs = _without_empty(texts.value), _without_empty(reference.prompts)
    if ours != (theirs if texts.origin == "file" else ours | theirs):
        raise VerificationError(f"prompts are {ours or 'none'}, the reference's {theirs or 'none'}")
    if default.origin == "file" and default.value != reference.default_prompt:
        raise VerificationError(
            f"the default prompt is {default.value!r}, the reference's {reference.default_prompt!r}"
        )


def _without_empty(prompts: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in prompts.items() if text}


def _compare_tokens(comparison: Comparison, reference: Reference, texts: Sequence[str]) -> list[Tokens]:
    """The tokens of the texts, after comparing them, and those of a text beyond the limit, with the reference's.

    Where the limit is high, running a text beyond it would take too long: only its ids are compared.
    """
    tokenization = comparison.manifest.tokenization
    limit = tokenization.max_length.value
    compared = [*texts, overlong_text(limit)]
    tokens = TextTokenizer(comparison.folder, tokenization, limit).tokenize(compared)
    for text, ours, theirs in zip(compared, tokens, reference.tokenize(compared), strict=True):
        compare_token_ids("text", text, ours.ids.tolist(), theirs)
    return list(tokens[:-1])
