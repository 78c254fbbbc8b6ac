"""The application: all routes, over all models, behind the gate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from onnxembed import __version__
from onnxembed.errors import UsageError
from onnxembed.serve import errors, openapi, readiness
from onnxembed.serve.endpoint import Endpoint, EndpointApp, Service
from onnxembed.serve.errors import KINDS, Family, Kind, Refusal
from onnxembed.serve.gate import Gate
from onnxembed.serve.metrics import Metrics
from onnxembed.serve.model import ServedModel
from onnxembed.serve.models import Models
from onnxembed.serve.routes import openai, rerank, tei, weaviate
from onnxembed.serve.scheduler import Scheduler
from onnxembed.serve.settings import ModelSource, Settings

ENDPOINTS: Sequence[Endpoint] = [*tei.ENDPOINTS, *openai.ENDPOINTS, *rerank.ENDPOINTS, *weaviate.ENDPOINTS]
"""Every route that takes JSON."""

FAMILIES: dict[str, Family] = {endpoint.path: endpoint.family for endpoint in ENDPOINTS} | {"/v1/models": errors.openai}
"""How refusals are written on each path; as text-embeddings-inference does on all others."""

PAGE = Path(__file__).with_name("page.html")

KIND_OF_STATUS: dict[int, Kind] = {404: "not_found", 405: "method"}


def app(*models: str | ModelSource, settings: Settings | None = None) -> Starlette:
    """An ASGI application that serves models; they are opened and checked here, so that it is ready when it is made.

    Args:
        models: folders or hub ids, or `NAME=MODEL`; instead of `settings.models`.
        settings: everything else, and the models if none are given.

    Raises UsageError for models in both places or none, for a name that two models have, and what OnnxEmbedder raises;
    ModelFilesError for a model that does not compute on this machine what it should.
    """
    sources = [ModelSource.parse(model) if isinstance(model, str) else model for model in models]
    chosen = settings or Settings(models=sources)
    if bool(sources) == bool(settings and settings.models):
        raise UsageError("name the models to serve, either as arguments or in the settings")
    return application(replace(chosen, models=sources or chosen.models), Metrics())


def application(settings: Settings, metrics: Metrics) -> Starlette:
    """As `app`, of the models in the settings; `metrics` counts for this process."""
    opened = [ServedModel(source, settings.options) for source in settings.models]
    for model in opened:
        readiness.check(model)
    at_once = max(model.opened.backend.runs_at_once for model in opened)
    scheduler = Scheduler(at_once, settings.limits, metrics)
    return _routed(Service(settings, Models(opened, settings.default), scheduler, metrics))


def _routed(service: Service) -> Starlette:
    settings = service.settings
    endpoints = {each.path: EndpointApp(each, service) for each in ENDPOINTS}

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        service.scheduler.close()
        for model in service.models:
            model.opened.close()

    routed = Starlette(
        routes=[
            *(Route(path, endpoint, methods=["POST"]) for path, endpoint in endpoints.items()),
            *_pages(service),
        ],
        middleware=[
            Middleware(
                Cors,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST"],
                allow_headers=["content-type", "authorization"],
            ),
            Middleware(_gate, settings=settings, endpoints=endpoints),
        ],
        exception_handlers={HTTPException: _refused},
        lifespan=lifespan,
    )
    routed.state.service = service
    return routed


class Cors(CORSMiddleware):
    """The headers that browsers ask for.

    Other clients name no origin, and need none; no cache keeps an answer to their POST requests for a browser.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, if need be with CORS."""
        if scope.get("method") == "POST" and all(name != b"origin" for name, _ in scope["headers"]):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _gate(app: ASGIApp, settings: Settings, endpoints: Mapping[str, ASGIApp]) -> ASGIApp:
    return Gate(
        app,
        keys=settings.api_keys,
        endpoints=endpoints,
        families=FAMILIES,
        default=errors.tei,
        log=settings.log_requests,
    )


def _refused(request: Request, error: Exception) -> Response:
    """A path or a method that does not exist."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    kind = KIND_OF_STATUS.get(status, "malformed")
    family = FAMILIES.get(request.url.path.removeprefix(request.scope.get("root_path", "")), errors.tei)
    message = {"not_found": "there is no such route; see /openapi.json", "method": "this route has other methods"}
    refusal = Refusal(kind, message.get(kind, KINDS[kind].tei))
    headers = dict(getattr(error, "headers", None) or {})
    return _json(family(refusal), refusal.status, headers)


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, "application/json")


def _pages(service: Service) -> list[Route]:
    """The routes that are asked with GET."""
    document = orjson.dumps(openapi.document(ENDPOINTS))

    async def health(_: Request) -> Response:
        refusal = await _unwell(service)
        return _json(errors.tei(refusal), refusal.status) if refusal else Response(status_code=200)

    async def root(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return Response(PAGE.read_bytes(), media_type="text/html", headers={"content-security-policy": POLICY})
        return await health(request)

    async def well_known(_: Request) -> Response:
        refusal = await _unwell(service)
        return _json(errors.weaviate(refusal), refusal.status) if refusal else Response(status_code=204)

    async def metrics(_: Request) -> Response:
        text, kind = service.metrics.text()
        return Response(text, headers={"content-type": kind})

    async def info(_: Request) -> Response:
        return _json(_info(service))

    async def meta(_: Request) -> Response:
        return _json({"model": _info(service), "decisions": _decisions(service)})

    async def models(_: Request) -> Response:
        return _json({"object": "list", "data": [_listed(model) for model in service.models]})

    async def described(_: Request) -> Response:
        return Response(document, media_type="application/json")

    return [
        Route("/", root, methods=["GET"]),
        *(Route(path, health, methods=["GET"]) for path in ("/health", "/ping")),
        *(Route(f"/.well-known/{path}", well_known, methods=["GET"]) for path in ("live", "ready")),
        Route("/metrics", metrics, methods=["GET"]),
        Route("/info", info, methods=["GET"]),
        Route("/meta", meta, methods=["GET"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/openapi.json", described, methods=["GET"]),
    ]


POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
"""What the page may load: nothing from anywhere else."""


async def _unwell(service: Service) -> Refusal | None:
    """Why the server cannot compute, if it cannot; after a run that failed, a probe decides."""
    if service.scheduler.failed:
        return Refusal("unhealthy", "a worker has died; the server is about to stop")
    if service.scheduler.last_run_failed:
        try:
            await asyncio.to_thread(_probe, service)
        except Exception as error:
            service.scheduler.failed = error
            return Refusal("unhealthy", f"a probe could not be computed: {error}")
        service.scheduler.last_run_failed = False
    return None


def _probe(service: Service) -> None:
    for model in service.models:
        readiness.check(model)


def _listed(model: ServedModel) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": model.manifest.source.model,
        "max_model_len": model.opened.max_length,  # as vLLM has it; mteb reads it
    }


def _info(service: Service) -> dict[str, Any]:
    """The default model, under the names of text-embeddings-inference."""
    model, limits = service.models.find(None), service.settings.limits
    manifest = model.manifest
    kind: dict[str, Any]
    if manifest.reranking:
        labels = manifest.reranking.labels.value
        ids = {str(number): label for number, label in enumerate(labels)}
        name = "reranker" if len(labels) == 1 else "classifier"
        kind = {name: {"id2label": ids, "label2id": {label: int(number) for number, label in ids.items()}}}
    else:
        pooling = "+".join(manifest.embedding.pooling.value) if manifest.embedding else manifest.tasks[0]
        kind = {"embedding": {"pooling": pooling}}
    return {
        "model_id": manifest.source.model,
        "model_sha": manifest.source.revision,
        "model_dtype": model.precision,
        "served_model_name": model.name,
        "model_type": kind,
        "max_concurrent_requests": limits.requests,
        "max_input_length": model.opened.max_length,
        "max_batch_tokens": limits.tokens,
        "max_batch_requests": None,
        "max_client_batch_size": limits.texts,
        "auto_truncate": service.settings.auto_truncate,
        "tokenization_workers": model.opened.backend.runs_at_once + 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
        "models": [_listed(each)["id"] for each in service.models],
    }


def _decisions(service: Service) -> list[dict[str, Any]]:
    """The decisions of each model, with their origins, as `onnxembed inspect` has them."""
    import dataclasses

    shown = ("model", "tokenization", "prompts", "embedding", "sparse", "multi_vector", "reranking")
    return [
        {
            "name": model.name,
            "max_length": model.opened.max_length,
            **{key: value for key, value in dataclasses.asdict(model.manifest).items() if key in shown},
        }
        for model in service.models
    ]
