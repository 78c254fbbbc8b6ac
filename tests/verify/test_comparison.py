"""Comparisons: figures worked out by hand, limits, and the messages for values beyond them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxembed.errors import VerificationError
from onnxembed.manifest import Quality
from onnxembed.proof.differences import Differences
from onnxembed.proof.limits import Limits, required
from onnxembed.verify.comparison import compare_token_ids

LOOSE = Limits(max_abs_diff=10.0, min_cosine=-1.0)


def rows(*values: list[float]) -> list[NDArray[np.float32]]:
    return [np.array([value], np.float32) for value in values]


def test_the_largest_difference_and_the_smallest_cosine_are_kept() -> None:
    differences = Differences("fp32", "vectors", LOOSE)
    differences.add("alone", ["a", "b"], rows([1, 0], [0, 1]), rows([1, 0], [0, 1.5]))
    differences.add("together", ["c"], rows([3, 4]), rows([4, 3]))
    differences.add("together", ["d"], rows([1, 0]), rows([1, 0]))
    assert differences.max_abs_diff == 1
    assert differences.min_cosine == pytest.approx(24 / 25)


def test_each_row_of_an_item_has_a_cosine_of_its_own() -> None:
    differences = Differences("fp32", "vectors", LOOSE)
    differences.add(
        "alone", ["a"], [np.array([[100, 0], [0, 1]], np.float32)], [np.array([[100, 0], [1, 0]], np.float32)]
    )
    assert differences.min_cosine == 0


def test_vectors_of_zeros_are_like_each_other_and_unlike_all_else() -> None:
    differences = Differences("fp32", "vectors", LOOSE)
    differences.add("alone", ["a"], rows([0, 0]), rows([0, 0]))
    assert differences.min_cosine == 1
    differences.add("alone", ["a"], rows([0, 0]), rows([0, 1]))
    assert differences.min_cosine == 0


def test_the_limit_grows_with_the_longest_and_never_shrinks() -> None:
    for length, limit in ((0.1, 1e-5), (1, 1e-5), (300, 3e-3)):
        differences = Differences("fp32", "vectors", required("fp32"))
        differences.add("alone", ["a"], rows([length]), rows([length]))
        limits = differences.judge("other")
        assert limits is not None
        assert limits.max_abs_diff == pytest.approx(limit)


@pytest.mark.parametrize(("ours", "theirs"), [([1.0, 2e-5], [1.0, 0.0]), ([1e-3, 2e-6], [1e-3, 0.0])])
def test_either_limit_is_enough(ours: list[float], theirs: list[float]) -> None:
    """A difference too large for a cosine to see it, and a cosine of vectors that are too short for differences."""
    differences = Differences("fp32", "vectors", required("fp32"))
    differences.add("alone", ["a text"], rows([1, 0]), rows([1, 0]))
    differences.add("together", ["the worst"], rows(ours), rows(theirs))
    message = (
        r"fp32 vectors are other: max abs difference .* \(at most 1e-05\), min cosine .*; .*alone 0.0e\+00, together "
    )
    with pytest.raises(VerificationError, match=message + ".*worst for 'the worst'"):
        differences.judge("other")


def test_vectors_of_one_number_have_no_cosine() -> None:
    differences = Differences("fp32", "logits", Limits(max_abs_diff=1.0))
    differences.add("alone", [("a", "b")], rows([0.5]), rows([-0.5]))
    limits = differences.judge("other")
    assert limits is not None
    assert limits.recorded() == {"max_abs_diff": 1.0}
    differences.add("alone", [("a", "b")], rows([0.75]), rows([-0.5]))
    with pytest.raises(VerificationError) as caught:
        differences.judge("other")
    assert "cosine" not in str(caught.value)
    assert str(caught.value).endswith("worst for ('a', 'b')")


def test_a_comparison_without_limits_is_only_measured() -> None:
    assert required("q4") is None
    differences = Differences("q4", "vectors", required("q4"))
    differences.add("alone", ["a"], rows([1, 0]), rows([0.5, 0.5]))
    assert differences.judge("other") is None
    assert differences.same_among_others("text").startswith(
        "up to 5.0e-01 apart for a text alone and among others, min cos"
    )


def test_an_8_bit_graph_keeps_the_limit_of_its_export() -> None:
    limits = required("int8", Quality(texts=9, min_cosine=0.999, mean_cosine=0.999, required=0.98, kept_wider=()))
    assert limits is not None
    assert limits.recorded() == {"max_abs_diff": pytest.approx(0.2), "min_cosine": 0.98}


def test_shapes_and_numbers_are_checked_first() -> None:
    differences = Differences("fp32", "vectors", LOOSE)
    cases = {
        "fp32 vectors of 'a' have the shape (1, 3), should have (1, 2)": (rows([1, 2, 3]), rows([1, 2])),
        "fp32 vectors are not finite (run together)": (rows([1, np.nan]), rows([1, np.inf])),
        "the reference's vectors are not finite (run together)": (rows([1, 2]), rows([1, np.inf])),
    }
    for words, (ours, theirs) in cases.items():
        with pytest.raises(VerificationError, match=re.escape(words)):
            differences.add("together", ["a"], ours, theirs)


def test_the_first_token_that_differs_is_named() -> None:
    compare_token_ids("text", "a", [1, 2], [1, 2])
    words = "token ids of a query are not the reference's: 'a' has 3 tokens, not 2, and from token 1 on they are [3, 4]"
    with pytest.raises(VerificationError, match=re.escape(f"{words}, not [2]")):
        compare_token_ids("query", "a", [1, 3, 4], [1, 2])
    with pytest.raises(VerificationError, match=r"from token 2 on they are \[\], not \[3\]"):
        compare_token_ids("text", "a", [1, 2], [1, 2, 3])
    with pytest.raises(VerificationError, match=r"ids of a pair are not the reference's: \('q', 'd'\) has"):
        compare_token_ids("pair", ("q", "d"), [1], [2])


def test_token_ids_of_equal_length_are_not_called_of_another_length() -> None:
    words = r"'a' has 3 tokens and from token 1 on they are \[3, 4\], not \[5, 4\]"
    with pytest.raises(VerificationError, match=words):
        compare_token_ids("text", "a", [2, 3, 4], [2, 5, 4])
