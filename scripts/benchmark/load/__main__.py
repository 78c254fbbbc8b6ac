"""Load on a server over loopback: many callers, mixed load, one caller, overload, idle connections, a soak, and more.

The server is started here, on a free port of 127.0.0.1, and ended here. Vectors are compared with the library's.
Other servers that are running already are measured in alternation: --peer NAME=URL, a route that takes the requests of
/embed, or OpenAI's if the URL ends in /v1/embeddings. Each result is printed and, as a line of JSON, added to --output
at once, so that what was measured is not lost if something later fails. --quick takes about two minutes, --full takes
half an hour: 5 minutes of overload and up to 10 of the soak.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.load.callers import Record, Texts, callers, idle, mixed, overload, soak
from benchmark.load.connection import run
from benchmark.load.server import Server, peer, started
from onnxembed import OnnxEmbedder

MB = 2**20

SOAK_REQUESTS = 500_000
"""The soak ends after so many requests, if its time is not over before."""


@dataclass(frozen=True)
class Length:
    """How long the scenarios take, in seconds, and how often some are repeated."""

    callers: float
    rounds: int
    overload: float
    soak: float


LENGTHS = {
    "quick": Length(callers=4, rounds=1, overload=10, soak=20),
    "normal": Length(callers=10, rounds=3, overload=20, soak=60),
    "full": Length(callers=10, rounds=3, overload=300, soak=600),
}


@dataclass
class Session:
    """Everything that the scenarios share."""

    embedder: OnnxEmbedder
    texts: Texts
    own: Server
    servers: Sequence[Server]
    length: Length
    options: argparse.Namespace
    ready: float
    """Seconds until our own server was ready."""
    capacity: float = 0.0
    """The most texts per second of our own server that were seen."""

    def show(self, scenario: str, server: Server, **figures: object) -> None:
        """Print the figures of a scenario, and keep them."""
        rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}
        print(f"{scenario:<9} {server.name:<20}", ", ".join(f"{n} {v}" for n, v in rounded.items()), flush=True)
        with self.options.output.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"scenario": scenario, "server": server.name, **rounded}) + "\n")


def seen(record: Record) -> dict[str, object]:
    """What is told of every record."""
    return {
        "p50_ms": record.percentile(50),
        "p99_ms": record.percentile(99),
        "wrong": record.wrong,
        "lost": record.lost,
        "statuses": {str(status): count for status, count in sorted(record.statuses.items())},
    }


def library_rate(session: Session) -> tuple[float, float]:
    """Texts per second of `encode`, and its seconds of processor time for 1,000 texts."""
    texts = session.texts.texts
    begun, used = time.perf_counter(), time.process_time()
    session.embedder.encode(texts)
    return len(texts) / (time.perf_counter() - begun), (time.process_time() - used) / len(texts) * 1000


def library_single(embedder: OnnxEmbedder, texts: Texts) -> float:
    """The median of one text in milliseconds."""
    seconds = []
    for text in texts.texts[:300]:
        begun = time.perf_counter()
        embedder.encode(text)
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds)) * 1000


def show_start(session: Session) -> None:
    own = session.own
    session.show("start", own, ready_s=session.ready, memory_mb=own.memory() / MB, descriptors=own.descriptors())


def show_callers(session: Session) -> None:
    for _ in range(session.length.rounds):
        for server in session.servers:
            before, used, own = library_rate(session), server.cpu(), time.process_time()
            record, rate = run(callers(server, session.texts, session.options.callers, session.length.callers))
            served, client = server.cpu() - used, time.process_time() - own
            after = library_rate(session)
            library, cpu = (before[0] + after[0]) / 2, (before[1] + after[1]) / 2
            if server is session.own:
                session.capacity = max(session.capacity, rate)
            session.show(
                "callers",
                server,
                callers=session.options.callers,
                texts_per_s=rate,
                encode_texts_per_s=library,
                share_of_encode=rate / library,
                cpu_s_per_1000=served / record.texts * 1000,
                encode_cpu_s_per_1000=cpu,
                cpu_share_of_encode=cpu / (served / record.texts * 1000),
                client_cpu_s_per_1000=client / record.texts * 1000,
                **seen(record),
            )


def show_one(session: Session) -> None:
    for _ in range(session.length.rounds):
        library = library_single(session.embedder, session.texts)
        for server in session.servers:
            record, _ = run(callers(server, session.texts, 1, session.length.callers))
            median = record.percentile(50)
            session.show("one", server, library_ms=library, overhead_ms=median - library, **seen(record))


def show_mixed(session: Session) -> None:
    texts, batch = session.texts, session.options.batch
    for server in session.servers:
        alone, _ = run(callers(server, texts, 32, session.length.callers))
        beside, long = run(mixed(server, texts, 32, batch, max(30.0, session.length.callers * 3)))
        session.show(
            "mixed",
            server,
            batch=batch,
            batches=len(long.seconds),
            batch_statuses={str(status): count for status, count in long.statuses.items()},
            p99_alone_ms=alone.percentile(99),
            times_slower=beside.percentile(99) / alone.percentile(99),
            **seen(beside),
        )


def show_overload(session: Session) -> None:
    own, seconds = session.own, session.length.overload
    if not session.capacity:
        session.capacity = run(callers(own, session.texts, session.options.callers, session.length.callers))[1]
    memory, used, client, begun = own.memory(), own.cpu(), time.process_time(), time.perf_counter()
    record = run(overload(own, session.texts, 5 * session.capacity, seconds))
    took = time.perf_counter() - begun
    session.show(
        "overload",
        own,
        seconds=took,
        wanted_per_s=5 * session.capacity,
        sent_per_s=record.sent / took,
        goodput_per_s=record.texts / took,
        share_of_capacity=record.texts / took / session.capacity,
        server_cores=(own.cpu() - used) / took,
        client_cores=(time.process_time() - client) / took,
        memory_mb_before=memory / MB,
        memory_mb_after=own.memory() / MB,
        **seen(record),
    )


def show_soak(session: Session) -> None:
    own = session.own
    memory, descriptors, begun = own.memory(), own.descriptors(), time.perf_counter()
    record = run(soak(own, session.texts, SOAK_REQUESTS, session.length.soak))
    took = time.perf_counter() - begun
    time.sleep(12)  # connections that were left have their deadlines
    session.show(
        "soak",
        own,
        seconds=took,
        requests=record.sent,
        left_by_client=record.left,
        memory_mb_before=memory / MB,
        memory_mb_after=own.memory() / MB,
        descriptors_before=descriptors,
        descriptors_after=own.descriptors(),
        **seen(record),
    )


def show_idle(session: Session) -> None:
    own = session.own
    before, descriptors = own.memory(), own.descriptors()
    record, memory, opened = run(idle(own, session.texts, session.options.idle, 5.0))
    connections = opened - descriptors
    time.sleep(12)
    session.show(
        "idle",
        own,
        connections=connections,
        kb_per_connection=(memory - before) / connections / 1024,
        memory_mb_before=before / MB,
        memory_mb_open=memory / MB,
        memory_mb_after=own.memory() / MB,
        descriptors_before=descriptors,
        descriptors_after=own.descriptors(),
        **seen(record),
    )


def show_install(session: Session) -> None:
    """Install `[cpu,serve]` into an empty environment, and measure it without pip."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin/python"
        source = Path(__file__).parents[3]
        subprocess.run([python, "-m", "pip", "install", "-q", f"{source}[cpu,serve]"], check=True)
        listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], check=True, stdout=subprocess.PIPE)
        names = {each["name"] for each in json.loads(listed.stdout)} - {"pip", "setuptools"}
        (packages,) = Path(folder).glob("lib/python*/site-packages")
        for each in [*packages.glob("pip*"), *packages.glob("setuptools*"), *packages.glob("pkg_resources")]:
            shutil.rmtree(each)
        size = sum(file.stat().st_blocks * 512 for file in packages.rglob("*") if not file.is_symlink())
    session.show("install", session.own, distributions=len(names), mb=size / MB)


SCENARIOS: Mapping[str, Callable[[Session], None]] = {
    "start": show_start,
    "one": show_one,
    "callers": show_callers,
    "mixed": show_mixed,
    "idle": show_idle,
    "overload": show_overload,
    "soak": show_soak,
    "install": show_install,
}


def measure(options: argparse.Namespace) -> None:
    options.output.parent.mkdir(parents=True, exist_ok=True)
    embedder = OnnxEmbedder(options.model, threads=options.threads)
    texts = Texts(embedder)
    library_single(embedder, texts)  # opens the session for single texts
    with started(options.model, options.threads) as (own, ready):
        servers = [own, *map(peer, options.peer)]
        session = Session(embedder, texts, own, servers, LENGTHS[options.length], options, ready)
        names = options.scenario or SCENARIOS
        if "start" in names:
            show_start(session)
        for server in session.servers:
            run(callers(server, texts, 8, 1.0))
        for name in names:
            if name != "start":
                SCENARIOS[name](session)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only this one; may be repeated")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=URL", help="another server; may be repeated"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", dest="length", action="store_const", const="quick", default="normal")
    length.add_argument("--full", dest="length", action="store_const", const="full")
    parser.add_argument("--output", type=Path, default=Path("load.jsonl"), help="a line of JSON for each result")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--batch", type=int, default=10_000)
    parser.add_argument("--idle", type=int, default=10_000, help="idle connections")
    options = parser.parse_args()
    measure(options)


if __name__ == "__main__":
    main()
