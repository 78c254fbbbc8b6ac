"""An embedder whose runs are under a test's control: one for each text, and held until the test lets them go."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from onnxembed import OnnxEmbedder
from onnxembed.execution.opening import open_backend
from onnxembed.execution.providers import Placement
from onnxembed.execution.session import Session
from onnxembed.runtime.open_model import OpenModel
from tiny_embedders import Array


def one_text_each(artifact: Path, before: Callable[[], object] = lambda: None, threads: int = 2) -> OnnxEmbedder:
    """An embedder that runs every text alone, and does something `before` each run."""

    class Watched(Session):
        def run(self, outputs: Sequence[str], feeds: Any, *, shrink: bool = False) -> list[Array]:
            before()
            return super().run(outputs, feeds, shrink=shrink)

    return OnnxEmbedder.over(
        OpenModel(
            artifact,
            ("embedding",),
            Placement("cpu", threads=threads, tokens_per_run=1),
            open_backend=partial(open_backend, open_session=Watched),
        )
    )


def numbered() -> Iterator[str]:
    """Endless distinct texts of 3 to 8 tokens."""
    return (" ".join(str(number)) for number in count())


class Gate:
    """Lets some runs pass, then some fail, and holds the next until it is opened. Called before each run."""

    def __init__(self, passing: int, failing: int = 0) -> None:
        self.runs = 0
        self.held, self.opened = threading.Event(), threading.Event()
        self._passing, self._failing = passing, failing
        self._counting = threading.Lock()

    def __call__(self) -> None:
        with self._counting:
            self.runs += 1
            number = self.runs
        if number > self._passing + self._failing:
            self.held.set()
            assert self.opened.wait(60)
        elif number > self._passing:
            raise ZeroDivisionError(f"in run {number}")
