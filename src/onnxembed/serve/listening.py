"""Where the server listens: sockets that are bound before models are opened, and the files of TLS."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from onnxembed.errors import UsageError

CONNECTIONS = 16_384
"""The most connections at a time, of each process; an idle one takes about ten kilobytes, and some seconds at most."""

RESERVED = 128
"""Descriptors that are not for connections: files, sockets that listen, and connections that are being refused."""

SOCKET_MODE = 0o666
"""A proxy in front of a UNIX socket runs as another user; the socket's folder decides who may enter."""


@dataclass(frozen=True)
class Listening:
    """Where the server listens, and how it ends."""

    host: str = "127.0.0.1"
    port: int = 8080
    uds: Path | None = None
    """A UNIX socket, instead of host and port."""
    certificate: Path | None = None
    key: Path | None = None
    """The certificate and the key of TLS."""
    drain: float = 30.0
    """Seconds that requests have to end after SIGTERM."""
    workers: int = 1
    """Processes; the threads are shared among them."""
    max_connections: int = CONNECTIONS
    """Connections at a time, of each process; fewer where the system has fewer descriptors."""

    def check_tls(self) -> None:
        """Raise UsageError for files that are no certificate with its key."""
        if self.certificate is None:
            return
        for file in (self.certificate, self.key):
            if file is not None and not file.is_file():
                raise UsageError(f"{file}: No such file")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
        except OSError as error:  # ssl.SSLError is one
            reason = f"{self.certificate} and {self.key} are no certificate in PEM with its key: {error}"
            raise UsageError(reason) from None

    def url(self, sockets: list[socket.socket]) -> str:
        """The address to tell people; `sockets` know the port that the system chose for port 0."""
        if self.uds:
            return f"the socket {self.uds}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.certificate else 'http'}://{host}:{sockets[0].getsockname()[1]}"


def connections_allowed(wanted: int) -> int:
    """How many connections this process can have, after raising its limit of descriptors as far as that may be.

    Raises UsageError where there are no descriptors for any.
    """
    if sys.platform == "win32":  # it has no such limit
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(ValueError, OSError):  # macOS allows fewer than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    allowed = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft - RESERVED)
    if allowed < 1:
        raise UsageError(f"the system allows {soft} open files; the server needs at least {RESERVED + 1} (ulimit -n)")
    return allowed


@contextmanager
def bound(listening: Listening) -> Iterator[list[socket.socket]]:
    """Sockets that are bound but do not listen yet, one for each address of the host; closed at the end.

    Raises UsageError for a place that is taken or that does not exist.
    """
    place = str(listening.uds) if listening.uds else f"{listening.host}:{listening.port}"
    with ExitStack() as stack:
        try:
            sockets = [_unix(listening.uds)] if listening.uds else _internet(listening.host, listening.port)
        except (OSError, OverflowError) as error:  # the latter: a path of more than 100 characters
            raise UsageError(f"cannot listen on {place}: {getattr(error, 'strerror', None) or error}") from None
        if listening.uds:
            stack.callback(listening.uds.unlink, missing_ok=True)
        for each in sockets:
            stack.callback(each.close)
        yield sockets


def _internet(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of the host, all on one port."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            each = socket.socket(family, kind, protocol)
            sockets.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            each.bind((address[0], port, *address[2:]))
            port = port or each.getsockname()[1]
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets


def _unix(path: Path) -> socket.socket:
    """A UNIX socket; one that a killed server left behind is replaced, anything else is not."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise FileExistsError(None, "there is a file that is no socket")
        with socket.socket(socket.AF_UNIX) as other:
            if other.connect_ex(str(path)) == 0:
                raise FileExistsError(None, "another server listens there")
        path.unlink()
    each = socket.socket(socket.AF_UNIX)
    try:
        each.bind(str(path))
        os.chmod(path, SOCKET_MODE)
    except OSError:
        each.close()
        raise
    return each
