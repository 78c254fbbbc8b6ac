"""What may be in the server at a time: requests that are whole, and bytes of bodies that are still arriving.

Clients that send slowly hold bytes, and not the places of others' requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import Receive

from onnxembed.serve.errors import Refusal
from onnxembed.serve.settings import Settings

BODIES_AT_ONCE = 8
"""The limit on the bytes of all bodies that are arriving, as a multiple of the largest body that is allowed."""


class ClientGone(Exception):  # noqa: N818  (nobody's fault)
    """The client has closed its connection before its request was complete."""


class Admission:
    """Counts what is in the server, for one event loop.

    Args:
        settings: the limits.
        retry_after: in how many seconds a request that is refused may be tried again.
    """

    def __init__(self, settings: Settings, retry_after: Callable[[], int]) -> None:
        self._settings, self._retry_after = settings, retry_after
        self._requests = self._bytes = 0

    def check(self) -> None:
        """Raise Refusal (429) if no more requests may enter."""
        if self._requests >= self._settings.limits.requests:
            raise self._overloaded()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Have a place for a whole request; Refusal (429) if there is none."""
        self.check()
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    async def body(self, receive: Receive) -> bytes:
        """The body of a request; Refusal for one that is too long, too slow (408) or too many, or ClientGone."""
        seconds = self._settings.body_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._body(receive)
        except TimeoutError:
            raise Refusal("timeout", f"the body did not arrive within {seconds:g} s") from None

    async def _body(self, receive: Receive) -> bytes:
        limit = self._settings.payload_limit
        pieces, size = [], 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                piece = message.get("body", b"")
                size += len(piece)
                self._bytes += len(piece)
                if size > limit:
                    raise too_large(limit)
                if self._bytes > BODIES_AT_ONCE * limit:
                    raise self._overloaded()
                pieces.append(piece)
                if not message.get("more_body", False):
                    return b"".join(pieces)
        finally:
            self._bytes -= size

    def _overloaded(self) -> Refusal:
        return Refusal("overloaded", "Model is overloaded", retry_after=self._retry_after())


def too_large(limit: int) -> Refusal:
    """The refusal of a body of more bytes."""
    return Refusal("too_large", f"the body is larger than {limit} bytes, the limit of this server (--payload-limit)")
