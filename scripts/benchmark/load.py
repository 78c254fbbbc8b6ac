"""Load on a server over loopback: many callers, mixed load, one caller, overload, and a soak with broken requests.

The server is started here, on a free port of 127.0.0.1, and ended here. Every vector is compared with the library's.
Other servers that are running already are measured in alternation: --peer NAME=URL, a route that takes the requests of
/embed, or OpenAI's if the URL ends in /v1/embeddings.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

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


@dataclass(frozen=True)
class Server:
    """A server to load."""

    name: str
    host: str
    port: int
    path: str
    pid: int | None = None

    def request(self, texts: Sequence[str]) -> bytes:
        key = "input" if self.path.endswith("/v1/embeddings") else "inputs"
        body: dict[str, object] = {key: list(texts)}
        if key == "input":
            body["model"] = "default"
        return raw(self.path, json.dumps(body).encode())

    def vectors(self, body: bytes) -> list[list[float]]:
        answer = json.loads(body)
        return [each["embedding"] for each in answer["data"]] if isinstance(answer, dict) else answer


@dataclass
class Record:
    """What callers saw."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    wrong: int = 0
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

    def right(self, first: int, got: Sequence[Sequence[float]]) -> bool:
        wanted = self.vectors[first : first + len(got)]
        return bool(np.abs(np.array(got, np.float32) - wanted).max() <= TOLERANCE)


def raw(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@contextmanager
def started(model: Path, threads: int, *options: str) -> Iterator[tuple[Server, float]]:
    """A server of our own, and the seconds until it was ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "onnxembed", "serve", str(model), "--port", str(port), "--threads", str(threads)]
    begun = time.perf_counter()
    process = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and time.perf_counter() - begun < 120:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                time.sleep(0.05)
        yield Server("onnxembed", "127.0.0.1", port, "/embed", process.pid), time.perf_counter() - begun
    finally:
        process.terminate()
        process.wait(60)


def peer(argument: str) -> Server:
    name, _, url = argument.partition("=")
    parts = urlsplit(url)
    assert parts.hostname in ("127.0.0.1", "localhost"), "loopback only"
    return Server(name, parts.hostname, parts.port or 80, parts.path or "/")


class Connection:
    """One HTTP connection, as cheap as can be: the client must not be what is measured."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        if self.streams is None:
            self.streams = await asyncio.open_connection(self.server.host, self.server.port, limit=2**26)
        reader, writer = self.streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        if b"connection: close" in head:
            self.close()
        return int(head[9:12]), body

    def close(self) -> None:
        if self.streams:
            self.streams[1].close()
            self.streams = None


async def caller(server: Server, texts: Texts, record: Record, until: float, first: int) -> None:
    """Asks for one text after another; a share of the vectors is compared."""
    rng = random.Random(first)
    connection = Connection(server)
    requests = [server.request([text]) for text in texts.texts]
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
    requests = [server.request([text]) for text in texts.texts]
    tasks: set[asyncio.Task[None]] = set()

    async def one(number: int) -> None:
        connection = free.pop()
        begun = time.perf_counter()
        try:
            status, body = await connection.ask(requests[number])
        except (OSError, asyncio.IncompleteReadError):
            connection.close()
            status, body = 0, b""
        record.add(status, time.perf_counter() - begun)
        if status == 200:
            record.texts += 1
            record.wrong += not texts.right(number, server.vectors(body))
        free.append(connection)

    begun, sent = time.perf_counter(), 0
    while (now := time.perf_counter() - begun) < seconds:
        while sent < now * rate and free:
            task = asyncio.create_task(one(sent % len(requests)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += 1
        sent = max(sent, int(now * rate))  # what could not even be sent is not sent later
        await asyncio.sleep(0.002)
    await asyncio.gather(*tasks)
    return record


async def soak(server: Server, texts: Texts, requests: int, at_once: int = 32) -> Record:
    """Requests of which some are broken and some are left by their client; the others must be right."""
    record = Record()
    rng = random.Random(3)
    left = requests

    async def one() -> None:
        nonlocal left
        connection = Connection(server)
        while left > 0:
            left -= 1
            number, fate = rng.randrange(len(texts.texts)), rng.random()
            request = server.request([texts.texts[number]])
            if fate < 0.05:  # gone before the answer
                _, writer = await asyncio.open_connection(server.host, server.port)
                writer.write(request[: rng.randrange(len(request))] if fate < 0.025 else request)
                await writer.drain()
                writer.close()
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


def resident(server: Server) -> str:
    """The memory and the descriptors of a server of our own."""
    if server.pid is None:
        return ""
    status = Path(f"/proc/{server.pid}/status").read_text(encoding="utf-8")
    kilobytes = int(status.partition("VmRSS:")[2].split()[0])
    return f"{kilobytes / 1024:.0f} MB, {len(os.listdir(f'/proc/{server.pid}/fd'))} descriptors"


def library_rate(embedder: OnnxEmbedder, texts: Texts) -> float:
    begun = time.perf_counter()
    embedder.encode(texts.texts)
    return len(texts.texts) / (time.perf_counter() - begun)


def library_single(embedder: OnnxEmbedder, texts: Texts) -> float:
    """The median of one text in milliseconds."""
    seconds = []
    for text in texts.texts[:300]:
        begun = time.perf_counter()
        embedder.encode(text)
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds)) * 1000


@dataclass
class Session:
    """Everything that the scenarios share."""

    embedder: OnnxEmbedder
    texts: Texts
    own: Server
    servers: Sequence[Server]
    options: argparse.Namespace
    capacity: float = 0.0
    """The most texts per second of our own server that were seen."""


def show_callers(session: Session) -> None:
    texts, options = session.texts, session.options
    for _ in range(options.rounds):
        before = library_rate(session.embedder, texts)
        for server in session.servers:
            record, rate = asyncio.run(callers(server, texts, options.callers, options.seconds))
            after = library_rate(session.embedder, texts)
            library, before = (before + after) / 2, after
            if server is session.own:
                session.capacity = max(session.capacity, rate)
            print(
                f"{options.callers} callers  {server.name:<20} {rate:7.0f} texts/s = {rate / library:.0%} of "
                f"encode ({library:.0f}); p50 {record.percentile(50):.1f} ms, p99 {record.percentile(99):.1f} ms; "
                f"wrong {record.wrong}; {record.statuses}"
            )


def show_one(session: Session) -> None:
    for _ in range(session.options.rounds):
        library = library_single(session.embedder, session.texts)
        for server in session.servers:
            record, _ = asyncio.run(callers(server, session.texts, 1, session.options.seconds))
            median = record.percentile(50)
            print(
                f"one caller  {server.name:<20} p50 {median:.2f} ms, library {library:.2f} ms, "
                f"overhead {median - library:.2f} ms"
            )


def show_mixed(session: Session) -> None:
    texts, options = session.texts, session.options
    for server in session.servers:
        alone, _ = asyncio.run(callers(server, texts, 32, options.seconds))
        beside, long = asyncio.run(mixed(server, texts, 32, options.batch, options.seconds * 2))
        print(
            f"mixed  {server.name:<20} p99 of singles {alone.percentile(99):.1f} ms alone, "
            f"{beside.percentile(99):.1f} ms beside batches of {options.batch} = "
            f"{beside.percentile(99) / alone.percentile(99):.1f} x; {len(long.seconds)} batches; "
            f"wrong {beside.wrong}; {beside.statuses}"
        )


def show_overload(session: Session) -> None:
    own, seconds = session.own, session.options.seconds * 2
    if not session.capacity:
        session.capacity = asyncio.run(callers(own, session.texts, session.options.callers, seconds))[1]
    before = resident(own)
    begun = time.perf_counter()
    record = asyncio.run(overload(own, session.texts, 5 * session.capacity, seconds))
    goodput = record.texts / (time.perf_counter() - begun)
    print(
        f"overload  5 x {session.capacity:.0f} requests/s: goodput {goodput:.0f} texts/s = "
        f"{goodput / session.capacity:.0%} of capacity; p99 {record.percentile(99):.0f} ms; wrong {record.wrong}; "
        f"{record.statuses}; {before} -> {resident(own)}"
    )


def show_soak(session: Session) -> None:
    before = resident(session.own)
    record = asyncio.run(soak(session.own, session.texts, session.options.requests))
    print(
        f"soak  {session.options.requests} requests: wrong {record.wrong}; {record.statuses}; "
        f"{before} -> {resident(session.own)}"
    )


SCENARIOS = {
    "callers": show_callers,
    "one": show_one,
    "mixed": show_mixed,
    "overload": show_overload,
    "soak": show_soak,
}


def measure(options: argparse.Namespace) -> None:
    embedder = OnnxEmbedder(options.model, threads=options.threads)
    texts = Texts(embedder)
    library_single(embedder, texts)  # opens the session for single texts
    with started(options.model, options.threads) as (own, ready):
        print(f"ready after {ready:.1f} s, {resident(own)}")
        session = Session(embedder, texts, own, [own, *map(peer, options.peer)], options)
        for server in session.servers:
            asyncio.run(callers(server, texts, 8, 1.0))
        for name in options.scenario or SCENARIOS:
            SCENARIOS[name](session)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only this one; may be repeated")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=URL", help="another server; may be repeated"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--batch", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=20_000, help="of the soak")
    options = parser.parse_args()
    measure(options)


if __name__ == "__main__":
    main()
