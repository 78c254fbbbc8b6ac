"""Where a server listens: a UNIX socket, and TLS."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("msgspec", reason="pip install 'onnxembed[serve]'")

from running import command

Connect = Callable[[], http.client.HTTPConnection]


@contextmanager
def served(connect: Connect, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """A server that answers on the connections that are made."""
    process = subprocess.Popen(command("serve", *arguments), stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while status(connect, "GET", "/health") != 200:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.communicate()


def status(connect: Connect, method: str, path: str, body: str | None = None) -> int | None:
    """The status of an answer; None if there is none."""
    connection = connect()
    try:
        connection.request(method, path, body, {"content-type": "application/json"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


EMBED = ("POST", "/embed", json.dumps({"inputs": "the cat"}))


class UnixConnection(http.client.HTTPConnection):
    """A connection to a UNIX socket, whose path is the host."""

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_unix_socket_is_served_and_removed(artifact: Path, tmp_path: Path, workers: int) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as killed:  # a server that was killed has left its socket behind
        killed.bind(str(path))
    with served(lambda: UnixConnection(str(path)), artifact, "--uds", path, "--workers", workers) as process:
        assert stat.S_IMODE(path.stat().st_mode) == 0o666  # for a proxy of another user
        refused(artifact, "--uds", path, named="another server")
        assert status(lambda: UnixConnection(str(path)), *EMBED) == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not path.exists()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls_is_served_with_a_certificate(artifact: Path, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-keyout", str(key), "-out"]
    subprocess.run([*made, str(certificate), *subject], check=True, capture_output=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    trusted = ssl.create_default_context(cafile=str(certificate))

    def connect() -> http.client.HTTPConnection:
        return http.client.HTTPSConnection("localhost", port, timeout=30, context=trusted)

    options = ("--port", port, "--ssl-certfile", certificate, "--ssl-keyfile", key)
    with served(connect, artifact, *options):
        assert status(connect, *EMBED) == 200
        assert status(lambda: http.client.HTTPConnection("localhost", port, timeout=30), "GET", "/health") is None


@pytest.mark.parametrize(
    ("content", "named"),
    [(None, "cert.pem: No such file"), ("none", "cert.pem and .*key.pem are no certificate in PEM")],
)
def test_a_file_that_is_no_certificate_is_named(
    artifact: Path, tmp_path: Path, content: str | None, named: str
) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    if content is not None:
        certificate.write_text(content, encoding="utf-8")
        key.write_text(content, encoding="utf-8")
    refused(artifact, "--ssl-certfile", certificate, "--ssl-keyfile", key, named=named)


def test_a_port_that_is_taken_and_a_file_in_the_place_of_a_socket_are_named(artifact: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused(artifact, "--port", taken.getsockname()[1], named=str(taken.getsockname()[1]))
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    refused(artifact, "--uds", tmp_path / "file", named="file")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def refused(*arguments: object, named: str) -> None:
    """The server refuses with exit code 2 and one sentence that names the cause."""
    done = subprocess.run(command("serve", *arguments), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert re.search(named, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
