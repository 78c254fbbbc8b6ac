"""The row that describes one model_type: how its encoder is built, and what else the exporter must know about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxembed.export.checkpoint.config import Config
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.graph.inputs import Inputs

Builder = Callable[[Graph, Config, Inputs], Value]
"""Writes an encoder: last hidden state [B, T, D] in the graph's type, as the transformers class computes it."""


@dataclass(frozen=True)
class Key:
    """A key of config.json, and what the model_type assumes where the key is absent."""

    name: str
    default: Any


@dataclass(frozen=True)
class Classifier:
    """A classification head, out(norm(activation(dense(x)))), by the names of its tensors; None: no such part."""

    out: str
    dense: str | None = None
    dense_bias: Key | bool = True
    activation: Key | str = "tanh"
    norm: str | None = None
    out_bias: bool = True


@dataclass(frozen=True)
class MaskedLM:
    """The head of a masked language model, decoder(norm(activation(dense(x)))): tensor names and config.json's keys."""

    dense: str
    norm: str
    decoder: str
    biases: tuple[str, ...]
    """Names of the decoder's bias in order of preference; in reverse order when it is not tied to the embeddings."""
    table: str = "embeddings.word_embeddings"
    """The embeddings that the decoder is tied to, where it has no weight of its own."""
    activation: str | None = None
    """The key that names the activation; None for gelu."""
    eps: tuple[str | None, float] = ("layer_norm_eps", 1e-12)
    """The key of the norm's epsilon, and its default."""
    optional: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    """Parts whose bias may be absent -> the key that says so, and its default."""


@dataclass(frozen=True)
class Architecture:
    """Everything the exporter knows about one model_type; defaults of config.json are in `facts.model_types`."""

    build: Builder | None = None
    """None: there is no builder, and the encoder is traced."""
    prefix: str | tuple[str, ...] = ""
    """What task classes put before the encoder's tensor names, or several such prefixes."""
    heads: str = ""
    """Tensors the encoder does not use (poolers, task heads, buffers): a regular expression for the start of a name."""
    unpooled_token: Callable[[Path], int | None] | None = None
    """Reads from a checkpoint folder the id of a token that pooling leaves out."""
    classifier: Classifier | None = None
    masked_lm: MaskedLM | None = None
    packable: bool = False
    """The builder learns of positions and texts only from `Inputs`, so that texts can be packed into one row."""
    traceable: bool = False
    """A test shows that the traced graph equals transformers' class."""
    undeclared_keys: frozenset[str] = frozenset()
    """Keys of config.json that transformers' class reads although its config class does not declare them."""
    tokenizer_class: str | None = None
    """The class of the tokenizer where no file names one; None where the model_type does not imply it."""
    reference_config: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    """Translates config.json for transformers' own class, which verification compares with; None: as it is.

    Raises NoReferenceError where that class computes something else.
    """

    def is_head(self, tensor: str) -> bool:
        """Whether the encoder may leave this tensor unused."""
        return bool(self.heads) and re.match(rf"({self.heads})\b", tensor) is not None


# Keys that transformers 5 moves into rope_parameters.
OLDER_ROPE_KEYS = frozenset({"rope_theta", "rope_scaling", "rope_parameters"})
