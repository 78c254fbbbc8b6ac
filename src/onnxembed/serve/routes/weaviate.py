"""The container that Weaviate's text2vec-transformers speaks to."""

from __future__ import annotations

from typing import Any

from onnxembed.manifest import TextKind
from onnxembed.serve import errors
from onnxembed.serve.endpoint import Call, Endpoint
from onnxembed.serve.model import Cut
from onnxembed.serve.routes.inputs import prompted
from onnxembed.serve.types import weaviate

KIND_OF: dict[str | None, TextKind | None] = {"query": "query", "passage": "document", None: None}


async def vectors(call: Call, asked: weaviate.VectorAsked) -> Any:
    """The vector of a text, as the model makes it."""
    options = asked.config or weaviate.VectorOptions()
    model = call.service.models.find(None, "embedding")
    computation = model.dense(dimensions=options.dimensions, normalize=None)
    kind = KIND_OF[options.task_type]
    items, cut = prompted(model, [asked.text], None, kind), Cut(call.service.settings.auto_truncate)
    (vector,) = await call.compute(model, computation, items, cut, model.prefix(None, kind))
    return {"text": asked.text, "vector": vector, "dim": len(vector)}


ENDPOINTS = [
    Endpoint(path, weaviate.VectorAsked, weaviate.VectorAnswer, vectors, errors.weaviate, vectors.__doc__ or "")
    for path in ("/vectors", "/vectors/")
]
