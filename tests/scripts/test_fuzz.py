"""scripts/fuzz: how a case ends, and some hundred cases of fixed seeds."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from fuzzing import fuzz
from fuzzing.fuzz import judge
from fuzzing.isolated import Ended, isolated, isolated_each
from fuzzing.mutations import mutate_bytes, mutate_json
from onnxembed.errors import UsageError

SCRIPTS = Path(fuzz.__file__).parents[1]


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
        (lambda: lambda: "what cannot be sent", "abort"),
    ],
)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_every_way_to_end_has_its_word(work: Any, how: str) -> None:
    assert isolated(work, seconds=2).how == how


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_the_works_after_one_that_ends_its_process_are_run_in_a_new_one() -> None:
    works = [os.getpid, os.getpid, lambda: os.kill(os.getpid(), signal.SIGABRT), os.getpid, lambda: raises(KeyError())]
    first, second, aborted, fourth, fifth = isolated_each(works, seconds=20)
    assert first == second != fourth
    assert aborted == Ended("abort", "SIGABRT")
    assert fifth.how == "foreign"
    assert os.getpid() not in (first.value, fourth.value)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_process_that_aborts_writes_no_traceback() -> None:
    assert faulthandler.is_enabled()  # by pytest
    assert isolated(faulthandler.is_enabled, seconds=20) == Ended("value", False)


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
    found, remark = judge(Ended("value", np.array(ours)), Ended("value", np.array(theirs)), "wrong")
    assert found == outcome
    assert "nan" not in remark


def run(*options: str, first: str = "pass") -> subprocess.CompletedProcess[str]:
    """scripts/fuzz with these options, after the statements `first`."""
    if find_spec("sentence_transformers") is None:
        pytest.skip("needs sentence-transformers, the reference")
    code = f"{first}; import sys; from fuzzing.fuzz import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", code, *options], text=True, capture_output=True, check=False)


@pytest.fixture(autouse=True)
def _modules(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [str(SCRIPTS), str(SCRIPTS.parent / "tests/helpers"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders).rstrip(os.pathsep))


@pytest.mark.torch
def test_some_hundred_cases_end_as_they_should() -> None:
    done = run("--cases", "100", "--seed", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 100 cases: ") == 4


@pytest.mark.torch
def test_a_find_that_comes_back_is_found() -> None:
    """Graphs of others were once opened with special tokens of their tokenizer.json that the reference replaces."""
    done = run(
        *("--campaign", "adopt", "--only", "85", "--seed", "99"),
        first="from onnxembed.tokenizer import post_processor; post_processor.check = lambda facts, name, state: None",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "adopt 85: wrong: electra: tokenizer.json: delete post_processor.single.0" in done.stdout
