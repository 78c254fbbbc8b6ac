"""What the operator of a server decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onnxembed.arguments import whole_number
from onnxembed.execution.providers import Placement
from onnxembed.hub.source import HubOptions

MAX_CHARACTERS = 2**20
"""The most characters of one text or pair. The tokenizer reads all of a text before it is cut, and that would keep
a thread and a gigabyte of memory for ten million characters."""


@dataclass(frozen=True)
class QueueLimits:
    """How much may wait; more is refused with status 429."""

    texts: int = 32_768
    """Texts of all requests; also the most texts of one request."""
    tokens: int = 4_194_304
    """Tokens of all texts that are tokenized."""
    requests: int = 512
    """Requests that are computed or answered."""

    def __post_init__(self) -> None:
        for name in ("texts", "tokens", "requests"):
            whole_number(f"the limit of {name}", getattr(self, name))


@dataclass(frozen=True)
class ModelSource:
    """A model to serve: a folder or hub id, and the name that requests call it by."""

    model: str
    name: str | None = None

    @classmethod
    def parse(cls, argument: str) -> ModelSource:
        """`NAME=MODEL`, or `MODEL` alone; a folder whose own name has a "=" is taken as it is."""
        name, equals, model = argument.partition("=")
        if equals and name and not Path(argument).exists():
            return cls(model, name)
        return cls(argument)


@dataclass(frozen=True)
class ModelOptions:
    """How the models are opened, each as `OnnxEmbedder` opens it."""

    precision: str = "auto"
    placement: Placement = field(default_factory=Placement)
    max_length: int | None = None
    hub: HubOptions = field(default_factory=HubOptions)
    check_files: bool = True
    prove: bool | None = None
    """False serves models without comparing them with their proofs; see docs/proof.md."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides how an application answers."""

    models: Sequence[ModelSource]
    default: str | None = None
    """The model of requests that name none; the first one that can do what is asked if None."""
    options: ModelOptions = field(default_factory=ModelOptions)
    limits: QueueLimits = field(default_factory=QueueLimits)
    payload_limit: int = 33_554_432
    """The most bytes of a request's body."""
    body_seconds: float = 30.0
    """A request's body has to arrive within this time."""
    auto_truncate: bool = True
    """Whether texts that are too long are cut, in requests that do not say."""
    api_keys: Sequence[str] = ()
    """Keys that requests must present; none are asked for if empty."""
    cors_origins: Sequence[str] = ("*",)
    """Origins whose pages may call the server."""
    log_requests: bool = False
    """Whether each request is logged, as a line of JSON without its texts."""
    root_path: str = ""
    """The path that a proxy before the server takes away."""
