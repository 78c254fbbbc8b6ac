"""An artifact's sparse embeddings against the reference's. Needs the extra [torch]; `self_check` does not.

Token ids and embeddings are compared: each text alone in the reference, alone and with all others in the artifact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxembed.arrays import FloatArray
from onnxembed.embedder import OnnxEmbedder
from onnxembed.manifest import Manifest, Verification
from onnxembed.proof.differences import Differences
from onnxembed.proof.limits import required
from onnxembed.proof.probes import BRIEF, probe_texts
from onnxembed.proof.record import Part
from onnxembed.tokenizer.texts import TextTokenizer, Tokens
from onnxembed.verify.batches import with_tokens
from onnxembed.verify.comparison import Comparison, compare_token_ids, open_on_cpu, verification
from onnxembed.verify.references.sparse import SparseReference, load_sparse_reference


def verify_sparse(comparison: Comparison) -> dict[str, Verification]:
    """Compare every graph's sparse embeddings with the checkpoint's; returns the figures by precision.

    Raises VerificationError when token ids or embeddings differ by more than the limits, or the reference cannot be
    run.
    """
    manifest, progress = comparison.manifest, comparison.progress
    texts = [*probe_texts(manifest.tokenization.max_length.value), *comparison.texts]
    progress("loading the reference of sparse", 0, 1)
    reference = load_sparse_reference(comparison.checkpoint, manifest)
    texts, tokens = _compare_tokens(comparison, reference, texts)
    progress("running the reference of sparse", 0, 1)
    expected = reference.embed(texts)
    comparison.keep(reference.name, Part("sparse", None, texts, tokens, expected))
    figures = {}
    for precision in manifest.on_cpu:
        progress(f"verifying {precision} sparse", 0, 1)
        differences = _differences(manifest, precision)
        with open_on_cpu(OnnxEmbedder, comparison.folder, precision) as model:
            differences.add("alone", texts, _embed_alone(model, texts), expected)
            differences.add("together", texts, _embed(model, texts), expected)
        figures[precision] = verification(differences, reference.name, len(texts))
    return figures


def self_check(model: OnnxEmbedder, precision: str) -> str:
    """Run one graph's sparse embeddings without a reference; returns what was checked, in words.

    Raises VerificationError for embeddings that are not finite, or not the same alone and among others.
    """
    differences = _differences(model.manifest, precision)
    differences.add("together", BRIEF, _embed(model, BRIEF), _embed_alone(model, BRIEF))
    same = differences.same_among_others("text")
    return f"run on {len(BRIEF)} texts: sparse embeddings are finite, and {same}"


def _differences(manifest: Manifest, precision: str) -> Differences:
    limits = required(precision, manifest.variants[precision].quality)
    return Differences(precision, "sparse embeddings", limits)


def _embed_alone(model: OnnxEmbedder, texts: Sequence[str]) -> list[FloatArray]:
    return [row for text in texts for row in _embed(model, [text])]


def _embed(model: OnnxEmbedder, texts: Sequence[str]) -> list[FloatArray]:
    """The weights [1, V] of each text."""
    rows = []
    for embedding in model.embed_sparse(texts, prompt=""):
        row = np.zeros((1, model.manifest.require_sparse().dimension), np.float32)
        row[0, embedding.indices] = embedding.values
        rows.append(row)
    return rows


def _compare_tokens(
    comparison: Comparison, reference: SparseReference, texts: Sequence[str]
) -> tuple[list[str], list[Tokens]]:
    """The texts that have tokens, and their tokens, after comparing the ids of all."""
    tokenization = comparison.manifest.tokenization
    tokenizer = TextTokenizer(comparison.folder, tokenization, tokenization.max_length.value)
    tokens = tokenizer.tokenize(texts)
    for text, text_tokens in zip(texts, tokens, strict=True):
        compare_token_ids("text", text, text_tokens.ids.tolist(), reference.token_ids(text))
    return with_tokens(texts, tokens)
