"""Weaviate's container for text2vec-transformers."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from onnxembed.serve.types.tei import Positive


class VectorOptions(Struct):
    """How a text is embedded. The pooling strategy is the model's own, whatever is asked for."""

    pooling_strategy: str | None = None
    task_type: Literal["query", "passage"] | None = None
    dimensions: Positive | None = None


class VectorAsked(Struct):
    """POST /vectors."""

    text: str
    config: VectorOptions | None = None
    dims: int | None = None
    vector: list[float] | None = None
    error: str | None = None


class VectorAnswer(Struct):
    """The vector of a text."""

    text: str
    vector: list[float]
    dim: int
