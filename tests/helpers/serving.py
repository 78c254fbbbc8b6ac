"""A server in the tests' own process, on a thread and a port of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def on_a_thread(*models: str) -> Iterator[tuple[Any, int]]:
    """The server of these models, and its port."""
    import uvicorn

    from onnxembed.serve import app
    from onnxembed.serve.server import Server

    application = app(*models)
    server = Server(uvicorn.Config(application, port=0, log_config=None), application.state.service.scheduler)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield server, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
