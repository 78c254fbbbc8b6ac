"""Load on a server over loopback: many callers, mixed load, one caller, overload, and a soak with broken requests.

The server is started here, on a free port of 127.0.0.1, and ended here. Every vector is compared with the library's.
Other servers that are running already are measured in alternation: --peer NAME=URL, a route that takes the requests of
/embed, or OpenAI's if the URL ends in /v1/embeddings.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.load.callers import Texts, callers, mixed, overload, soak
from benchmark.load.server import Server, peer, resident, started
from onnxembed import OnnxEmbedder


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
