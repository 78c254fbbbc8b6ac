"""Runs: every text once, within the budget, without padding where it would cost."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxembed.execution.planning import CPU_TOKENS_PER_RUN, MAX_PADDING, SMALL_RUN, plan_runs

# Short texts in plenty, so that runs fill up; some so long that one alone is over the budget.
lengths = st.lists(st.integers(0, 40) | st.integers(0, 2 * CPU_TOKENS_PER_RUN), max_size=200)
budgets = st.integers(1, 2 * CPU_TOKENS_PER_RUN)

unhurried = settings(deadline=None)  # a busy machine is not a failure


def of(run: Sequence[int], lengths: Sequence[int]) -> list[int]:
    return [lengths[index] for index in run]


@unhurried
@given(lengths, budgets)
def test_every_text_is_in_exactly_one_run(lengths: list[int], budget: int) -> None:
    runs = plan_runs(lengths, budget)
    assert sorted(index for run in runs for index in run) == list(range(len(lengths)))
    assert all(runs)


@unhurried
@given(lengths, budgets)
def test_a_run_holds_its_budget_of_slots_or_one_text(lengths: list[int], budget: int) -> None:
    for run in plan_runs(lengths, budget):
        assert len(run) == 1 or len(run) * max(of(run, lengths)) <= budget


@unhurried
@given(lengths, budgets)
def test_longest_texts_come_first(lengths: list[int], budget: int) -> None:
    flat = [lengths[index] for run in plan_runs(lengths, budget) for index in run]
    assert flat == sorted(lengths, reverse=True)


@unhurried
@given(lengths, budgets)
def test_only_a_small_run_takes_a_shorter_text_and_only_with_little_padding(lengths: list[int], budget: int) -> None:
    for run in plan_runs(lengths, budget):
        tokens = of(run, lengths)
        for size in range(1, len(run)):
            if tokens[size] < tokens[0]:
                assert sum(tokens[:size]) < SMALL_RUN
                slots = (size + 1) * tokens[0]
                assert slots - sum(tokens[: size + 1]) <= MAX_PADDING * slots


@unhurried
@given(st.lists(st.integers(SMALL_RUN, 600), max_size=200), budgets)
def test_texts_that_are_not_small_are_never_padded(lengths: list[int], budget: int) -> None:
    for run in plan_runs(lengths, budget):
        assert len(set(of(run, lengths))) == 1


@unhurried
@given(lengths)
def test_the_plan_is_a_function_of_the_lengths(lengths: list[int]) -> None:
    assert plan_runs(lengths) == plan_runs(tuple(lengths))


def test_equal_lengths_keep_their_order() -> None:
    assert plan_runs([5, 9, 5, 9, 5], 18) == [[1, 3], [0, 2, 4]]


def test_no_texts_give_no_runs() -> None:
    assert plan_runs([]) == []


def test_equal_lengths_fill_a_run_to_the_last_slot() -> None:
    assert [len(run) for run in plan_runs([128] * 9, 1024)] == [8, 1]
    assert [len(run) for run in plan_runs([128] * 9, 1023)] == [7, 2]
    assert [len(run) for run in plan_runs([5] * 3, 14)] == [2, 1]


def test_a_text_over_the_budget_runs_alone() -> None:
    assert plan_runs([5000, 3, 5000], 1024) == [[0], [2], [1]]


@pytest.mark.parametrize(
    ("lengths", "runs"),
    [
        ([4, 3, 3], 1),  # 2 of 12 slots are padding
        ([4, 2], 1),  # 2 of 8 slots: exactly the limit
        ([4, 1], 2),  # 3 of 8 slots
        ([SMALL_RUN - 1, SMALL_RUN - 2], 1),
        ([SMALL_RUN, SMALL_RUN - 1], 2),
    ],
)
def test_the_limits_of_small_runs(lengths: list[int], runs: int) -> None:
    assert len(plan_runs(lengths)) == runs
