"""Vectors in fewer bytes, compared with sentence-transformers bit for bit, and binary retrieval."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from onnxembed import OnnxEmbedder, binary_search, quantization_ranges, quantize_embeddings, rescore
from onnxembed.errors import UsageError
from onnxembed.quantization import DTYPES, OutputDtype, restore
from tiny_embedders import EDGE_TEXTS, D, texts_of_many_lengths

INTEGERS = ("int8", "uint8", "binary", "ubinary")
EIGHT_BITS = ("int8", "uint8")


def reference(*arguments: Any, **options: Any) -> Any:
    """What sentence-transformers makes of vectors."""
    from sentence_transformers.util.quantization import quantize_embeddings as theirs

    return theirs(*arguments, **options)


def vectors(count: int = 200, dimensions: int = 37, seed: int = 3) -> Any:
    """Vectors of length 1; one dimension is always the same, and one is always 0."""
    made = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    made[:, 5], made[:, 6] = 0.25, 0
    return made / np.linalg.norm(made, axis=1, keepdims=True).astype(np.float32)


def short_texts() -> list[str]:
    return [" ".join(text.split()[:8]) for text in texts_of_many_lengths(120)]


def assert_same(ours: Any, theirs: Any) -> None:
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("given", ["itself", "ranges", "calibration"])
def test_numbers_are_those_of_sentence_transformers(dtype: OutputDtype, given: str) -> None:
    """Also those outside the ranges, and of dimensions that are always the same."""
    calibration = vectors(150, seed=7) / 2
    options: dict[str, Any] = {}
    if given == "ranges":
        options["ranges"] = np.vstack((calibration.min(axis=0), calibration.max(axis=0)))
    elif given == "calibration":
        options["calibration_embeddings"] = calibration
    found = vectors()
    assert_same(quantize_embeddings(found, dtype, **options), reference(found, dtype, **options))
    assert_same(quantize_embeddings(found, "float32"), found)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", INTEGERS)
def test_the_vectors_of_tokens_share_their_ranges(dtype: OutputDtype) -> None:
    texts = [vectors(60), vectors(80, seed=4), np.empty((0, 37), np.float32)]
    for ours, theirs in zip(quantize_embeddings(texts, dtype), reference([*texts], dtype), strict=True):
        assert_same(ours, theirs)
    assert quantize_embeddings([], dtype) == reference([], dtype) == []
    assert_same(quantize_embeddings([*vectors()], dtype), reference([*vectors()], dtype))
    assert_same(quantize_embeddings(texts[2], dtype), reference(texts[2], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_vector_alone_gets_what_it_gets_among_others(dtype: OutputDtype) -> None:
    ranges = quantization_ranges(vectors())
    assert_same(quantize_embeddings(vectors()[3], dtype, ranges), quantize_embeddings(vectors(), dtype, ranges)[3])


def test_ranges_are_the_lowest_and_the_highest_number_of_each_dimension() -> None:
    np.testing.assert_array_equal(quantization_ranges(np.array([[1, -2], [-3, 4]] * 50)), [[-3, -2], [1, 4]])
    with pytest.warns(UserWarning, match="taken from 99 vectors; 100 or more"):
        quantization_ranges(vectors(99))
    with pytest.warns(UserWarning, match="taken from 50 vectors"):
        quantize_embeddings(vectors(50), "int8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((vectors(1), "int8"), "a single vector has no int8 ranges"),
        ((vectors()[0], "uint8"), "a single vector has no uint8 ranges"),
        ((vectors(), "int8", np.zeros((2, 5))), r"the shape \(2, 5\), not \(2, 37\)"),
        ((vectors(), "int8", np.array([np.ones(37), np.zeros(37)])), "ranges only if no number of the first is above"),
        ((vectors(), "int8", np.full((2, 37), np.nan)), "and all are finite"),
        ((vectors(), "int4"), "dtype is 'int4', not one of float32, float16, int8, uint8, binary, ubinary"),
        ((np.zeros((2, 8), np.int8), "binary"), "int8, not floats"),
        ((np.full((2, 8), np.nan, np.float32), "ubinary"), "not finite"),
        ((np.full((2, 8), 1e6, np.float32), "float16"), "no numbers above 65504"),
    ],
)
def test_what_has_no_such_form_is_refused(arguments: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        quantize_embeddings(*arguments)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_restored_is_near(dtype: OutputDtype) -> None:
    found, ranges = vectors(), quantization_ranges(vectors())
    restored = restore(quantize_embeddings(found, dtype, ranges), 37, ranges)
    if "binary" in dtype:
        np.testing.assert_array_equal(restored, np.where(found > 0, 1, -1))
    else:
        step = (ranges[1] - ranges[0]).max() / 255 if dtype in EIGHT_BITS else 2**-11
        assert np.abs(restored - found).max() <= (0 if dtype == "float32" else step * 1.001)
    with pytest.raises(UsageError, match="no quantized form of 99 dimensions"):
        restore(quantize_embeddings(found, dtype, ranges), 99, ranges)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_embedder_gives_each_type(model: OnnxEmbedder, dtype: OutputDtype) -> None:
    texts = short_texts()
    plain = model.encode(texts)
    options: Any = {"dtype": dtype, "ranges": quantization_ranges(plain)} if dtype in EIGHT_BITS else {"dtype": dtype}
    expected = quantize_embeddings(plain, dtype, options.get("ranges"))
    assert_same(model.encode(texts, **options), expected)
    assert_same(np.stack(list(model.embed(texts, **options))), expected)
    assert_same(model.encode(texts[5], **options), expected[5])
    assert_same(model.encode([], **options), expected[:0])
    options["precision"] = options.pop("dtype")  # the name that sentence-transformers gives it
    assert_same(model.encode(texts, **options), expected)


@pytest.mark.torch
def test_cut_vectors_are_quantized_after_the_cut(model: OnnxEmbedder) -> None:
    texts = short_texts()
    plain = model.encode(texts, dimensions=12)
    ranges = quantization_ranges(plain)
    assert_same(model.encode(texts, dimensions=12, dtype="int8", ranges=ranges), reference(plain, "int8", ranges))
    assert model.encode(texts, dimensions=12, dtype="ubinary").shape == (120, 2)
    assert model.encode_query(texts, dimensions=12, dtype="ubinary").dtype == np.uint8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"dtype": "int8"},
            r"need ranges= \(--ranges FILE\), the same for all vectors that are compared: .*quantization_ranges",
        ),
        ({"precision": "uint8"}, r"need ranges="),
        ({"dtype": "int8", "ranges": np.zeros((2, 5))}, rf"the shape \(2, 5\), not \(2, {D}\)"),
        ({"dtype": "binary", "ranges": np.zeros((2, D))}, "ranges are for dtype='int8' and 'uint8', not for 'binary'"),
        ({"ranges": np.zeros((2, D))}, "not for 'float32'"),
        ({"precision": "fp16"}, "dtype is 'fp16', not one of float32, float16"),
        ({"dtype": "int8", "precision": "binary"}, "given dtype twice"),
    ],
)
def test_an_embedder_refuses_types_that_would_depend_on_other_texts(
    model: OnnxEmbedder, options: Any, words: str
) -> None:
    for method in (model.encode, model.embed):
        with pytest.raises(UsageError, match=words):
            method(EDGE_TEXTS, **options)


@pytest.mark.parametrize("dtype", ["binary", "ubinary"])
def test_bits_find_the_nearest(dtype: OutputDtype) -> None:
    documents, queries = vectors(300), vectors(20, seed=9)
    bits = quantize_embeddings(documents, dtype)
    distances = ((queries > 0)[:, None] != (documents > 0)).sum(axis=2)  # counted one by one
    for block in (7, 300, 65536):
        found = binary_search(quantize_embeddings(queries, dtype), bits, 25, block=block)
        np.testing.assert_array_equal(found, np.argsort(distances, axis=1, kind="stable")[:, :25])
    assert binary_search(bits[0], bits).shape == (1, 40)
    assert binary_search(bits[:3], bits[:0]).shape == (3, 0)
    with pytest.raises(UsageError, match="queries are float32, not the bytes of bits"):
        binary_search(queries, bits)
    with pytest.raises(UsageError, match="queries have 4 bytes of bits, and documents 5"):
        binary_search(bits[:, :4], bits)


@pytest.mark.parametrize("dtype", DTYPES)
def test_candidates_come_into_the_order_of_the_querys_own_numbers(dtype: OutputDtype) -> None:
    documents, queries = vectors(300), vectors(20, seed=9)
    ranges = quantization_ranges(documents)
    stored = quantize_embeddings(documents, dtype, ranges)
    candidates = np.random.default_rng(0).permuted(np.tile(np.arange(300), (20, 1)), axis=1)[:, :40]
    candidates[:, 7] = -1
    hits = rescore(queries, stored, candidates, 10, ranges=ranges)
    restored = restore(stored, 37, ranges).astype(np.float64)
    for query, places, best in zip(queries, candidates, hits, strict=True):
        own = places[places >= 0]
        scores = restored[own] @ query
        assert [hit["corpus_id"] for hit in best] == own[np.argsort(-scores)[:10]].tolist()
        np.testing.assert_allclose([hit["score"] for hit in best], np.sort(scores)[::-1][:10], atol=1e-5)


def test_rescoring_gives_the_order_of_sentence_transformers() -> None:
    """Its scores of bits are sums over the ones; ours count the zeros as -1, which changes no order."""
    documents, queries = vectors(300), vectors(20, seed=9)
    bits = quantize_embeddings(documents, "ubinary")
    candidates = binary_search(quantize_embeddings(queries, "ubinary"), bits, 20)
    theirs = np.einsum("ij,ikj->ik", queries, np.unpackbits(bits[candidates], axis=-1)[..., :37].astype(int))
    for own, scores, best in zip(candidates, theirs, rescore(queries, bits, candidates, 10), strict=True):
        assert [hit["corpus_id"] for hit in best] == own[np.argsort(-scores)[:10]].tolist()


@pytest.mark.parametrize(
    ("candidates", "words"),
    [
        (np.zeros((2, 3), np.int64), "there are 1 queries, and candidates for 2"),
        (np.array([[300]]), "places among the 300 documents, or -1"),
        (np.array([[-2]]), "places among the 300 documents, or -1"),
    ],
)
def test_impossible_candidates_are_refused(candidates: Any, words: str) -> None:
    with warnings.catch_warnings(), pytest.raises(UsageError, match=words):
        rescore(vectors(1), vectors(300), candidates)
