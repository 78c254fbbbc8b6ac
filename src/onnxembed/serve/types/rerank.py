"""Reranking as Cohere and Jina ask for it, in one."""

from __future__ import annotations

from msgspec import Struct

from onnxembed.serve.types.tei import Positive


class Document(Struct):
    """A document as an object."""

    text: str


class RankingAsked(Struct):
    """POST /v1/rerank and /v2/rerank."""

    query: str
    documents: list[str | Document]
    model: str | None = None
    top_n: Positive | None = None
    return_documents: bool = False
    max_tokens_per_doc: Positive | None = None


class Ranked(Struct, omit_defaults=True):
    """A document's place among those of the request, and its score from 0 to 1."""

    index: int
    relevance_score: float
    document: Document | None = None


class TotalUsage(Struct):
    """Tokens of all pairs."""

    total_tokens: int


class ApiVersion(Struct):
    """Cohere's version of the route."""

    version: str


class BilledUnits(Struct):
    """What Cohere would count."""

    search_units: int


class RankingMeta(Struct):
    """What Cohere's clients find beside the results."""

    api_version: ApiVersion
    billed_units: BilledUnits


class Ranking(Struct):
    """The documents, the best first."""

    id: str
    model: str
    results: list[Ranked]
    meta: RankingMeta
    usage: TotalUsage
