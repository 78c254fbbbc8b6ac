"""Runs: every text once, within the budget, without padding where it would cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxembed.execution.planning import (
    CPU_TOKENS_PER_RUN,
    LONGEST_PADDED,
    MAX_PADDING,
    RUN_COST,
    plan_packed,
    plan_padded,
    plan_runs,
)

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
def test_runs_of_longest_texts_come_first(lengths: list[int], budget: int) -> None:
    runs = [of(run, lengths) for run in plan_runs(lengths, budget)]
    assert all(run == sorted(run, reverse=True) for run in runs)
    assert [run[0] for run in runs] == sorted((run[0] for run in runs), reverse=True)


@unhurried
@given(lengths, budgets)
def test_texts_without_tokens_run_among_themselves(lengths: list[int], budget: int) -> None:
    """What they attend to is padding alone, and more of it gives another vector."""
    for plan in (plan_runs, plan_padded, plan_packed):
        assert all(
            0 not in lengths or not any(lengths) for lengths in (of(run, lengths) for run in plan(lengths, budget))
        )


def cost(runs: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    return sum(RUN_COST + len(run) * max(of(run, lengths)) for run in runs)


def every_division(items: list[int]) -> Iterator[list[list[int]]]:
    """All ways to put items into runs, by brute force."""
    if not items:
        yield []
        return
    for rest in every_division(items[1:]):
        yield [[items[0]], *rest]
        for place in range(len(rest)):
            yield [*rest[:place], [items[0], *rest[place]], *rest[place + 1 :]]


@unhurried
@given(st.lists(st.integers(1, 30), min_size=1, max_size=7))
def test_no_division_of_a_few_texts_costs_less(lengths: list[int]) -> None:
    least = min(cost(division, lengths) for division in every_division(list(range(len(lengths)))))
    assert cost(plan_runs(lengths), lengths) == least


@unhurried
@given(lengths, budgets)
def test_no_division_costs_more_than_a_run_for_each_length(lengths: list[int], budget: int) -> None:
    assert cost(plan_runs(lengths, budget), lengths) <= cost(plan_runs(lengths, budget, run_cost=0), lengths)


@unhurried
@given(st.lists(st.integers(LONGEST_PADDED + 1, 600), max_size=200), budgets)
def test_long_texts_are_never_padded(lengths: list[int], budget: int) -> None:
    for run in plan_runs(lengths, budget):
        assert len(set(of(run, lengths))) == 1


@unhurried
@given(lengths, budgets)
def test_nothing_is_padded_where_a_run_costs_nothing(lengths: list[int], budget: int) -> None:
    for run in plan_runs(lengths, budget, run_cost=0):
        assert len(set(of(run, lengths))) == 1


@unhurried
@given(lengths, budgets)
def test_padded_runs_of_a_gpu_keep_both_limits(lengths: list[int], budget: int) -> None:
    runs = plan_padded(lengths, budget)
    assert sorted(index for run in runs for index in run) == list(range(len(lengths)))
    for run in runs:
        slots = len(run) * max(of(run, lengths))
        assert len(run) == 1 or slots <= budget
        assert slots - sum(of(run, lengths)) <= MAX_PADDING * slots


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
        ([20, 11], [[0, 1]]),  # 9 slots of padding cost less than a run
        ([20, 10], [[0], [1]]),  # 10 cost as much
        ([20, 19, 19, 18, 9, 9], [[0, 1, 2, 3], [4, 5]]),
        ([LONGEST_PADDED, LONGEST_PADDED - 1], [[0, 1]]),
        ([LONGEST_PADDED + 1, LONGEST_PADDED], [[0], [1]]),
    ],
)
def test_leftovers_share_a_run_where_that_is_cheaper(lengths: list[int], runs: list[list[int]]) -> None:
    assert plan_runs(lengths) == runs


@pytest.mark.parametrize(("lengths", "runs"), [([4, 3, 3], 1), ([4, 2], 1), ([4, 1], 2)])
def test_the_largest_share_of_padding_on_a_gpu(lengths: list[int], runs: int) -> None:
    assert len(plan_padded(lengths, 1024)) == runs
