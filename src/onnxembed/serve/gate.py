"""What every request passes before its route: its key, and the log."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from onnxembed.serve.endpoint import refuse
from onnxembed.serve.errors import Family, Refusal

OPEN = {"/", "/health", "/ping", "/metrics", "/.well-known/live", "/.well-known/ready"}
"""Paths that GET needs no key for."""

LOG = logging.getLogger("onnxembed.serve")


class Gate:
    """Asks for a key and logs, around an application.

    Args:
        app: the application.
        keys: the keys, one of which a request must present; none are asked for if empty.
        endpoints: what answers POST requests, by path; it needs nothing else of the application.
        families: how refusals are written on the paths of each family.
        default: how they are written on other paths.
        log: whether each request is logged.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Sequence[str],
        endpoints: Mapping[str, ASGIApp],
        families: Mapping[str, Family],
        default: Family,
        log: bool,
    ) -> None:
        self._app, self._endpoints, self._families, self._default, self._log = app, endpoints, families, default, log
        self._keys = [sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = self._logged(scope, send) if self._log else send
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if self._keys and not self._may_pass(scope, path):
            refusal = Refusal("unauthorized", "the key is missing or wrong: Authorization: Bearer KEY")
            await refuse(scope, answer, refusal, self._families.get(path, self._default))
            return
        app = self._app
        if scope["method"] == "POST":
            app = self._endpoints.get(path, app)  # the same answers, without looking for a route
        await app(scope, receive, answer)

    def _may_pass(self, scope: Scope, path: str) -> bool:
        if scope["method"] in ("GET", "HEAD", "OPTIONS") and path in OPEN:
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        # Some clients send the key alone.
        shown = sha256(given[7:].strip() if given[:7].lower() == b"bearer " else given.strip()).digest()
        matches = [hmac.compare_digest(shown, key) for key in self._keys]  # all, so that time tells nothing
        return any(matches)

    def _logged(self, scope: Scope, send: Send) -> Send:
        started = time.perf_counter()
        headers = dict(scope["headers"])
        line: dict[str, Any] = {"method": scope["method"], "path": scope["path"]}

        async def logged(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                line["status"] = message["status"]
            elif not message.get("more_body"):
                line["seconds"] = round(time.perf_counter() - started, 6)
                line.update((name.decode()[2:], value.decode()) for name, value in scope.get("spent", ()))
                if "refused" in scope:
                    line["refused"] = scope["refused"]
                if b"traceparent" in headers:
                    line["traceparent"] = headers[b"traceparent"].decode("latin-1")
                LOG.info(orjson.dumps(line).decode())

        return logged
