"""An artifact's multi-vector embeddings against the reference's. Needs the extra [torch]; `self_check` does not.

Token ids and embeddings are compared: each text alone in the reference, alone and with all others in the artifact.
A model that treats queries and documents differently is compared on the texts as both.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnxembed.arrays import FloatArray
from onnxembed.embedder import OnnxEmbedder
from onnxembed.manifest import TextKind, Verification
from onnxembed.proof.differences import Differences
from onnxembed.proof.limits import required
from onnxembed.proof.probes import BRIEF, probe_texts
from onnxembed.proof.record import Part
from onnxembed.proof.recording import kinds_of, prompt_of
from onnxembed.tokenizer.texts import TextTokenizer, Tokens
from onnxembed.verify.batches import with_tokens
from onnxembed.verify.comparison import Comparison, compare_token_ids, open_on_cpu, verification
from onnxembed.verify.references.multi_vector import MultiVectorReference, load_multi_vector_reference


def verify_multi_vector(comparison: Comparison) -> dict[str, Verification]:
    """Compare every graph's multi-vector embeddings with the checkpoint's; returns the figures by precision.

    Raises VerificationError when token ids or embeddings differ by more than the limits, or the reference cannot be
    run.
    """
    manifest, progress = comparison.manifest, comparison.progress
    texts = [*probe_texts(manifest.tokenization.max_length.value), *comparison.texts]
    progress("loading the reference of multi_vector", 0, 1)
    reference = load_multi_vector_reference(comparison.checkpoint, manifest)
    kinds = kinds_of(manifest, "multi_vector")
    for kind in kinds:
        texts = _compare_tokens(comparison, reference, texts, kind)
    progress("running the reference of multi_vector", 0, 1)
    expected = {kind: reference.embed(texts, kind) for kind in kinds}
    for kind in kinds:
        prompted, tokens = _tokenized(comparison, texts, kind)
        comparison.keep(reference.name, Part("multi_vector", kind, prompted, tokens, expected[kind]))
    figures = {}
    for precision in manifest.on_cpu:
        progress(f"verifying {precision} multi_vector", 0, 1)
        differences = _differences(precision)
        with open_on_cpu(OnnxEmbedder, comparison.folder, precision) as model:
            for kind in kinds:
                differences.add("alone", texts, _embed_alone(model, texts, kind), expected[kind])
                differences.add("together", texts, _embed(model, texts, kind), expected[kind])
        figures[precision] = verification(differences, reference.name, len(texts))
    return figures


def self_check(model: OnnxEmbedder, precision: str) -> str:
    """Run one graph's multi-vector embeddings without a reference; returns what was checked, in words.

    Raises VerificationError for embeddings that are not finite, or not the same alone and among others.
    """
    differences = _differences(precision)
    for kind in kinds_of(model.manifest, "multi_vector"):
        differences.add("together", BRIEF, _embed(model, BRIEF, kind), _embed_alone(model, BRIEF, kind))
    same = differences.same_among_others("text")
    return f"run on {len(BRIEF)} texts: multi-vector embeddings are finite, and {same}"


def _differences(precision: str) -> Differences:
    return Differences(precision, "multi_vector embeddings", required(precision))


def _embed_alone(model: OnnxEmbedder, texts: Sequence[str], kind: TextKind | None) -> list[FloatArray]:
    return [vectors for text in texts for vectors in _embed(model, [text], kind)]


def _embed(model: OnnxEmbedder, texts: Sequence[str], kind: TextKind | None) -> list[FloatArray]:
    """The vectors [T, D] of each text, with the prompt of its kind; without one if it has no kind."""
    return list(model.embed_multi_vector(texts, kind=kind, prompt=None if kind else ""))


def _compare_tokens(
    comparison: Comparison, reference: MultiVectorReference, texts: Sequence[str], kind: TextKind | None
) -> list[str]:
    """The texts that have tokens as this kind, after comparing the ids of all."""
    _, tokens = _tokenized(comparison, texts, kind)
    for text, text_tokens in zip(texts, tokens, strict=True):
        compare_token_ids(kind or "text", text, text_tokens.ids.tolist(), reference.token_ids(text, kind))
    return with_tokens(texts, tokens)[0]


def _tokenized(comparison: Comparison, texts: Sequence[str], kind: TextKind | None) -> tuple[list[str], list[Tokens]]:
    """The texts with the prompt of their kind, and their tokens."""
    manifest = comparison.manifest
    limit, prompt = manifest.tokenization.max_length.value, prompt_of(manifest, kind)
    if kind is not None:
        section = manifest.require_multi_vector()
        length = section.query_length if kind == "query" else section.document_length
        limit = min(length.value or limit, limit)
    prompted = [prompt + text for text in texts]
    return prompted, TextTokenizer(comparison.folder, manifest.tokenization, limit).tokenize(prompted)
