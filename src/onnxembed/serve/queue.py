"""Which texts are computed next: requests get fair shares of tokens, and texts of equal length run together.

Fair shares are counted as in start-time fair queueing (Goyal, Vin and Cheng, 1996): each job remembers the tokens that
it was given, a new job begins where the others are, and the job that was given the fewest goes first. A short request
therefore passes a long one that came before it, and no request waits forever.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from onnxembed.runtime.streaming import Computation
from onnxembed.tokenizer.texts import Tokens

CANDIDATES = 256
"""A run is made up from at most this many waiting texts. Among more, more are of one length, but planning a run would
take longer than computing it with a small model."""

_numbers = count()


@dataclass(slots=True, eq=False)
class Text:
    """A tokenized text that waits for its run."""

    job: Job
    place: int
    """Its place among the job's distinct texts."""
    tokens: Tokens


@dataclass(eq=False)
class Job:
    """The texts of one request that are computed in the same way."""

    computation: Computation[Any]
    tokenize: Callable[[Sequence[Any]], list[Tokens]]
    items: Sequence[Any]
    """Distinct texts, pairs or lists of token ids."""
    finished: asyncio.Future[None]
    """What its request waits for."""
    number: int = field(default_factory=lambda: next(_numbers))
    given: int = 0
    """Tokens that it has been given of its fair share."""
    ready: list[Text] = field(default_factory=list)
    """Its tokenized texts, the longest last."""
    tokenized: int = 0
    """How many of its items have been tokenized."""
    tokenizing: bool = False
    queued: bool = False
    results: list[Any] = field(default_factory=list)
    """What the readout makes of each item."""
    lengths: list[int] = field(default_factory=list)
    """The tokens of each item."""
    remaining: int = 0
    """How many items have no result yet."""
    waiting_tokens: int = 0
    """The tokens of those of its tokenized items that have no result yet."""
    error: Exception | None = None
    ended: bool = False
    """Whether it needs nothing more: all texts are done, one of them failed, or its client has gone."""
    spent_tokenizing: float = 0.0  # seconds
    queued_at: float = 0.0
    begun_at: float = 0.0
    """When its first text was taken into a run."""

    def __post_init__(self) -> None:
        self.remaining = len(self.items)
        self.results, self.lengths = [None] * self.remaining, [0] * self.remaining


class FairQueue:
    """The tokenized texts of all jobs. Not safe for several threads: the scheduler holds a lock."""

    def __init__(self) -> None:
        self.texts = 0
        self.tokens = 0
        self._order: list[tuple[int, int, Job]] = []  # by what they were given, then by age
        self._reached = 0  # the share of the job that was served last

    def __len__(self) -> int:
        return self.texts

    def add(self, job: Job, texts: list[Text]) -> None:
        """Queue more texts of a job."""
        job.ready = sorted(job.ready + texts, key=_length)
        self.texts += len(texts)
        self.tokens += sum(map(_length, texts))
        if not job.queued and texts:
            job.given = max(job.given, self._reached)
            self._enter(job)

    def take(self) -> list[Text]:
        """The texts of the next run: one of the job whose turn it is, and those that run well beside it."""
        candidates = self._candidates()
        head = candidates[0].job
        self._reached = head.given
        runs = head.computation.backend.plan([_length(text) for text in candidates])
        chosen = [candidates[index] for index in next(run for run in runs if 0 in run)]
        texts_of: defaultdict[Job, set[Text]] = defaultdict(set)
        for text in chosen:
            texts_of[text.job].add(text)
        for job, taken in texts_of.items():
            self._leave(job)
            job.ready = [text for text in job.ready if text not in taken]
            job.given += sum(map(_length, taken))
            if job.ready:
                self._enter(job)
        self._uncount(chosen)
        return chosen

    def drop(self, job: Job) -> None:
        """Forget the texts of a job."""
        if job.queued:
            self._leave(job)
            self._uncount(job.ready)
        job.ready = []

    def _candidates(self) -> list[Text]:
        """Texts that are computed in the same way, in the order of their jobs, each job's longest texts first."""
        computation = self._order[0][2].computation
        candidates: list[Text] = []
        for _, _, job in self._order:
            if job.computation is computation:
                candidates.extend(reversed(job.ready[len(candidates) - CANDIDATES :]))
                if len(candidates) == CANDIDATES:
                    break
        return candidates

    def _enter(self, job: Job) -> None:
        insort(self._order, (job.given, job.number, job))
        job.queued = True

    def _leave(self, job: Job) -> None:
        del self._order[bisect_left(self._order, (job.given, job.number))]
        job.queued = False

    def _uncount(self, texts: Sequence[Text]) -> None:
        self.texts -= len(texts)
        self.tokens -= sum(map(_length, texts))


def _length(text: Text) -> int:
    return len(text.tokens.ids)
