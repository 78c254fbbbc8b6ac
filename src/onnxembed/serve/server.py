"""The process around the application: sockets, signals, draining, and several processes beside each other."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import wait
from types import FrameType
from typing import Any

import numpy as np
import uvicorn

from onnxembed.execution.providers import decide
from onnxembed.serve.app import application
from onnxembed.serve.listening import Listening, bound, connections_allowed
from onnxembed.serve.metrics import PLACES, Metrics
from onnxembed.serve.protocol import DeadlineProtocol
from onnxembed.serve.scheduler import Scheduler
from onnxembed.serve.settings import Settings

LOG = logging.getLogger("onnxembed.serve")

SIGNALS = (signal.SIGTERM, signal.SIGINT)

IDLE_SECONDS = 75
"""An idle connection is kept so long: longer than load balancers keep theirs (60 s), so that no request is sent on a
connection that is just being closed."""

LAST_TICKS = 20
"""Ticks of a tenth of a second in which /health says 503 before a server that cannot compute any more ends."""


def serve(settings: Settings, listening: Listening) -> int:
    """Serve until SIGTERM; returns the exit code: 0, or 1 if it could not go on or dropped requests."""
    _log_to_stderr()
    listening.check_tls()
    with bound(listening) as sockets:
        if listening.workers == 1:
            return _serve_here(settings, listening, sockets, Metrics())
        return _supervise(settings, listening, sockets)


def _serve_here(settings: Settings, listening: Listening, sockets: list[socket.socket], metrics: Metrics) -> int:
    made = application(settings, metrics)
    server = Server(_config(made, settings, listening), made.state.service.scheduler)
    LOG.info("Listening on %s; Ctrl-C ends it", listening.url(sockets))
    with server.capture_signals():  # before the loop runs, too: an interrupted loop prints what it cancels
        server.run(sockets=sockets)
    return server.code


def _config(made: Any, settings: Settings, listening: Listening) -> uvicorn.Config:
    return uvicorn.Config(
        made,
        loop="uvloop" if sys.platform != "win32" else "auto",
        http=DeadlineProtocol.limited(_connections(listening.max_connections)),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        root_path=settings.root_path,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=max(1, round(listening.drain)),
        ssl_certfile=listening.certificate,
        ssl_keyfile=listening.key,
    )


def _connections(wanted: int) -> int:
    allowed = connections_allowed(wanted)
    if allowed < wanted:
        LOG.info("At most %d connections at a time, for the system allows no more open files", allowed)
    return allowed


class Server(uvicorn.Server):
    """uvicorn's server, which ends with a code instead of a signal, and when nothing can be computed any more."""

    def __init__(self, config: uvicorn.Config, scheduler: Scheduler | None) -> None:
        super().__init__(config)
        self.code = 0
        self._scheduler = scheduler
        self._ticks_left = LAST_TICKS

    async def on_tick(self, counter: int) -> bool:
        """Whether to end."""
        if self._scheduler and self._scheduler.failed:
            self.code = 1
            self._ticks_left -= 1
            self.should_exit = self.should_exit or not self._ticks_left
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what has begun."""
        await super().shutdown(sockets)
        if self.server_state.tasks:  # those that did not end in time
            self.code = 1

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """End on SIGTERM and Ctrl-C, without raising the signal again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _supervise(settings: Settings, listening: Listening, sockets: list[socket.socket]) -> int:
    """Serve with several processes on the same sockets; when one of them dies, all end, so that the supervisor acts."""
    placement = settings.options.placement
    threads = max(1, decide(placement).threads // listening.workers)
    options = replace(settings.options, placement=replace(placement, threads=threads))
    context = multiprocessing.get_context("spawn")
    counts = context.RawArray("d", listening.workers * PLACES)
    shared = (replace(settings, options=options), listening, sockets, counts)
    workers = [context.Process(target=_worker, args=(*shared, number)) for number in range(listening.workers)]
    asked_to_end = False

    def end(*_: int | FrameType | None) -> None:
        nonlocal asked_to_end
        asked_to_end = True
        for worker in workers:
            if worker.pid:
                worker.terminate()

    before = {number: signal.signal(number, end) for number in SIGNALS}
    for worker in workers:
        worker.start()
    wait([worker.sentinel for worker in workers])
    died = not asked_to_end
    end()
    for worker in workers:
        worker.join(listening.drain + 5)
    for number, handler in before.items():
        signal.signal(number, handler)
    ended = (0, -signal.SIGTERM)  # the latter while it was still opening its models
    return 1 if died or any(worker.exitcode not in ended for worker in workers) else 0


def _worker(settings: Settings, listening: Listening, sockets: list[socket.socket], counts: Any, number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent passes it on
    _log_to_stderr()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    metrics = Metrics(np.frombuffer(counts).reshape(listening.workers, PLACES), number)
    sys.exit(_serve_here(settings, listening, sockets, metrics))


def _end_with_parent() -> None:
    """End as on SIGTERM when the supervising process is gone; a worker that is left alone would keep the port."""
    parent = multiprocessing.parent_process()
    assert parent
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for name in ("onnxembed.serve", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)
