"""Servers to load: one of our own, which is started and ended here, and others that are running already."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import orjson


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

    def cpu(self) -> float:
        """The seconds of processor time that a server of our own has used; not a number for others."""
        if self.pid is None:
            return math.nan
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """The resident memory of a server of our own, in bytes; 0 for others."""
        if self.pid is None:
            return 0
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def descriptors(self) -> int:
        """The open files of a server of our own; 0 for others."""
        return len(os.listdir(f"/proc/{self.pid}/fd")) if self.pid else 0

    def vectors(self, body: bytes) -> list[list[float]]:
        answer = orjson.loads(body)
        return [each["embedding"] for each in answer["data"]] if isinstance(answer, dict) else answer


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
