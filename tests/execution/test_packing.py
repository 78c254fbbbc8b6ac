"""Packing: the tokens of a padded batch in one row, in the layout of ONNX Runtime's packed operators."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxembed.errors import UsageError
from onnxembed.execution.packing import SLOTS, offsets, pack
from onnxembed.execution.planning import MAX_SPREAD, plan_packed

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def test_offsets_are_those_of_the_operators_own_example() -> None:
    """From the documentation of PackedMultiHeadAttention in ONNX Runtime's ContribOperators.md."""
    assert offsets(np.array([1, 2, 4]), 4).ravel().tolist() == [0, 4, 5, 8, 9, 10, 11, 1, 2, 3, 6, 7]


@settings(deadline=None)
@given(lengths, st.sampled_from(["right", "left"]), st.booleans())
def test_unpacking_gives_the_padded_batch_back(lengths: list[int], side: str, types: bool) -> None:
    rng = np.random.default_rng(sum(lengths))
    shape = (len(lengths), max(lengths))
    mask = np.zeros(shape, np.int64)
    for row, length in enumerate(lengths):
        mask[row, slice(0, length) if side == "right" else slice(shape[1] - length, shape[1])] = 1
    feeds = {"input_ids": rng.integers(1, 99, shape) * mask, "attention_mask": mask}
    if types:
        feeds["token_type_ids"] = rng.integers(0, 2, shape) * mask
    packed = pack(feeds)
    ends = packed["cumulative_sequence_length"]
    kinds = [(array.dtype.name, array.ndim) for array in packed.values()]
    assert kinds == [("int64", 1)] * (2 + types) + [("int32", 1), ("int32", 2)]
    assert np.diff(ends).tolist() == lengths
    for name in ("input_ids", "token_type_ids")[: 1 + types]:
        back = np.zeros(shape, np.int64)
        for row, (start, end) in enumerate(pairwise(ends)):
            back[row, packed["position_ids"][start:end]] = packed[name][start:end]
        assert np.array_equal(back, feeds[name])
    slots = packed["token_offset"].shape[1]
    assert slots % SLOTS == 0
    assert max(lengths) <= slots < max(lengths) + SLOTS
    where = packed["token_offset"].ravel()
    assert sorted(where) == list(range(len(lengths) * slots))
    expected = [row * slots + slot for row, length in enumerate(lengths) for slot in range(length)]
    assert where[: sum(lengths)].tolist() == expected


def test_a_text_without_a_token_is_named() -> None:
    mask = np.array([[1, 1], [0, 0]])
    with pytest.raises(UsageError, match="row 1 of a run has no token"):
        pack({"input_ids": mask, "attention_mask": mask})


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), max_size=200), st.integers(1, 600))
def test_packed_runs_hold_their_budget_of_tokens(lengths: list[int], budget: int) -> None:
    runs = plan_packed(lengths, budget)
    assert sorted(index for run in runs for index in run) == list(range(len(lengths)))
    for run in runs:
        tokens = [lengths[index] for index in run]
        assert len(run) == 1 or sum(tokens) <= budget
        assert len(run) == 1 or len(run) * max(tokens) <= MAX_SPREAD * budget


def test_packed_runs_are_full_whatever_the_lengths() -> None:
    assert plan_packed([6, 10, 8, 7, 9], 40) == [[1, 4, 2, 3, 0]]
    assert plan_packed([30, 1, 1, 1, 1, 1], 40) == [[0, 1], [2, 3, 4, 5]]  # padded, six would be 180 slots
