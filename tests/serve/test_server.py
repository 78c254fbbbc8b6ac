"""The process: it answers, ends on SIGTERM with 0, and closes connections that send nothing."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msgspec", reason="pip install 'onnxembed[serve]'")

from running import command
from serving import on_a_thread


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


def wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            assert ask(port, "/health")[0] == 200
            return
        except OSError:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)


@contextmanager
def served(model: Path, *options: object) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    process = subprocess.Popen(command("serve", model, "--port", port, *options), stderr=subprocess.PIPE)
    try:
        wait_until_it_answers(process, port)
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


def test_any_worker_tells_what_all_of_them_counted(artifact: Path) -> None:
    with served(artifact, "--threads", 2, "--workers", 2) as (_, port):
        counts = {}
        for _ in range(40):  # each on a new connection, which either of them may accept
            assert ask(port, "/embed", {"inputs": ["the cat"]})[0] == 200
        for _ in range(20):
            text = ask(port, "/metrics")[1].decode()
            numbers = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
            counts[numbers['te_request_count{method="POST"}'], numbers["te_request_duration_count"]] = numbers
        assert {*counts} == {("40.0", "40.0")}
        assert 0 < float(numbers["te_batch_next_size_count"]) <= 40


def test_workers_end_when_the_process_above_them_is_killed(artifact: Path) -> None:
    with served(artifact, "--threads", 2, "--workers", 2) as (process, port):
        process.kill()
        process.communicate(timeout=60)  # they hold its stderr until they end
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)


def test_a_server_that_cannot_compute_any_more_says_so_and_ends_with_1(artifact: Path) -> None:
    with on_a_thread(str(artifact)) as (server, port):
        server.config.app.state.service.scheduler.failed = RuntimeError("a worker died")
        with pytest.raises(urllib.error.HTTPError, match="503"):
            ask(port, "/health")
        deadline = time.monotonic() + 20
        while not server.should_exit and time.monotonic() < deadline:
            time.sleep(0.1)
        assert (server.should_exit, server.code) == (True, 1)


def test_the_texts_of_a_client_that_has_gone_are_dropped(artifact: Path) -> None:
    with on_a_thread(str(artifact)) as (server, port):
        scheduler = server.config.app.state.service.scheduler
        body = json.dumps({"inputs": [f"the cat {number}" for number in range(30_000)]}).encode()
        head = (
            f"POST /embed HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", port), 30) as gone:
            gone.sendall(head.encode() + body)
            while not scheduler.texts:
                time.sleep(0.01)
        deadline = time.monotonic() + 20
        while scheduler.texts and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (scheduler.texts, scheduler.tokens, scheduler.failed) == (0, 0, None)
        assert b'te_request_failure{err="dropped"} 1.0' in ask(port, "/metrics")[1]


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


def test_a_client_that_goes_before_its_body_is_there_leaves_no_traceback(artifact: Path) -> None:
    with served(artifact) as (process, port):
        with socket.create_connection(("127.0.0.1", port), 30) as gone:
            gone.sendall(
                b"POST /embed HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n"
            )
            time.sleep(0.2)
        deadline = time.monotonic() + 20
        while b'te_request_failure{err="dropped"} 1.0' not in ask(port, "/metrics")[1]:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGTERM)
        assert b"Traceback" not in process.communicate(timeout=30)[1]


def test_a_refused_request_keeps_its_connection_unless_its_body_is_long(artifact: Path) -> None:
    with served(artifact, "--api-key", "k") as (_, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        body, kind = b'{"inputs": "a"}', {"content-type": "application/json", "authorization": "Bearer k"}
        connection.request("POST", "/embed", body, {"content-type": "application/json"})
        refused = connection.getresponse()
        assert (refused.status, refused.getheader("connection"), len(refused.read()) > 9) == (401, None, True)
        connection.request("POST", "/embed", body, kind | {"content-type": "text/plain"})
        assert (connection.getresponse().read(), connection.sock is not None)[1]
        connection.request("POST", "/embed", body, kind)
        answer = connection.getresponse()
        assert (answer.status, len(json.load(answer))) == (200, 1)
        connection.request("POST", "/embed", b" " * 70_000, {"content-type": "application/json"})
        refused = connection.getresponse()
        assert (refused.status, refused.getheader("connection")) == (401, "close")


def test_a_connection_is_kept_longer_than_clients_keep_idle_ones(artifact: Path) -> None:
    """Pools of HTTP clients keep them for 5 seconds: the side that closes first must be theirs."""
    kind = {"content-type": "application/json"}
    with served(artifact) as (_, port), closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as client:
        client.request("POST", "/embed", b'{"inputs": "the cat"}', kind)
        answer, socket_of_first = client.getresponse().read(), client.sock
        time.sleep(6)
        client.request("POST", "/embed", b'{"inputs": "the cat"}', kind)
        assert (client.getresponse().read(), client.sock) == (answer, socket_of_first)


def test_hundreds_of_idle_and_slow_connections_are_bounded_and_others_are_served(artifact: Path) -> None:
    slow = b"POST /embed HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 900\r\n"
    begun = [b"", slow[:40], slow + b"\r\n{"]  # nothing, half a header, a body that does not come
    with served(artifact, "--max-connections", 301, "--max-requests", 2) as (_, port):
        place = ("127.0.0.1", port)
        with ExitStack() as stack:
            for number in range(300):
                stack.enter_context(socket.create_connection(place, 30)).sendall(begun[number % 3])
            assert ask(port, "/embed", {"inputs": ["the cat"]})[0] == 200
            stack.enter_context(socket.create_connection(place, 30))
            with pytest.raises(urllib.error.HTTPError, match="503") as refused:
                ask(port, "/embed", {"inputs": ["the cat"]})
            assert json.load(refused.value)["error"].startswith("too many connections")
        assert ask(port, "/embed", {"inputs": ["the cat"]})[0] == 200


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_where_descriptors_are_few_the_server_says_how_many_connections_it_takes(artifact: Path) -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (150, 150))"
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"{code}; from onnxembed.cli import main; main()",
            "serve",
            artifact,
            "--port",
            str(port),
        ],
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr
        first = next(line for line in process.stderr if b"connections" in line)
        assert first == b"At most 22 connections at a time, for the system allows no more open files\n"
        wait_until_it_answers(process, port)
        with ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            with pytest.raises(urllib.error.HTTPError, match="503"):
                ask(port, "/health")
        time.sleep(1.5)
        assert ask(port, "/health")[0] == 200
    finally:
        process.kill()
        process.communicate()
