"""OpenAI's embeddings and models."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from onnxembed.manifest import TextKind
from onnxembed.serve.types.tei import Inputs, Positive


class EmbeddingsAsked(Struct):
    """POST /v1/embeddings."""

    input: Inputs
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Positive | None = None
    user: str | None = None
    input_type: TextKind | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1)] | None = None
    """vLLM's: cut texts to this many tokens, on the model's own side; -1 for the model's own length."""


class Embedding(Struct, tag_field="object", tag="embedding"):
    """A vector: numbers, or base64 of little-endian float32."""

    embedding: list[float] | str
    index: int


class Usage(Struct):
    """Tokens of all texts, special ones included."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(Struct, tag_field="object", tag="list"):
    """The vectors of all texts."""

    data: list[Embedding]
    model: str
    usage: Usage
