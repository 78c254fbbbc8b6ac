"""The process: it answers, ends on SIGTERM with 0, and closes connections that send nothing."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msgspec", reason="pip install 'onnxembed[serve]'")

from running import command


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, path: str, body: Any = None) -> tuple[int, bytes]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"content-type": "application/json"} if data else {}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status, answer.read()


@contextmanager
def served(model: Path, *options: object) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    process = subprocess.Popen(command("serve", model, "--port", port, *options), stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                assert ask(port, "/health")[0] == 200
                break
            except OSError:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield process, port
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("options", [(), ("--workers", 2)])
def test_it_answers_and_ends_on_sigterm_with_0(artifact: Path, options: tuple[object, ...]) -> None:
    with served(artifact, "--threads", 2, *options) as (process, port):
        assert ask(port, "/embed", {"inputs": ["the cat"]})[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_connection_without_a_whole_header_is_closed(artifact: Path) -> None:
    with served(artifact) as (_, port):
        with socket.create_connection(("127.0.0.1", port), 30) as slow:
            slow.sendall(b"POST /embed HTTP/1.1\r\nhost: a\r\n")
            started = time.monotonic()
            assert slow.recv(100) == b""
            assert 5 < time.monotonic() - started < 20
        with socket.create_connection(("127.0.0.1", port), 30) as large:
            large.sendall(b"POST /embed HTTP/1.1\r\nx: " + b"a" * 70_000)
            assert b"400" in large.recv(100)
        with socket.create_connection(("127.0.0.1", port), 30) as broken:
            broken.sendall(b"\x00\x01nonsense\r\n\r\n")
            assert b"400" in broken.recv(100)
        assert ask(port, "/health")[0] == 200
