"""The scheduler: fair shares, runs of equal lengths, and what becomes of jobs whose clients have gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("msgspec", reason="pip install 'onnxembed[serve]'")

from onnxembed.execution.planning import plan_runs
from onnxembed.serve.errors import Refusal
from onnxembed.serve.queue import FairQueue, Job, Text
from onnxembed.serve.scheduler import Scheduler
from onnxembed.serve.settings import QueueLimits
from onnxembed.tokenizer.texts import Tokens


class Backend:
    """Plans as the CPU does, and computes on threads that wait until they are let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()

    def plan(self, lengths: Sequence[int]) -> list[list[int]]:
        return plan_runs(lengths, 8, run_cost=0)

    def start(self, work: Any, runs: Sequence[Any]) -> None:
        work(runs[0])

    def submit(self, work: Any, run: Any) -> None:
        threading.Thread(target=work, args=(run,)).start()


class Computation:
    """Each text's result is its first id; an id below 0 cannot be computed."""

    def __init__(self) -> None:
        self.backend = Backend()
        self.runs: list[list[int]] = []

    def results(self, texts: Sequence[Tokens]) -> list[list[int]]:
        self.runs.append([int(each.ids[0]) for each in texts])
        assert self.backend.go.wait(10)
        if any(each.ids[0] < 0 for each in texts):
            raise RuntimeError("impossible")
        return [[int(each.ids[0]) for each in texts]]


class Silent:
    def run(self, texts: int, tokens: int, slots: int, seconds: float) -> None: ...

    def queue(self, texts: int, tokens: int) -> None: ...


def tokens(number: int, length: int = 2) -> Tokens:
    ids = np.full(length, number, np.int64)
    return Tokens(ids, np.zeros_like(ids), truncated=False)


def tokenize(items: Sequence[Any]) -> list[Tokens]:
    """An item is (number, length)."""
    return [tokens(*item) for item in items]


def job(computation: Any, items: Sequence[tuple[int, int]]) -> tuple[Job, list[Text]]:
    nobody: Any = None
    made = Job(computation, tokenize, items, nobody)
    return made, [Text(made, place, each) for place, each in enumerate(tokenize(items))]


def taken(queue: FairQueue) -> list[int]:
    return [int(text.tokens.ids[0]) for text in queue.take()]


def test_a_short_job_passes_a_long_one_that_came_before_it() -> None:
    queue, computation = FairQueue(), Computation()
    queue.add(*job(computation, [(number, 4) for number in range(6)]))
    assert taken(queue) == [5, 4]
    queue.add(*job(computation, [(100, 2)]))
    assert taken(queue) == [100]
    assert taken(queue) == [3, 2]
    assert (queue.texts, queue.tokens) == (2, 8)


def test_texts_of_one_length_run_together_whoever_sent_them() -> None:
    queue, computation = FairQueue(), Computation()
    for number, length in ((1, 2), (2, 4), (3, 2), (4, 4)):
        queue.add(*job(computation, [(number, length)]))
    assert sorted([taken(queue), taken(queue)]) == [[1, 3], [2, 4]]
    assert len(queue) == 0


def test_texts_that_are_computed_differently_never_run_together() -> None:
    queue = FairQueue()
    for number in (1, 2):
        queue.add(*job(Computation(), [(number, 2)]))
    assert [taken(queue), taken(queue)] == [[1], [2]]


def test_two_long_jobs_take_turns_by_tokens() -> None:
    queue, first, second = FairQueue(), Computation(), Computation()
    queue.add(*job(first, [(1, 8)] * 4))
    queue.add(*job(second, [(2, 4)] * 4))
    assert [taken(queue)[0] for _ in range(4)] == [1, 2, 1, 2]


def test_a_dropped_job_leaves_nothing_behind() -> None:
    queue, computation = FairQueue(), Computation()
    gone, texts = job(computation, [(1, 2), (2, 3)])
    queue.add(gone, texts)
    queue.add(*job(computation, [(3, 2)]))
    queue.drop(gone)
    assert taken(queue) == [3]
    assert (queue.texts, queue.tokens) == (0, 0)


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    made = Scheduler(2, QueueLimits(texts=1000, tokens=50), Silent())
    yield made
    made.close()


def test_every_caller_gets_its_own_results_in_order() -> None:
    computation: Any = Computation()
    scheduler = Scheduler(2, QueueLimits(), Silent())

    async def caller(first: int) -> None:
        items = [(first + place % 7, 1 + place % 5) for place in range(first % 40 + 1)]
        computed = await scheduler.compute(computation, tokenize, items)
        assert computed.results == [number for number, _ in items]

    async def all_callers() -> None:
        await asyncio.gather(*(caller(100 * number) for number in range(1, 6)))

    asyncio.run(all_callers())
    scheduler.close()
    assert (scheduler.texts, scheduler.tokens) == (0, 0)


def test_a_run_that_fails_fails_its_own_jobs_alone(scheduler: Scheduler) -> None:
    computation: Any = Computation()

    async def both() -> Any:
        return await asyncio.gather(
            scheduler.compute(computation, tokenize, [(-1, 2), (5, 3)]),
            scheduler.compute(computation, tokenize, [(7, 4)]),
            return_exceptions=True,
        )

    failed, computed = asyncio.run(both())
    assert isinstance(failed, RuntimeError)
    assert computed.results == [7]
    assert (scheduler.texts, scheduler.tokens, scheduler.failed) == (0, 0, None)


def test_a_cancelled_job_is_dropped_and_its_places_are_free_again(scheduler: Scheduler) -> None:
    computation: Any = Computation()

    async def cancelled() -> None:
        computation.backend.go.clear()
        waiting = asyncio.create_task(scheduler.compute(computation, tokenize, [(number, 8) for number in range(9)]))
        while len(computation.runs) < 1:
            await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert (scheduler.texts, scheduler.tokens) == (0, 0)
        computation.backend.go.set()
        assert (await scheduler.compute(computation, tokenize, [(50, 1)])).results == [50]

    asyncio.run(cancelled())
    assert len(computation.runs) <= 4


def test_more_than_may_wait_is_refused_with_a_time_to_come_again(scheduler: Scheduler) -> None:
    computation: Any = Computation()

    async def crowded() -> None:
        computation.backend.go.clear()
        waiting = asyncio.create_task(scheduler.compute(computation, tokenize, [(number, 9) for number in range(9)]))
        while scheduler.tokens < 50:
            await asyncio.sleep(0.01)
        with pytest.raises(Refusal) as refused:
            await scheduler.compute(computation, tokenize, [(1, 1)])
        assert (refused.value.status, refused.value.retry_after) == (429, 1)
        computation.backend.go.set()
        assert len((await waiting).results) == 9

    asyncio.run(crowded())


def test_an_error_of_the_tokenizer_is_the_callers(scheduler: Scheduler) -> None:
    def broken(items: Sequence[Any]) -> list[Tokens]:
        raise Refusal("tokenization", "no")

    with pytest.raises(Refusal, match="no"):
        asyncio.run(scheduler.compute(Computation(), broken, [(1, 1)]))  # type: ignore[arg-type]
    assert scheduler.texts == 0


def test_texts_of_several_requests_are_tokenized_together_and_a_bad_one_fails_alone(scheduler: Scheduler) -> None:
    computation: Any = Computation()
    calls: list[int] = []
    go = threading.Event()

    def careful(items: Sequence[Any]) -> list[Tokens]:
        calls.append(len(items))
        assert go.wait(10)
        if any(length > 7 for _, length in items):
            raise Refusal("validation", "too long")
        return tokenize(items)

    async def all_callers() -> list[Any]:
        async def ask(number: int, length: int = 2) -> Any:
            return (await scheduler.compute(computation, careful, [(number, length)])).results

        busy = []
        for number in range(3):  # as many as there are threads
            busy.append(asyncio.create_task(ask(number)))
            while len(calls) <= number:
                await asyncio.sleep(0.01)
        rest = [asyncio.create_task(ask(number, 8 if number == 5 else 2)) for number in range(3, 9)]
        await asyncio.sleep(0.05)
        go.set()
        done: list[Any] = await asyncio.gather(*busy, *rest, return_exceptions=True)
        return done

    results = asyncio.run(all_callers())
    assert [each for each in results if not isinstance(each, Refusal)] == [[n] for n in range(9) if n != 5]
    assert isinstance(results[5], Refusal)
    assert calls == [1, 1, 1, 6] + [1] * 6


def test_what_is_tokenized_together_is_tokenized_alike_is_not_long_and_has_a_client(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxembed.serve.scheduler.SLICE_CHARACTERS", 4)  # two items
    computation: Any = Computation()
    calls: list[tuple[str, list[int]]] = []
    go = threading.Event()

    def named(name: str) -> Any:
        def tokenizing(items: Sequence[Any]) -> list[Tokens]:
            calls.append((name, [number for number, _ in items]))
            assert go.wait(10)
            return tokenize(items)

        return tokenizing

    async def all_callers() -> list[Any]:
        def ask(tokenizing: Any, number: int) -> asyncio.Task[Any]:
            return asyncio.create_task(scheduler.compute(computation, tokenizing, [(number, 2)]))

        busy = []
        for number in range(3):  # as many as there are threads
            busy.append(ask(named("busy"), number))
            while len(calls) <= number:
                await asyncio.sleep(0.01)
        first, second = named("first"), named("second")
        rest = [ask(first, 3), ask(first, 4), ask(first, 5), ask(second, 6), ask(first, 7)]
        gone = ask(first, 8)
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        go.set()
        async with asyncio.timeout(20):
            return [each.results for each in await asyncio.gather(*busy, *rest)]

    assert asyncio.run(all_callers()) == [[number] for number in range(8)]
    assert sorted(calls[3:]) == [("first", [3, 4]), ("first", [5]), ("first", [7]), ("second", [6])]
