"""The OpenAPI document, from the types of the routes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from onnxembed import __version__
from onnxembed.serve.endpoint import Endpoint


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The document of all endpoints that take JSON."""
    types = [each for endpoint in endpoints for each in (endpoint.asked, endpoint.answered)]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    paths = {}
    for number, endpoint in enumerate(endpoints):
        asked, answered = schemas[2 * number : 2 * number + 2]
        paths[endpoint.path] = {
            "post": {
                "summary": endpoint.summary,
                "requestBody": {"required": True, "content": {"application/json": {"schema": asked}}},
                "responses": {
                    "200": {"description": "The answer.", "content": {"application/json": {"schema": answered}}},
                    "default": {"description": "Why there is no answer.", "content": {"application/json": {}}},
                },
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "onnxembed", "version": __version__},
        "paths": paths,
        "components": {"schemas": components},
    }
