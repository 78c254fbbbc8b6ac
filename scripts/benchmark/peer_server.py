"""A plain FastAPI server around one of the benchmark's systems, as people write it, for `scripts/load --peer`.

    python -m benchmark.peer_server fastembed '{"folder": "traced", "pooling": "mean", ...}' --port 8101 --at-once 2
    python -m benchmark.peer_server sentence-transformers '{"checkpoint": "...", ...}' --port 8102
    scripts/load --peer fastembed=http://127.0.0.1:8101/embed --peer st=http://127.0.0.1:8102/embed

Started with the Python of the system's own environment, which needs fastapi and uvicorn. POST /embed takes
{"inputs": [...]} and gives a list of vectors.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio.to_thread
import orjson
import uvicorn
from fastapi import Body, FastAPI, Response

from benchmark.systems import SYSTEMS


def app(system: Any, at_once: int) -> Any:
    """The application; `at_once` requests are computed at a time, each on a thread of FastAPI's pool."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = at_once
        yield

    def embed(inputs: Annotated[list[str], Body(embed=True)]) -> Response:
        vectors = system.encode(inputs, None, None)
        return Response(orjson.dumps(vectors, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")

    application = FastAPI(lifespan=lifespan)
    application.post("/embed", response_model=None)(embed)
    return application


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve one of the benchmark's systems with plain FastAPI.")
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("settings", type=json.loads, help="JSON; see the system's class in systems.py")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--at-once", type=int, default=1, help="requests that are computed at a time")
    options = parser.parse_args()
    application = app(SYSTEMS[options.system](options.settings), options.at_once)
    uvicorn.run(application, host="127.0.0.1", port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
