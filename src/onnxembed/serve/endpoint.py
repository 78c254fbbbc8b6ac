"""What every route does with a request: read its body, decode it, have it computed, and write the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec
import orjson
from starlette.types import Receive, Scope, Send

from onnxembed.errors import UsageError
from onnxembed.execution.providers import CPU, OPENVINO
from onnxembed.runtime.streaming import Computation
from onnxembed.serve.admission import Admission, ClientGone, too_large
from onnxembed.serve.errors import Family, Kind, Refusal
from onnxembed.serve.metrics import Metrics
from onnxembed.serve.model import Cut, Item, ServedModel
from onnxembed.serve.models import Models
from onnxembed.serve.scheduler import Scheduler
from onnxembed.serve.settings import MAX_CHARACTERS, Settings

ROWS_AT_ONCE = 64
"""Rows of an answer that are written before other requests have their turn: about half a millisecond of numbers."""

UNREAD: Collection[Kind] = ("too_large", "media_type", "unauthorized", "overloaded")
"""Refusals that do not wait for the body."""

SMALL_BODY = 65_536
"""At most this many bytes of a refused body are read and thrown away, so that its client can keep the connection."""


@dataclass(frozen=True)
class Service:
    """What all routes share."""

    settings: Settings
    models: Models
    scheduler: Scheduler
    metrics: Metrics

    @cached_property
    def admission(self) -> Admission:
        """What may be in the server at a time."""
        return Admission(self.settings, self.scheduler.retry_after)

    @cached_property
    def device(self) -> bytes:
        """What the default model runs on, as text-embeddings-inference names it."""
        return b"cpu" if self.models.find(None).opened.provider in (CPU, OPENVINO) else b"gpu"


@dataclass
class Call:
    """One request on its way."""

    service: Service
    started: float = field(default_factory=time.perf_counter)
    tokens: int = 0
    characters: int = 0
    tokenization: float = 0.0  # seconds, as the next two
    queue: float = 0.0
    inference: float = 0.0

    async def compute(
        self, model: ServedModel, computation: Computation[Any], items: Sequence[Item], cut: Cut, prompt: str = ""
    ) -> list[Any]:
        """What the computation makes of each item, in order; texts begin with the prompt."""
        sizes = [len(item) if isinstance(item, str) else sum(map(_size, item)) for item in items]
        check_characters(max(sizes))
        self.characters += sum(sizes)
        try:
            computation = model.after_prompt(computation, prompt, items, cut)
            computed = await self.service.scheduler.compute(computation, model.tokenizing(cut), items)
        except UsageError as error:
            raise Refusal("validation", str(error)) from error
        except (Refusal, asyncio.CancelledError):
            raise
        except Exception as error:
            raise Refusal("inference", f"the model could not compute this: {error}") from error
        self.service.metrics.computed(computed)
        self.tokens += computed.tokens
        self.tokenization += computed.tokenization
        self.queue += computed.queue
        self.inference += computed.inference
        return computed.results

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The times of the request in milliseconds, under the names of text-embeddings-inference."""
        total = round((time.perf_counter() - self.started) * 1000)
        return [
            (b"x-compute-type", self.service.device),
            (b"x-compute-characters", b"%d" % self.characters),
            (b"x-compute-tokens", b"%d" % self.tokens),
            (b"x-compute-time", b"%d" % total),
            (b"x-total-time", b"%d" % total),
            (b"x-tokenization-time", b"%d" % round(self.tokenization * 1000)),
            (b"x-queue-time", b"%d" % round(self.queue * 1000)),
            (b"x-inference-time", b"%d" % round(self.inference * 1000)),
        ]


Handler = Callable[[Call, Any], Awaitable[Any]]


@dataclass(frozen=True)
class Endpoint:
    """A route that takes JSON and gives JSON: its types are what /openapi.json tells of it."""

    path: str
    asked: Any
    """The type of its requests, a msgspec struct."""
    answered: Any
    """The type of its answers."""
    handle: Handler
    family: Family
    summary: str


class EndpointApp:
    """An endpoint as an ASGI application."""

    def __init__(self, endpoint: Endpoint, service: Service) -> None:
        self._endpoint, self._service = endpoint, service
        self._decoder = msgspec.json.Decoder(endpoint.asked)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        metrics, call = self._service.metrics, Call(self._service)
        metrics.begin("POST")
        watcher: asyncio.Task[None] | None = None
        try:
            try:
                asked = await self._read(scope, receive)
                current = asyncio.current_task()
                assert current
                watcher = asyncio.create_task(_watch(receive, current))
                with self._service.admission.request():
                    answer = await self._endpoint.handle(call, asked)
                    computed = time.perf_counter()
                    pieces = await write(answer)
            except Refusal as refusal:
                metrics.fail(refusal.kind)
                scope["refused"] = refusal.kind
                await refuse(scope, send, refusal, self._endpoint.family)
                return
            headers = call.headers()
            scope["spent"] = headers
            await _send(send, 200, pieces, headers)
            now = time.perf_counter()
            metrics.succeed("POST", now - call.started, now - computed)
        except (ClientGone, asyncio.CancelledError) as error:
            if not isinstance(error, ClientGone) and (watcher is None or not watcher.done()):
                raise
            metrics.fail(None)  # there is nobody to answer
            scope["refused"] = "dropped"
        finally:
            metrics.end()
            if watcher:
                watcher.cancel()

    async def _read(self, scope: Scope, receive: Receive) -> Any:
        """The decoded request; Refusal for a body that is not one."""
        self._service.admission.check()
        headers, limit = dict(scope["headers"]), self._service.settings.payload_limit
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json" and not kind.endswith(b"+json"):
            raise Refusal("media_type", "the content-type of a request must be application/json")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > limit:
            raise too_large(limit)
        return self._decode(await self._service.admission.body(receive))

    def _decode(self, body: bytes) -> Any:
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at `")
            path = path.rstrip("`") or "$"
            raise Refusal("validation", f"{message} at {path}", param=path) from None
        except RecursionError:
            raise Refusal("malformed", "the JSON is nested too deeply") from None
        except ValueError as error:  # msgspec's DecodeError is one, and so is that of UTF-8
            raise Refusal("malformed", f"the body is not JSON in UTF-8: {error}") from None


def check_characters(characters: int) -> None:
    """Raise Refusal for a text of more characters than are tokenized."""
    if characters > MAX_CHARACTERS:
        raise Refusal("validation", f"a text has {characters} characters; split it: {MAX_CHARACTERS} are the most")


async def refuse(scope: Scope, send: Send, refusal: Refusal, family: Family) -> None:
    """Send a refusal as JSON. The connection of a body that may be long, and was not read to its end, is closed."""
    headers = []
    if refusal.retry_after is not None:
        headers.append((b"retry-after", b"%d" % refusal.retry_after))
    if refusal.kind == "unauthorized":
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.kind == "timeout" or (refusal.kind in UNREAD and not _has_small_body(scope)):
        headers.append((b"connection", b"close"))
    await _send(send, refusal.status, [orjson.dumps(family(refusal))], headers)


def _has_small_body(scope: Scope) -> bool:
    length = dict(scope["headers"]).get(b"content-length", b"")
    return length.isdigit() and int(length) <= SMALL_BODY


async def write(answer: Any) -> list[bytes]:
    """The answer as JSON, in pieces; other requests have their turn between the rows of a long list."""
    if isinstance(answer, list) and len(answer) > ROWS_AT_ONCE:
        pieces = [b"["]
        for start in range(0, len(answer), ROWS_AT_ONCE):
            rows = _dump(answer[start : start + ROWS_AT_ONCE])
            pieces += [rows[1:-1], b","]
            await asyncio.sleep(0)
        return [*pieces[:-1], b"]"]
    if isinstance(answer, dict):
        pieces = [b"{"]
        for key, value in answer.items():
            pieces += [_dump(key), b":", *await write(value), b","]
        return [*pieces[:-1], b"}"] if answer else [b"{}"]
    return [_dump(answer)]


def _dump(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # NumPy's own reason, such as an array that is not contiguous
        return msgspec.json.encode(msgspec.to_builtins(value))


async def _send(send: Send, status: int, pieces: Sequence[bytes], headers: Sequence[tuple[bytes, bytes]]) -> None:
    body = b"".join(pieces)
    own = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})


async def _watch(receive: Receive, task: asyncio.Task[Any]) -> None:
    """Cancel the task when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    task.cancel()


def _size(part: str | int) -> int:
    return len(part) if isinstance(part, str) else 1
