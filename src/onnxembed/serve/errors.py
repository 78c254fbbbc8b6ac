"""Refusals: why a request is not answered, with a status, in the words of the family of its route."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

Kind = Literal[
    "validation",
    "batch_size",
    "empty",
    "malformed",
    "tokenization",
    "model_type",
    "inference",
    "overloaded",
    "unhealthy",
    "unauthorized",
    "not_found",
    "model_not_found",
    "method",
    "media_type",
    "too_large",
    "timeout",
]
"""Why a request is refused."""


class Words(NamedTuple):
    """A kind's status, and what the families call it."""

    status: int
    tei: str
    openai: str


KINDS: Mapping[Kind, Words] = {
    "validation": Words(422, "Validation", "invalid_request_error"),
    "batch_size": Words(422, "Validation", "invalid_request_error"),
    "empty": Words(400, "Empty", "invalid_request_error"),
    "malformed": Words(400, "Validation", "invalid_request_error"),
    "tokenization": Words(422, "Tokenizer", "invalid_request_error"),
    "model_type": Words(424, "Backend", "invalid_request_error"),
    "inference": Words(424, "Backend", "server_error"),
    "overloaded": Words(429, "Overloaded", "rate_limit_error"),
    "unhealthy": Words(503, "Unhealthy", "server_error"),
    "unauthorized": Words(401, "Unauthorized", "authentication_error"),
    "not_found": Words(404, "NotFound", "invalid_request_error"),
    "model_not_found": Words(404, "NotFound", "invalid_request_error"),
    "method": Words(405, "Validation", "invalid_request_error"),
    "media_type": Words(415, "Validation", "invalid_request_error"),
    "too_large": Words(413, "Validation", "invalid_request_error"),
    "timeout": Words(408, "Validation", "invalid_request_error"),
}
"""The statuses are those of text-embeddings-inference, where it has the case."""


class Refusal(Exception):  # noqa: N818  (an answer, not a fault)
    """A request is not answered.

    Args:
        kind: why, for programs.
        message: why, for people: the cause and the cure.
        param: the field that is at fault, such as `$.inputs[0]`.
        retry_after: seconds after which it may be tried again.
    """

    def __init__(self, kind: Kind, message: str, *, param: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.kind, self.message, self.param, self.retry_after = kind, message, param, retry_after

    @property
    def status(self) -> int:
        """The HTTP status."""
        return KINDS[self.kind].status


Family = Callable[[Refusal], dict[str, Any]]
"""Writes a refusal as the clients of a group of routes expect it."""


def tei(refusal: Refusal) -> dict[str, Any]:
    """As text-embeddings-inference writes it."""
    return {"error": refusal.message, "error_type": KINDS[refusal.kind].tei}


def openai(refusal: Refusal) -> dict[str, Any]:
    """As OpenAI's clients read it."""
    return {
        "error": {
            "message": refusal.message,
            "type": KINDS[refusal.kind].openai,
            "param": refusal.param,
            "code": refusal.kind,
        }
    }


def cohere(refusal: Refusal) -> dict[str, Any]:
    """As Cohere's clients read it."""
    return {"message": refusal.message}


def weaviate(refusal: Refusal) -> dict[str, Any]:
    """As Weaviate reads it."""
    return {"error": refusal.message}
