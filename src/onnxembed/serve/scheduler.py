"""Texts of all callers -> runs on the backends' workers -> each caller's results, as soon as its own are done.

The event loop hands over a job and waits. A thread of the scheduler tokenizes the texts of all jobs that have come, a
slice at a time, and puts them into the queue. Whoever finishes something (a slice, a run) fills the places that are
free with the next runs. A text that arrives while nothing runs is computed at once, on the thread that tokenized it,
with all of the backend's threads, as the library does it. Nothing ever waits for a timer.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Protocol

from onnxembed.runtime.streaming import WINDOW_CHARACTERS, WINDOW_TEXTS, Computation
from onnxembed.serve.errors import Refusal
from onnxembed.serve.queue import FairQueue, Job, Text
from onnxembed.serve.settings import QueueLimits
from onnxembed.tokenizer.texts import Tokens

SLICE = 256
"""Texts that are tokenized together, of one job or several, before the next jobs have their turn."""

SLICE_CHARACTERS = WINDOW_CHARACTERS // 4
"""The same for long texts."""

RATE_MEMORY = 0.2
"""The weight of the last run in the average speed."""


@dataclass(frozen=True)
class Computed:
    """The results of a job's texts, in order, and what they took; times are in seconds."""

    results: list[Any]
    tokens: int
    tokenization: float
    queue: float
    inference: float


class Watch(Protocol):
    """Who is told of each run: metrics are."""

    def run(self, texts: int, tokens: int, slots: int, seconds: float) -> None:
        """A run has been computed."""

    def queue(self, texts: int, tokens: int) -> None:
        """The numbers of texts and tokens that wait have changed."""


class Scheduler:
    """Computes the texts of many callers together, in runs that the backends plan.

    Args:
        runs_at_once: how many runs are computed side by side.
        limits: how much may wait.
        watch: is told of each run.
    """

    def __init__(self, runs_at_once: int, limits: QueueLimits, watch: Watch) -> None:
        self._at_once, self._limits, self._watch = runs_at_once, limits, watch
        self._queue = FairQueue()
        self._running = 0
        self._lock = threading.Lock()
        self._untokenized: deque[Job] = deque()
        self._called = False  # whether a thread is about to take what is in there
        self._tokenizing = ThreadPoolExecutor(runs_at_once + 1, "onnxembed-tokenize")
        self._texts = self._tokens = 0
        self._rate = 0.0  # tokens per second
        self.failed: Exception | None = None
        """What stopped the scheduler itself; nothing can be computed any more."""
        self.last_run_failed = False

    @property
    def texts(self) -> int:
        """Texts that were accepted and are not computed yet."""
        return self._texts

    @property
    def tokens(self) -> int:
        """Tokens of the tokenized ones among them."""
        return self._tokens

    async def compute(
        self,
        computation: Computation[Any],
        tokenize: Callable[[Sequence[Any]], list[Tokens]],
        items: Sequence[Any],
    ) -> Computed:
        """The results of `items`, in order; equal items are computed once.

        Raises Refusal (429) when too much is waiting, what `tokenize` raises, and what the run raises. Cancelling it
        drops the texts that have not begun.
        """
        distinct = dict.fromkeys(items) if len(items) > 1 else items
        finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        job = Job(computation, tokenize, list(distinct), finished)
        self._admit(len(job.items))
        try:
            self._tokenize_more(job)
            await finished
        except asyncio.CancelledError:
            self._end(job)
            raise
        if job.error:
            raise job.error
        return self._computed(job, items)

    def close(self) -> None:
        """Stop the threads, after what they are doing."""
        self._tokenizing.shutdown(cancel_futures=True)

    def retry_after(self) -> int:
        """In how many seconds about half of what waits will be computed; at least 1."""
        return max(1, min(60, round(self._tokens / self._rate / 2))) if self._rate else 1

    def _admit(self, texts: int) -> None:
        if self.failed:
            raise Refusal("unhealthy", "the server cannot compute any more, and is about to stop")
        if texts > self._limits.texts:
            raise Refusal("batch_size", f"batch size {texts} > maximum allowed batch size {self._limits.texts}")
        with self._lock:
            full = self._texts + texts > self._limits.texts or self._tokens >= self._limits.tokens
            if not full:
                self._texts += texts
        if full:
            raise Refusal("overloaded", "Model is overloaded", retry_after=self.retry_after())

    def _computed(self, job: Job, items: Sequence[Any]) -> Computed:
        results, lengths = job.results, job.lengths
        if len(results) < len(items):
            place_of = {item: place for place, item in enumerate(job.items)}
            places = [place_of[item] for item in items]
            results, lengths = [results[place] for place in places], [lengths[place] for place in places]
        now = time.perf_counter()
        return Computed(results, sum(lengths), job.spent_tokenizing, job.begun_at - job.queued_at, now - job.begun_at)

    def _tokenize_more(self, job: Job) -> None:
        job.tokenizing = True
        with self._lock:
            self._untokenized.append(job)
        self._call_tokenizer()

    def _call_tokenizer(self) -> None:
        """Wake a thread for what is not tokenized yet; one call is enough for all that comes before it wakes."""
        with self._lock:
            if self._called or not self._untokenized:
                return
            self._called = True
        self._tokenizing.submit(self._guard, self._tokenize_waiting)

    def _guard(self, work: Callable[[], None]) -> None:
        """Do the work; an error in the scheduler itself is the end of it, and the supervisor has to know."""
        try:
            work()
        except Exception as error:
            self.failed = error
            raise

    def _tokenize_waiting(self) -> None:
        """Tokenize the next slices and queue them; then start what can be started."""
        with self._lock:
            slices = self._next_slices()
            self._called = False
        self._call_tokenizer()
        if slices:
            self._tokenize(slices)
            self._start_runs(here=True)

    def _next_slices(self) -> list[tuple[Job, Sequence[Any]]]:
        """The next items of the jobs that came first, as far as they are tokenized in the same way."""
        slices: list[tuple[Job, Sequence[Any]]] = []
        texts, characters = SLICE, SLICE_CHARACTERS
        while self._untokenized and texts > 0 and characters > 0:
            job = self._untokenized[0]
            if slices and job.tokenize is not slices[0][0].tokenize:
                break
            self._untokenized.popleft()
            if not job.ended:
                items, taken = _slice(job.items, job.tokenized, texts, characters)
                texts, characters = texts - len(items), characters - taken
                slices.append((job, items))
        return slices

    def _tokenize(self, slices: Sequence[tuple[Job, Sequence[Any]]]) -> None:
        started = time.perf_counter()
        try:
            tokens = iter(slices[0][0].tokenize([item for _, items in slices for item in items]))
        except Exception as error:  # whatever it is, the request that caused it has to learn of it, and no other
            if len(slices) == 1:
                self._end(slices[0][0], error)
            else:
                for each in slices:
                    self._tokenize([each])
            return
        now = time.perf_counter()
        made = [(job, list(islice(tokens, len(items)))) for job, items in slices]
        with self._lock:
            for job, own in made:
                job.queued_at = job.queued_at or now
                job.spent_tokenizing += now - started
                first = job.tokenized
                job.lengths[first : first + len(own)] = map(len, own)
                job.tokenizing = False
                job.tokenized += len(own)
                if not job.ended:
                    self._count_tokens(job, sum(map(len, own)))
                    self._queue.add(job, [Text(job, place, each) for place, each in enumerate(own, start=first)])

    def _start_runs(self, *, here: bool) -> None:
        """Fill the free places with runs. A lone one is computed `here`, on this thread, if it may be."""
        with self._lock:
            idle = not self._running
            runs = []
            while self._queue and self._running < self._at_once:
                runs.append(self._queue.take())
                self._running += 1
            jobs = {text.job for run in runs for text in run}
            now = time.perf_counter()
            hungry = []
            for job in jobs:
                job.begun_at = job.begun_at or now
                if not job.tokenizing and job.tokenized < len(job.items) and len(job.ready) < WINDOW_TEXTS:
                    job.tokenizing = True
                    hungry.append(job)
            self._watch.queue(self._queue.texts, self._queue.tokens)
        for job in hungry:
            self._tokenize_more(job)
        for run in runs:
            backend = run[0].job.computation.backend
            if here and idle and len(runs) == 1:
                backend.start(self._work, runs)
            else:
                backend.submit(self._work, run)

    def _work(self, run: list[Text]) -> None:
        """Compute a run, give its results to their jobs, and start what can be started next."""
        self._guard(lambda: self._compute_run(run))
        self._guard(lambda: self._start_runs(here=False))

    def _compute_run(self, run: list[Text]) -> None:
        started = time.perf_counter()
        tokens = [text.tokens for text in run]
        results: list[Any] = []
        error: Exception | None = None
        try:
            results = list(chain.from_iterable(run[0].job.computation.results(tokens)))
        except Exception as failure:  # the texts of this run have no results, but the others' go on
            error = failure
        seconds = time.perf_counter() - started
        lengths = [len(each) for each in tokens]
        ended = []
        with self._lock:
            self._running -= 1
            self.last_run_failed = error is not None
            self._rate += (sum(lengths) * self._at_once / max(seconds, 1e-6) - self._rate) * RATE_MEMORY
            for text, result in zip(run, results, strict=error is None):
                job = text.job
                if not job.ended:
                    job.results[text.place] = result
                    job.remaining -= 1
                    self._texts -= 1
                    self._count_tokens(job, -len(text.tokens))
                    if not job.remaining:
                        job.ended = True
                        ended.append(job)
        _tell(ended)
        if error:
            for job in {text.job for text in run}:
                self._end(job, error)
        self._watch.run(len(run), sum(lengths), len(run) * max(lengths), seconds)

    def _end(self, job: Job, error: Exception | None = None) -> None:
        """Forget what is left of a job: a text failed, or its client has gone."""
        with self._lock:
            if job.ended:
                return
            job.ended, job.error = True, error
            self._texts -= job.remaining
            self._count_tokens(job, -job.waiting_tokens)
            self._queue.drop(job)
        _tell([job])

    def _count_tokens(self, job: Job, tokens: int) -> None:
        job.waiting_tokens += tokens
        self._tokens += tokens


def _tell(jobs: Sequence[Job]) -> None:
    """Wake those who wait for the jobs: each event loop once, however many there are."""
    finished: defaultdict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = defaultdict(list)
    for job in jobs:
        finished[job.finished.get_loop()].append(job.finished)
    for loop, futures in finished.items():
        with suppress(RuntimeError):  # the loop is closed, so nobody waits
            loop.call_soon_threadsafe(_finish, futures)


def _finish(futures: Sequence[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def _slice(items: Sequence[Any], first: int, most: int, most_characters: int) -> tuple[Sequence[Any], int]:
    """The items from `first` on that are tokenized together, and their characters: at least one, then few of both."""
    end = characters = 0
    for end in range(first, min(first + most, len(items))):
        characters += sum(map(len, items[end])) if _is_pair(items[end]) else len(items[end])
        if characters >= most_characters:
            break
    return items[first : end + 1], characters


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple) and isinstance(item[0], str)
