"""An artifact's multi-vector embeddings against the reference's. Needs the extra [torch]; `self_check` does not.

Token ids and embeddings are compared: each text alone in the reference, alone and with all others in the artifact.
A model that treats queries and documents differently is compared on the texts as both.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnxembed.arrays import FloatArray
from onnxembed.embedder import OnnxEmbedder
from onnxembed.export.probes import BRIEF, probe_texts
from onnxembed.manifest import TEXT_KINDS, Manifest, TextKind, Verification
from onnxembed.runtime.outputs.multi_vector import treats_alike
from onnxembed.tokenizer.texts import TextTokenizer
from onnxembed.verify.batches import with_tokens
from onnxembed.verify.comparison import Comparison, Differences, compare_token_ids, open_on_cpu, required
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
    kinds = _kinds(manifest)
    for kind in kinds:
        texts = _compare_tokens(comparison, reference, texts, kind)
    progress("running the reference of multi_vector", 0, 1)
    expected = {kind: reference.embed(texts, kind) for kind in kinds}
    figures = {}
    for precision in manifest.on_cpu:
        progress(f"verifying {precision} multi_vector", 0, 1)
        differences = _differences(precision)
        with open_on_cpu(OnnxEmbedder, comparison.folder, precision) as model:
            for kind in kinds:
                differences.add("alone", texts, _embed_alone(model, texts, kind), expected[kind])
                differences.add("together", texts, _embed(model, texts, kind), expected[kind])
        figures[precision] = differences.verification(reference.name, len(texts))
    return figures


def self_check(model: OnnxEmbedder, precision: str) -> str:
    """Run one graph's multi-vector embeddings without a reference; returns what was checked, in words.

    Raises VerificationError for embeddings that are not finite, or not the same alone and among others.
    """
    differences = _differences(precision)
    for kind in _kinds(model.manifest):
        differences.add("together", BRIEF, _embed(model, BRIEF, kind), _embed_alone(model, BRIEF, kind))
    same = differences.same_among_others("text")
    return f"run on {len(BRIEF)} texts: multi-vector embeddings are finite, and {same}"


def _differences(precision: str) -> Differences:
    return Differences(precision, "multi_vector embeddings", required(precision))


def _kinds(manifest: Manifest) -> tuple[TextKind | None, ...]:
    """The kinds of text that the model treats differently; (None,) if it treats all texts alike."""
    if treats_alike(manifest.require_multi_vector()):
        return (None,)
    return TEXT_KINDS


def _embed_alone(model: OnnxEmbedder, texts: Sequence[str], kind: TextKind | None) -> list[FloatArray]:
    return [vectors for text in texts for vectors in _embed(model, [text], kind)]


def _embed(model: OnnxEmbedder, texts: Sequence[str], kind: TextKind | None) -> list[FloatArray]:
    """The vectors [T, D] of each text, with the prompt of its kind; without one if it has no kind."""
    return list(model.embed_multi_vector(texts, kind=kind, prompt=None if kind else ""))


def _compare_tokens(
    comparison: Comparison, reference: MultiVectorReference, texts: Sequence[str], kind: TextKind | None
) -> list[str]:
    """The texts that have tokens as this kind, after comparing the ids of all."""
    manifest = comparison.manifest
    limit, prompt = manifest.tokenization.max_length.value, ""
    if kind is not None:
        section = manifest.require_multi_vector()
        length = section.query_length if kind == "query" else section.document_length
        limit, prompt = min(length.value or limit, limit), manifest.prompts.texts.value.get(kind, "")
    tokenizer = TextTokenizer(comparison.folder, manifest.tokenization, limit)
    tokens = tokenizer.tokenize([prompt + text for text in texts])
    for text, text_tokens in zip(texts, tokens, strict=True):
        compare_token_ids(kind or "text", text, text_tokens.ids.tolist(), reference.token_ids(text, kind))
    return with_tokens(texts, tokens)[0]
