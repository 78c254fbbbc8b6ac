"""A session's runs under a test's control: one for each text, and held until the test lets them go."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import pytest

from onnxembed.execution import cpu as sessions
from onnxembed.execution.session import Session
from tiny_embedders import Array


def one_text_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every text be a run of its own."""
    monkeypatch.setattr(sessions, "plan_runs", lambda lengths, **_: [[index] for index in range(len(lengths))])


def numbered() -> Iterator[str]:
    """Endless distinct texts of 3 to 8 tokens."""
    return (" ".join(str(number)) for number in count())


class Gate:
    """Lets so many runs pass, or fail, then holds the next until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, passing: int, failing: int = 0) -> None:
        self.runs = 0
        self.held, self.opened = threading.Event(), threading.Event()
        run, counting = Session.run, threading.Lock()

        def gated(session: Session, outputs: Sequence[str], feeds: Any) -> list[Array]:
            with counting:
                self.runs += 1
                number = self.runs
            if number > passing + failing:
                self.held.set()
                assert self.opened.wait(60)
            elif number > passing:
                raise ZeroDivisionError(f"in run {number}")
            return run(session, outputs, feeds)

        monkeypatch.setattr(Session, "run", gated)
