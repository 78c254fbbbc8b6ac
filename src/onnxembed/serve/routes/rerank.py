"""Reranking for the clients of Cohere and Jina."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import numpy as np

from onnxembed.serve import errors
from onnxembed.serve.endpoint import Call, Endpoint
from onnxembed.serve.errors import Refusal
from onnxembed.serve.model import Cut
from onnxembed.serve.routes.tei import relevance
from onnxembed.serve.types import rerank as types


async def rank(call: Call, asked: types.RankingAsked) -> Any:
    """Documents sorted by how well they answer a query."""
    model = call.service.models.find(asked.model, "reranking")
    if asked.max_tokens_per_doc is not None and asked.max_tokens_per_doc < model.opened.max_length:
        raise Refusal(
            "validation",
            f"this server cuts pairs to {model.opened.max_length} tokens and has no max_tokens_per_doc; leave it out",
            param="$.max_tokens_per_doc",
        )
    texts = [each.text if isinstance(each, types.Document) else each for each in asked.documents]
    scores = await relevance(call, model, asked.query, texts, Cut(call.service.settings.auto_truncate), raw=False)
    order = np.argsort(-scores, kind="stable").tolist()[: asked.top_n]
    return {
        "id": str(uuid4()),
        "model": asked.model or model.name,
        "results": [
            {
                "index": at,
                "relevance_score": float(scores[at]),
                **({"document": {"text": texts[at]}} if asked.return_documents else {}),
            }
            for at in order
        ],
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        "usage": {"total_tokens": call.tokens},
    }


ENDPOINTS = [
    Endpoint(path, types.RankingAsked, types.Ranking, rank, errors.cohere, rank.__doc__ or "")
    for path in ("/v1/rerank", "/v2/rerank")
]
