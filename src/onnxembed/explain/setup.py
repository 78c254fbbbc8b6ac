"""A way to make vectors: what is fed to the graph, and what is made of its token embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from onnxembed.manifest import PoolingMode, TruncationSide

Padding = Literal["none", "masked", "attended", "left"]
Dropped = Literal["none", "first", "last", "all"]
Case = Literal["as decided", "lower", "kept"]
Over = Literal["tokens", "words", "slots"]


@dataclass(frozen=True)
class Inputs:
    """What is fed to the graph: what changes here needs another run."""

    prompt: str
    max_length: int
    """The most tokens of a text, special tokens included."""
    side: TruncationSide
    dropped: Dropped = "none"
    """Which of the special tokens around a text are missing."""
    case: Case = "as decided"
    """"lower": texts are lower-cased first; "kept": the tokenizer does not lower-case."""
    type_id: int | None = None
    """The token type of every token; what the tokenizer says if None."""
    padding: Padding = "none"
    """Whether texts are padded to the longest of them, on the right or left, and whether attention sees the padding."""


@dataclass(frozen=True)
class Pooled:
    """What is made of token embeddings: what changes here is computed again from the same run."""

    pooling: tuple[PoolingMode, ...]
    over: Over = "tokens"
    """Which slots are pooled: all tokens, those that are not special, or the padding, too."""
    dense: bool = True
    """Whether the layers after the pooling are applied."""
    dimensions: int | None = None
    """The length that vectors are cut to."""


@dataclass(frozen=True)
class Setup:
    """Both halves."""

    inputs: Inputs
    pooled: Pooled


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """One thing that another system may do otherwise.

    `cause` is the key of the fixes; `theirs` and `ours` are clauses of the verdict, such as "use CLS pooling" and
    "use mean pooling". `inputs` and `pooled` are the fields that it changes.
    """

    cause: str
    theirs: str
    ours: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    pooled: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    """What the fixes of the cause name in braces."""

    def applied(self, setup: Setup) -> Setup:
        """The setup with this change."""
        return Setup(replace(setup.inputs, **self.inputs), replace(setup.pooled, **self.pooled))

    def fits(self, other: Hypothesis) -> bool:
        """Whether both changes can be made at once."""
        fields = {*self.inputs, *self.pooled} & {*other.inputs, *other.pooled}
        return self.cause != other.cause and not fields
