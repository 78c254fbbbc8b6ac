"""scripts/fuzz: how a case ends, and some hundred cases of fixed seeds."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from fuzzing.fuzz import BAD, Fuzzer, _judge
from fuzzing.isolated import Ended, isolated
from fuzzing.mutations import mutate_bytes, mutate_json
from onnxembed.errors import UsageError

CASES = {"export": 20, "load": 60, "texts": 12}


def raises(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize(
    ("work", "how"),
    [
        (lambda: 3, "value"),
        (lambda: raises(UsageError("no")), "refused"),
        (lambda: raises(KeyError("no")), "foreign"),
        (lambda: raises(BaseException("a panic")), "foreign"),
        (lambda: time.sleep(60), "hang"),
        (lambda: os.kill(os.getpid(), signal.SIGABRT), "abort"),
        (lambda: bytearray(8 << 30), "foreign"),
    ],
)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_every_way_to_end_has_its_word(work: Any, how: str) -> None:
    assert isolated(work, seconds=2).how == how


def test_a_mutation_depends_on_its_seed_alone() -> None:
    text = '{"a": {"b": [1, 2, "x"]}, "c": true}'
    first, second = ([mutate_json(Random(f"{n}"), text) for n in range(50)] for _ in range(2))
    assert first == second
    assert len({changed for changed, _, _ in first}) > 20
    assert mutate_bytes(Random("1"), b"abcdef") == mutate_bytes(Random("1"), b"abcdef")


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome"),
    [
        ([1.0, 2.0], [1.0, 2.0], "same"),
        ([1.0, np.nan], [1.0, np.nan], "same"),
        ([1.0, 2.5], [1.0, 2.0], "wrong"),
        ([1.0, np.nan], [1.0, 2.0], "wrong"),
        ([1.0, np.inf], [1.0, 2.0], "wrong"),
        ([1.0, 3.0], [1.0, np.nan], "overflow"),
        ([1.5, 3.0], [1.0, np.nan], "wrong"),
    ],
)
def test_numbers_are_compared_where_the_reference_gives_some(
    ours: list[float], theirs: list[float], outcome: str
) -> None:
    found, remark = _judge(Ended("value", np.array(ours)), Ended("value", np.array(theirs)), "wrong")
    assert found == outcome
    assert "nan" not in remark


@pytest.mark.torch
@pytest.mark.timeout(900)  # each case is a process of its own
@pytest.mark.filterwarnings("ignore")
def test_some_cases_of_every_campaign_end_as_they_should(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="the reference of the exports")
    fuzzer = Fuzzer(tmp_path)
    for campaign, cases in CASES.items():
        for number in range(cases):
            done, (outcome, remark) = fuzzer.run(campaign, 0, number)
            assert outcome not in BAD, f"{campaign} {number}: {outcome}: {done}: {remark}"
