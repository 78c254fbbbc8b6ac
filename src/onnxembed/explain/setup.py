"""A way to make vectors: which graph runs, what is fed to it, and what is made of its token embeddings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from onnxembed.manifest import AttentionMode, HeadPooling, PoolingMode, TruncationSide

Padding = Literal["none", "masked", "attended", "left"]
Dropped = Literal["none", "first", "last", "all", "doubled"]
Case = Literal["as decided", "lower", "kept"]
Over = Literal["tokens", "words", "slots", "text"]


@dataclass(frozen=True)
class Build:
    """Which graph runs: what changes here needs another graph, made on demand."""

    attention: AttentionMode | None = None
    """Which tokens see which; as decided if None."""
    activation: Mapping[str, Any] = field(default_factory=dict)
    """Other values of the keys of config.json that name the activation."""
    rope: Mapping[str, Any] = field(default_factory=dict)
    """Other values of the keys of config.json about rotary positions."""
    windows: Mapping[str, Any] = field(default_factory=dict)
    """Other values of the keys of config.json about attention windows."""
    head: HeadPooling | None = None
    """What the head of a reranker reads; as decided if None."""
    shift: int = 0
    """How many rows later in its table the position of every token is."""
    numbers: str = ""
    """The number format, by its key in `onnxembed.explain.formats`; fp32 if empty."""
    masked: bool = False
    """Whether attention leaves out padding in every run: fast runs leave it to later tokens not to be seen."""

    @property
    def key(self) -> str:
        """A name that no other build has; "" for the model's own graph."""
        return "" if self == Build() else json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class Inputs:
    """What is fed to the graph: what changes here needs another run."""

    prompt: str
    max_length: int
    """The most tokens of a text, special tokens included."""
    side: TruncationSide
    dropped: Dropped = "none"
    """Which of the special tokens around a text are missing; "doubled": the last one stands there twice."""
    case: Case = "as decided"
    """"lower": texts are lower-cased first; "kept": the tokenizer does not lower-case."""
    words: str = ""
    """Another way to split texts into words, by its key in `onnxembed.explain.tokenizers`."""
    type_id: int | None = None
    """The token type of every token; what the tokenizer says if None."""
    padding: Padding = "none"
    """Whether texts are padded to the longest of them, on the right or left, and whether attention sees the padding."""


@dataclass(frozen=True)
class Pooled:
    """What is made of token embeddings: what changes here is computed again from the same run."""

    pooling: tuple[PoolingMode, ...]
    over: Over = "tokens"
    """Which slots are pooled: all tokens, those that are not special, those after the prompt, or the padding, too."""
    left_out: tuple[str, ...] = ()
    """The kinds of layers after the pooling that are not applied: "dense", "layer norm"."""
    dimensions: int | None = None
    """The length that vectors are cut to."""


@dataclass(frozen=True)
class Setup:
    """All three parts."""

    inputs: Inputs
    pooled: Pooled
    build: Build = field(default_factory=Build)


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """One thing that another system may do otherwise.

    `cause` is the key of the fixes; `theirs` and `ours` are clauses of the verdict, such as "use CLS pooling" and
    "use mean pooling". `inputs`, `pooled` and `build` are the fields that it changes.
    """

    cause: str
    theirs: str
    ours: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    pooled: Mapping[str, Any] = field(default_factory=dict)
    build: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    """What the fixes of the cause name in braces."""

    @property
    def reruns(self) -> bool:
        """Whether it needs another run of a graph."""
        return bool(self.inputs or self.build)

    def applied(self, setup: Setup) -> Setup:
        """The setup with this change."""
        return Setup(
            replace(setup.inputs, **self.inputs),
            replace(setup.pooled, **self.pooled),
            replace(setup.build, **self.build),
        )

    def fits(self, other: Hypothesis) -> bool:
        """Whether both changes can be made at once."""
        mine, others = ({*each.inputs, *each.pooled, *each.build} for each in (self, other))
        return self.cause != other.cause and not mine & others
