"""The sections of onnxembed.json: one frozen dataclass each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from onnxembed.manifest.words import (
    SENTENCE_EMBEDDING,
    SPARSE_EMBEDDING,
    SPARSE_WEIGHTS,
    TOKEN_EMBEDDINGS,
    AttentionMode,
    HeadPooling,
    Maker,
    Origin,
    PairTruncation,
    PoolingMode,
    ScoreActivation,
    SparseActivation,
    TextKind,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Decision(Generic[T]):
    """A value and its provenance; `reason` names the file and key, the flag, or the rule."""

    value: T
    origin: Origin
    reason: str

    @classmethod
    def from_file(cls, value: T, file: str, key: str) -> Decision[T]:
        """What a key of one of the model's files says."""
        return cls(value, "file", f"{file}: {key}")

    @classmethod
    def default(cls, value: T, why: str) -> Decision[T]:
        """What holds where the files say nothing."""
        return cls(value, "architecture", why)


@dataclass(frozen=True)
class Source:
    """The checkpoint: a hub id with its commit, or a folder; and the recipe that was followed."""

    model: str
    revision: str | None
    recipe: str | None = None


@dataclass(frozen=True)
class Model:
    """What the graph computes up to the token embeddings.

    `adapter` names the task whose adapter is merged into the weights, for a model with adapters; `engine_reason`
    says why an engine other than `build` wrote the graph, and with what; for an adopted graph, what made it.
    """

    model_type: str
    attention: Decision[AttentionMode]
    engine: Maker
    inputs: tuple[str, ...]
    ignored_config_keys: tuple[str, ...]
    adapter: Decision[str] | None = None
    engine_reason: str | None = None


@dataclass(frozen=True)
class Tokenization:
    """How texts become ids; tokenizer.json holds the rest. Lengths count special tokens."""

    max_length: Decision[int]
    truncation_side: Decision[Literal["left", "right"]]
    pad_token_id: Decision[int]
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Dense:
    """One linear layer after pooling: activation(x @ weight.T + bias), weight of shape (out, in).

    `weight` and `bias` name .npy files of the artifact when pooling is left to the runtime, else None.
    """

    in_features: int
    out_features: int
    activation: str
    weight: str | None
    bias: str | None


@dataclass(frozen=True)
class Embedding:
    """From token embeddings [B, T, D] to sentence embeddings [B, dimension].

    `output` is the graph's output to read, where its name is not the usual one. `normalize_again`: an adopted
    graph may already scale its vectors to length 1; the runtime normalizes them again, which is harmless.
    """

    pooling: Decision[tuple[PoolingMode, ...]]
    dense: tuple[Dense, ...]
    normalize: Decision[bool]
    dimension: int
    pooled_by: Literal["graph", "runtime"]
    output: str | None = None
    normalize_again: bool = False

    @property
    def graph_output(self) -> str:
        """The graph's output to read: sentence embeddings, or token embeddings for the runtime to pool."""
        return self.output or (SENTENCE_EMBEDDING if self.pooled_by == "graph" else TOKEN_EMBEDDINGS)


@dataclass(frozen=True)
class Template:
    """The text that a pair becomes: `body` contains `{query}`, `{document}` and `{instruction}`, and may be truncated.

    `instruction` is the default instruction; None if the body has no place for one.
    """

    prefix: str
    body: str
    suffix: str
    instruction: str | None = None


@dataclass(frozen=True)
class Reranking:
    """From a pair's token embeddings [B, T, D] to its logits [B, labels], and to its scores.

    `token_types`: whether segment ids distinguish the document's tokens from the query's. `template`: for a model that
    reads a pair as one text. `answers`: for a language model, the tokens whose logits are subtracted to give the score.
    """

    labels: Decision[tuple[str, ...]]
    pooling: Decision[HeadPooling]
    activation: Decision[ScoreActivation]
    truncation: Decision[PairTruncation]
    token_types: Decision[bool]
    template: Decision[Template] | None = None
    answers: Decision[tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Sparse:
    """From token embeddings to a weight for each id of the vocabulary [dimension], most of them 0.

    `aggregated_by` "graph": the output `sparse_embedding` [B, dimension] is the finished embedding, the largest weight
    of an id over the text's tokens, or their sum. "runtime": the output `sparse_weights` [B, T] has a weight for
    each token, and the runtime aggregates them by token id. Ids in `dropped_token_ids` have no weight.
    """

    activation: Decision[SparseActivation]
    aggregation: Decision[Literal["max", "sum"]]
    aggregated_by: Literal["graph", "runtime"]
    dropped_token_ids: Decision[tuple[int, ...]]
    dimension: int

    @property
    def graph_output(self) -> str:
        """The graph's output to read: sparse embeddings, or the tokens' weights for the runtime to aggregate."""
        return SPARSE_EMBEDDING if self.aggregated_by == "graph" else SPARSE_WEIGHTS


@dataclass(frozen=True)
class QueryExpansion:
    """Queries shorter than `length` tokens are padded with `token_id`, whose vectors count as the query's.

    `attended`: whether the query's own tokens attend to the added ones. `longer`: what happens to longer queries.
    """

    token_id: int
    length: int
    attended: bool
    longer: Literal["cut", "kept"]


@dataclass(frozen=True)
class MultiVector:
    """From token embeddings to a vector for each token, the output `multi_vector` [B, T, dimension].

    `first_token`: whether the first token's vector is returned. `skipped_token_ids`: tokens whose vectors are left
    out, in texts of the kinds `skipped_in`. Lengths are in tokens; None means the limit of every text.
    Markers before queries and documents are prompts.
    """

    normalize: Decision[bool]
    first_token: Decision[bool]
    query_length: Decision[int | None]
    document_length: Decision[int | None]
    query_expansion: Decision[QueryExpansion | None]
    skipped_token_ids: Decision[tuple[int, ...]]
    skipped_in: tuple[TextKind, ...]
    dimension: int


@dataclass(frozen=True)
class Prompts:
    """Text that goes before a text, by name; `default` is used when the caller names none."""

    texts: Decision[dict[str, str]]
    default: Decision[str | None]


@dataclass(frozen=True)
class Quality:
    """How close an integer graph's vectors are to fp32's, on texts that were not used to make it.

    `required` is the lowest cosine allowed; `kept_wider` names the products and tables kept in 16 bits.
    """

    texts: int
    min_cosine: float
    mean_cosine: float
    required: float
    kept_wider: tuple[str, ...]


@dataclass(frozen=True)
class PackedGraph:
    """The same computation for CUDA without padding: the texts of a run lie in one row, and each is pooled separately.

    Its inputs are those of onnxembed.execution.packing, its output is `sentence_embedding`, and it shares
    its variant's weights.
    """

    file: str
    nodes: int
    operators: dict[str, int]


@dataclass(frozen=True)
class Variant:
    """One graph file. `operators` counts the nodes of each type, those inside If branches included."""

    file: str
    data: str | None
    nodes: int
    operators: dict[str, int]
    quality: Quality | None = None
    packed: PackedGraph | None = None


@dataclass(frozen=True)
class FileRecord:
    """The identity of one file of the artifact."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Verification:
    """What `verify` measured against the reference implementation, over all texts and paddings.

    `required` holds the limits that applied: the largest max_abs_diff, or the smallest min_cosine. Scores are
    compared by their difference alone: they have no cosine.
    """

    reference: str
    texts: int
    max_abs_diff: float
    min_cosine: float | None
    token_ids_equal: bool
    required: dict[str, float]
    versions: dict[str, str]
