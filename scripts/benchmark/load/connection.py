"""One HTTP connection, as cheap as can be: the callers must not be what is measured."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from benchmark.load.server import Server

Result = TypeVar("Result")

IDLE_SECONDS = 60
"""A connection that was not used for so long is closed, as load balancers do; the server would close it soon."""


def run(scenario: Coroutine[Any, Any, Result]) -> Result:
    """What the scenario returns."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(scenario)


class Gone(Exception):  # noqa: N818  (the server may do that)
    """The server closed the connection before its answer was complete."""


class Connection(asyncio.Protocol):
    """Asks one request after another; connects when it has to. No StreamReader: that would cost as much again."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._pieces: list[bytes] = []
        self._missing = 0  # bytes of the body; 0 before the header is complete
        self._status = 0
        self._used = 0.0

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """The status and the body of the answer; Gone if the server closes the connection before that."""
        loop = asyncio.get_running_loop()
        if self._transport and loop.time() - self._used > IDLE_SECONDS:
            self._transport.close()
            while self._transport:  # connection_lost forgets it
                await asyncio.sleep(0)
        if self._transport is None or self._transport.is_closing():
            self._transport, _ = await loop.create_connection(lambda: self, self._server.host, self._server.port)
        self._answer = loop.create_future()
        self._transport.write(request)
        self._used = loop.time()
        return await self._answer

    def close(self) -> None:
        """Close the connection."""
        if self._transport:
            self._transport.close()
            self._transport = None

    def data_received(self, data: bytes) -> None:
        """Collect the answer; a header is taken to come with what was collected before it."""
        self._pieces.append(data)
        if self._missing:
            self._missing -= len(data)
        else:
            head, end, body = b"".join(self._pieces).partition(b"\r\n\r\n")
            if not end:
                return
            self._status = int(head[9:12])
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            self._pieces, self._missing = [body], length - len(body)
        if not self._missing:
            body, self._pieces = b"".join(self._pieces), []
            if self._answer and not self._answer.done():
                self._answer.set_result((self._status, body))

    def connection_lost(self, error: Exception | None) -> None:
        """Tell who waits for an answer."""
        self._transport, self._pieces, self._missing = None, [], 0
        if self._answer and not self._answer.done():
            self._answer.set_exception(Gone())
