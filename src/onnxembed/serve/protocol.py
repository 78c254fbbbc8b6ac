"""HTTP with limits: connections that send no request, or read no answer, are closed, and their number is limited."""

from __future__ import annotations

from asyncio import BaseTransport, TimerHandle
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_SECONDS = 10.0
"""A request's header has to arrive within this time."""

HEADER_BYTES = 65_536
"""The most bytes that come before a header is complete."""

READING_SECONDS = 30.0
"""A client has to read the rest of its answer within this time, after the connection would have been idle."""

FAREWELL_SECONDS = 1.0
"""Seconds that a connection beyond the limit has to read why it is refused."""

TOO_MANY = b'{"error":"too many connections; see --max-connections","error_type":"Overloaded"}'

REFUSED = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(TOO_MANY), TOO_MANY)
)


class DeadlineProtocol(HttpToolsProtocol):
    """uvicorn's HTTP, which has a deadline for idle connections only, with those for headers and answers."""

    max_connections: ClassVar[int]
    """More are refused."""

    _timer: TimerHandle | None = None
    _header_bytes = 0
    _refused = False

    @classmethod
    def limited(cls, max_connections: int) -> type[DeadlineProtocol]:
        """The protocol, which refuses connections beyond this limit."""
        return type(cls.__name__, (cls,), {"max_connections": max_connections})

    def connection_made(self, transport: BaseTransport) -> None:
        """A connection has HEADER_SECONDS for its first header; one beyond the limit is refused."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > self.max_connections:
            self.connections.discard(self)
            self._refused = True
            self.transport.write(REFUSED)
            self.loop.call_later(FAREWELL_SECONDS, self.transport.close)  # earlier, what it sends would undo the answer
        else:
            self._arm()

    def data_received(self, data: bytes) -> None:
        """Read on, unless a header is too large."""
        if self._refused:
            return
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._arm()
        if self._timer is not None:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._timer is not None and self._header_bytes > HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response("The header of the request is too large.")

    def on_headers_complete(self) -> None:
        """The header is there; what follows has the deadline of bodies."""
        self._disarm()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._disarm()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; if its client is still reading, give it READING_SECONDS more."""
        super().timeout_keep_alive_handler()
        if self.transport.get_write_buffer_size():
            self.loop.call_later(READING_SECONDS, self.transport.abort)

    def _arm(self) -> None:
        self._header_bytes = 0
        self._timer = self.loop.call_later(HEADER_SECONDS, self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        self.transport.close()
