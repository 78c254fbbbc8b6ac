"""Callers of a server, what they saw, and the ways in which they load it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from benchmark.load.connection import Connection, Gone
from benchmark.load.server import Server, raw
from onnxembed import OnnxEmbedder

WORDS = [
    "water",
    "city",
    "river",
    "history",
    "music",
    "language",
    "market",
    "energy",
    "theory",
    "island",
    "garden",
    "winter",
    "doctor",
    "engine",
    "letter",
    "planet",
    "bridge",
    "forest",
    "science",
    "travel",
    "museum",
    "battle",
    "school",
    "network",
    "village",
    "machine",
    "silver",
    "mountain",
    "protein",
    "election",
]
TOLERANCE = 1e-5
CHECKED = 0.05  # of the answers to the callers; overload and soak check all


@dataclass
class Record:
    """What callers saw."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    wrong: int = 0
    """Answers whose vectors are not the library's."""
    lost: int = 0
    """Requests whose connection was closed before the answer was complete."""
    sent: int = 0
    left: int = 0
    """Requests that their client left on purpose."""
    texts: int = 0

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.seconds, share)) * 1000 if self.seconds else float("nan")

    def add(self, status: int, seconds: float) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if status == 200:
            self.seconds.append(seconds)


class Texts:
    """Short texts, and the vectors that the library gives them."""

    def __init__(self, embedder: OnnxEmbedder, number: int = 2000) -> None:
        rng = random.Random(7)
        self.texts = [" ".join(rng.choices(WORDS, k=rng.randint(3, 14))) for _ in range(number)]
        self.vectors = embedder.encode(self.texts)

    @cache  # noqa: B019  (there is one of these)
    def requests(self, server: Server) -> list[bytes]:
        """A request for each text, made once: the callers use the same cores as the server."""
        return [server.request([text]) for text in self.texts]

    def right(self, first: int, got: Sequence[Sequence[float]]) -> bool:
        wanted = self.vectors[first : first + len(got)]
        return bool(np.abs(np.array(got, np.float32) - wanted).max() <= TOLERANCE)


async def caller(server: Server, texts: Texts, record: Record, until: float, first: int) -> None:
    """Asks for one text after another; a share of the vectors is compared."""
    rng = random.Random(first)
    connection, requests = Connection(server), texts.requests(server)
    number = first
    while time.perf_counter() < until:
        number = (number + 1) % len(requests)
        begun = time.perf_counter()
        status, body = await connection.ask(requests[number])
        record.add(status, time.perf_counter() - begun)
        record.texts += status == 200
        if status == 200 and rng.random() < CHECKED and not texts.right(number, server.vectors(body)):
            record.wrong += 1
    connection.close()


async def callers(server: Server, texts: Texts, number: int, seconds: float) -> tuple[Record, float]:
    """So many callers with one short text each; returns the record and texts per second."""
    record, begun = Record(), time.perf_counter()
    step = len(texts.texts) // number
    await asyncio.gather(*(caller(server, texts, record, begun + seconds, step * each) for each in range(number)))
    return record, record.texts / (time.perf_counter() - begun)


async def mixed(server: Server, texts: Texts, singles: int, batch: int, seconds: float) -> tuple[Record, Record]:
    """Callers with single texts beside one with long batches; returns the records of both."""
    record, long = Record(), Record()
    until = time.perf_counter() + seconds
    many = [texts.texts[number % len(texts.texts)] + f" {number}" for number in range(batch)]

    async def bulk() -> None:
        connection, request = Connection(server), server.request(many)
        while time.perf_counter() < until:
            begun = time.perf_counter()
            status, _ = await connection.ask(request)
            long.add(status, time.perf_counter() - begun)

    step = len(texts.texts) // singles
    await asyncio.gather(bulk(), *(caller(server, texts, record, until, step * each) for each in range(singles)))
    return record, long


async def overload(server: Server, texts: Texts, rate: float, seconds: float) -> Record:
    """Requests at a fixed rate, however slow the answers are; every vector is compared."""
    record = Record()
    free = [Connection(server) for _ in range(2048)]
    requests = texts.requests(server)
    tasks: set[asyncio.Task[None]] = set()

    async def one(number: int, connection: Connection) -> None:
        begun = time.perf_counter()
        try:
            status, body = await connection.ask(requests[number])
        except (OSError, Gone):
            connection.close()
            record.lost += 1
            free.append(connection)
            return
        record.add(status, time.perf_counter() - begun)
        if status == 200:
            record.texts += 1
            record.wrong += not texts.right(number, server.vectors(body))
        free.append(connection)

    begun, sent = time.perf_counter(), 0
    while (now := time.perf_counter() - begun) < seconds:
        while sent < now * rate and free:
            record.sent += 1
            task = asyncio.create_task(one(sent % len(requests), free.pop()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += 1
        sent = max(sent, int(now * rate))  # what could not even be sent is not sent later
        await asyncio.sleep(0.002)
    await asyncio.gather(*tasks)
    return record


async def soak(server: Server, texts: Texts, requests: int, seconds: float, at_once: int = 32) -> Record:
    """Requests of which some are broken and some are left by their client; the others must be right.

    Ends after so many requests or seconds, whichever comes first.
    """
    record = Record()
    rng = random.Random(3)
    left, until = requests, time.perf_counter() + seconds
    single = texts.requests(server)

    async def one() -> None:
        nonlocal left
        connection = Connection(server)
        while left > 0 and time.perf_counter() < until:
            left -= 1
            number, fate = rng.randrange(len(texts.texts)), rng.random()
            request = single[number]
            record.sent += 1
            if fate < 0.05:  # gone before the answer
                _, writer = await asyncio.open_connection(server.host, server.port)
                writer.write(request[: rng.randrange(len(request))] if fate < 0.025 else request)
                await writer.drain()
                writer.close()
                record.left += 1
                continue
            if fate < 0.1:
                request = raw(server.path, rng.choice([b"{", b'{"inputs": 1}', b'{"inputs": "\xff"}', b"[" * 5000]))
            begun = time.perf_counter()
            status, body = await connection.ask(request)
            record.add(status, time.perf_counter() - begun)
            if status == 200 and not texts.right(number, server.vectors(body)):
                record.wrong += 1
        connection.close()

    await asyncio.gather(*(one() for _ in range(at_once)))
    return record


async def idle(server: Server, texts: Texts, number: int, seconds: float) -> tuple[Record, int, int]:
    """Connections that send nothing, half a header or half a body, beside 4 callers.

    Returns the callers' record, and the server's memory in bytes and its descriptors while all are open.
    """
    half = texts.requests(server)[0]
    begun = (b"", half[:20], half[:-5])
    limit = asyncio.Semaphore(256)

    async def one(place: int) -> asyncio.StreamWriter:
        async with limit:
            _, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(begun[place % 3])
            return writer

    opened = await asyncio.gather(*(one(place) for place in range(number)))
    last = Connection(server)
    await last.ask(half)  # connections are accepted in their order, so all are there once this one is answered
    memory, descriptors = server.memory(), server.descriptors() - 1
    last.close()
    record, until = Record(), time.perf_counter() + seconds
    await asyncio.gather(*(caller(server, texts, record, until, 100 * each) for each in range(4)))
    for writer in opened:
        writer.close()
    return record, memory, descriptors
