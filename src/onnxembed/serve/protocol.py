"""HTTP with deadlines: a connection that sends no request, or reads no answer, does not stay."""

from __future__ import annotations

from asyncio import BaseTransport, TimerHandle

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_SECONDS = 10.0
"""A request's header has to arrive within this time."""

HEADER_BYTES = 65_536
"""The most bytes that come before a header is complete."""

READING_SECONDS = 30.0
"""A client has to read the rest of its answer within this time, after the connection would have been idle."""


class DeadlineProtocol(HttpToolsProtocol):
    """uvicorn's HTTP, which has a deadline for idle connections only, with those for headers and answers."""

    _timer: TimerHandle | None = None
    _header_bytes = 0

    def connection_made(self, transport: BaseTransport) -> None:
        """A connection has HEADER_SECONDS for its first header."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._arm()

    def data_received(self, data: bytes) -> None:
        """Read on, unless a header is too large."""
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
