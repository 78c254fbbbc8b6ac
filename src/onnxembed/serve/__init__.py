"""The HTTP server: an ASGI application that clients of text-embeddings-inference, OpenAI, Cohere and Weaviate speak to.

Where to find what:

- `app.py`: the application from settings; `server.py`: the process around it (sockets, signals, workers)
- `routes/`: one file for each family of clients, `types/` their requests and answers, `errors.py` their refusals
- `endpoint.py`: what every route does: read, decode, compute, answer; `admission.py`: how much at a time
- `scheduler.py`, `queue.py`: texts of all callers -> runs, in fair shares
- `model.py`, `models.py`: one served model; all of them by name; `readiness.py`: whether they compute what they should
- `gate.py`: keys, browsers' origins and the log, before every route
- `metrics.py`, `openapi.py`, `page.html`: what is seen of it
"""

from __future__ import annotations

from onnxembed.errors import MissingExtraError

try:
    import msgspec  # noqa: F401
    import orjson  # noqa: F401
    import prometheus_client  # noqa: F401
    import starlette  # noqa: F401
except ImportError as error:
    raise MissingExtraError(f"the server needs more packages: pip install 'onnxembed[serve]' ({error})") from error

from onnxembed.serve.app import app
from onnxembed.serve.settings import ModelOptions, ModelSource, QueueLimits, Settings

__all__ = ["ModelOptions", "ModelSource", "QueueLimits", "Settings", "app"]
