"""Run the command line and read its output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxembed.verify.requirements import missing_requirements

# What a process of its own sees: not how the tests' own Python was told to treat its output.
USUAL = {name: value for name, value in os.environ.items() if name not in ("PYTHONUNBUFFERED", "PYTHONIOENCODING")}


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


def refused(outcome: Outcome, *words: str, code: int = 2) -> bool:
    """Whether it ended with one sentence on standard error, with these words in it, and nothing else."""
    _, out, err = outcome
    assert (outcome.code, out) == (code, ""), outcome
    assert err.startswith("onnxembed: "), err
    assert err.count("\n") == 1, err
    assert [word for word in words if word not in err] == [], err
    return True


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "onnxembed", *map(str, arguments)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def rows(text: str) -> NDArray[np.float32]:
    return np.array([json.loads(line) for line in text.splitlines()], np.float32)


needs_torch = pytest.mark.skipif(bool(missing_requirements()), reason=missing_requirements() or "nothing is missing")


def part_files(folder: Path) -> list[str]:
    """The names of the drafts in a folder."""
    return [name for name in names(folder) if name.endswith(".part")]


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until the condition holds; AssertionError after half a minute."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to pass")


def start(*arguments: object, program: str | None = None, **options: Any) -> subprocess.Popen[bytes]:
    """The command line, or a program with these arguments, in a process that is read and written."""
    line = command(*arguments) if program is None else [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(line, env=USUAL, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
