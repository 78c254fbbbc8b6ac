"""The fields of onnxembed.json: one frozen dataclass for each section, and the manifest that has them all."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from onnxembed.errors import UsageError
from onnxembed.manifest.words import (
    CUDA_ONLY,
    METHODS,
    MULTI_VECTOR,
    SENTENCE_EMBEDDING,
    SPARSE_EMBEDDING,
    SPARSE_WEIGHTS,
    TOKEN_EMBEDDINGS,
    AttentionMode,
    Form,
    HeadPooling,
    Maker,
    Origin,
    PairTruncation,
    PoolingMode,
    ScoreActivation,
    SparseActivation,
    Task,
    TextKind,
    TruncationSide,
)

T = TypeVar("T")
Section = TypeVar("Section")


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
    """The checkpoint: a hub id with its commit, or a folder; and the recipe that was followed.

    `license` is what the metadata of the model's card says; None where it says nothing.
    """

    model: str
    revision: str | None
    recipe: str | None = None
    license: str | None = None


@dataclass(frozen=True)
class Model:
    """What the graph computes up to the token embeddings.

    `adapter` names the task whose adapter is merged into the weights, for a model with adapters; `engine_reason`
    says why an engine other than `build` wrote the graph, and with what; for an adopted graph, what made it. `tensors`
    is a hash of the checkpoint's weights by name, in no matter which files they lie; None where nobody had them. `form`
    is that of every graph; None where nobody decided it: in adopted graphs, and in artifacts from before.
    """

    model_type: str
    attention: Decision[AttentionMode]
    engine: Maker
    inputs: tuple[str, ...]
    ignored_config_keys: tuple[str, ...]
    adapter: Decision[str] | None = None
    engine_reason: str | None = None
    tensors: str | None = None
    ignored_tensors: tuple[str, ...] = ()
    form: Form | None = None


@dataclass(frozen=True)
class Tokenization:
    """How texts become ids; tokenizer.json holds the rest. Lengths count special tokens."""

    max_length: Decision[int]
    truncation_side: Decision[TruncationSide]
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
    `layers`: what stands before and after the pooling, in words and in order, for a model that has more there than
    `dense`; the graph computes it. `prompt_left_out`: the special tokens of a model whose pooling leaves out the
    prompt. As many tokens of a text are left out as the prompt has by itself, without one of these at its end.
    """

    pooling: Decision[tuple[PoolingMode, ...]]
    dense: tuple[Dense, ...]
    normalize: Decision[bool]
    dimension: int
    pooled_by: Literal["graph", "runtime"]
    output: str | None = None
    normalize_again: bool = False
    layers: tuple[str, ...] | None = None
    prompt_left_out: Decision[tuple[int, ...]] | None = None

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
    each token, and the runtime aggregates them by token id; or the output is `logits` [B, T, dimension], of an adopted
    graph, and the runtime applies the activation, too. Ids in `dropped_token_ids` have no weight. `output` is the
    graph's output to read, where its name is not the usual one.
    """

    activation: Decision[SparseActivation]
    aggregation: Decision[Literal["max", "sum"]]
    aggregated_by: Literal["graph", "runtime"]
    dropped_token_ids: Decision[tuple[int, ...]]
    dimension: int
    output: str | None = None

    @property
    def graph_output(self) -> str:
        """The graph's output to read: sparse embeddings, or what the runtime aggregates."""
        if self.output:
            return self.output
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
    Markers before queries and documents are prompts. `output` and `normalize_again` are as in `Embedding`.
    """

    normalize: Decision[bool]
    first_token: Decision[bool]
    query_length: Decision[int | None]
    document_length: Decision[int | None]
    query_expansion: Decision[QueryExpansion | None]
    skipped_token_ids: Decision[tuple[int, ...]]
    skipped_in: tuple[TextKind, ...]
    dimension: int
    output: str | None = None
    normalize_again: bool = False

    @property
    def graph_output(self) -> str:
        """The graph's output to read."""
        return self.output or MULTI_VECTOR


@dataclass(frozen=True)
class Prompts:
    """Text that goes before a text, by name; `default` is used when the caller names none."""

    texts: Decision[dict[str, str]]
    default: Decision[str | None]


@dataclass(frozen=True)
class Quality:
    """How close an integer graph's results are to fp32's, on texts or pairs that were not used to make it.

    `required` is the lowest cosine allowed, or for scores, which have none, the lowest rank agreement; `kept_wider`
    names the products and tables kept in 16 bits. Of sparse embeddings: `min_overlap` is the smallest weighted Jaccard
    index of a text's weights, `max_dot_change` the largest change of two texts' dot product, as a share of the
    largest dot product. Of scores: `rank_agreement` is Kendall's tau-b, `max_score_diff` the largest change of a logit.
    """

    texts: int
    min_cosine: float | None
    mean_cosine: float | None
    required: float
    kept_wider: tuple[str, ...]
    min_overlap: float | None = None
    max_dot_change: float | None = None
    rank_agreement: float | None = None
    max_score_diff: float | None = None


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
class IntegerOutput:
    """What the integers of a graph's output stand for: scale * (integer - zero_point).

    Each is one number, or one for each number of the output's last axis.
    """

    scale: tuple[float, ...]
    zero_point: tuple[float, ...]


@dataclass(frozen=True)
class Variant:
    """One graph file. `operators` counts the nodes of each type, those inside If branches included.

    Of adopted graphs: `integer_outputs` are the outputs that hold integers, by name. `one_text`: whether each run holds
    a single text, because the texts of a run would change each other's vectors, or because the graph takes no more;
    None where neither is so.
    """

    file: str
    data: str | None
    nodes: int
    operators: dict[str, int]
    quality: Quality | None = None
    packed: PackedGraph | None = None
    integer_outputs: dict[str, IntegerOutput] = field(default_factory=dict)
    one_text: Decision[bool] | None = None


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


@dataclass(frozen=True)
class Manifest:
    """The whole of onnxembed.json."""

    format_version: int
    created_with: dict[str, str]
    source: Source
    tasks: tuple[Task, ...]
    model: Model
    tokenization: Tokenization
    prompts: Prompts
    variants: dict[str, Variant]
    files: dict[str, FileRecord]
    verification: dict[str, Verification]
    embedding: Embedding | None = None
    sparse: Sparse | None = None
    multi_vector: MultiVector | None = None
    reranking: Reranking | None = None
    overruled: tuple[str, ...] | None = None
    """Where flags contradict the model's own files, in words: these are then not the model's own vectors."""
    spaces: dict[str, str] | None = None
    """The id of the vector space of each task that makes vectors; artifacts from before have none."""

    def to_json(self) -> str:
        """The text of onnxembed.json: stable key order, UTF-8, final newline.

        A source folder's name may have bytes that are not UTF-8; they are written as escapes of JSON.
        """
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        return text.encode("utf-8", "backslashreplace").decode()

    def require_embedding(self) -> Embedding:
        """The section `embedding`; UsageError for a model that makes no sentence embeddings."""
        return self._required("embedding", self.embedding)

    def require_sparse(self) -> Sparse:
        """The section `sparse`; UsageError for a model that makes no sparse embeddings."""
        return self._required("sparse", self.sparse)

    def require_multi_vector(self) -> MultiVector:
        """The section `multi_vector`; UsageError for a model that makes no multi-vector embeddings."""
        return self._required("multi_vector", self.multi_vector)

    def require_reranking(self) -> Reranking:
        """The section `reranking`; UsageError for a model that is not a reranker."""
        return self._required("reranking", self.reranking)

    def _required(self, task: Task, section: Section | None) -> Section:
        if section is None:
            raise UsageError(f"this model is made for {self.abilities()}, not for {task}")
        return section

    def abilities(self) -> str:
        """The model's tasks, each with the API that does it, for error messages."""
        return " and ".join(f"{task} ({METHODS[task]})" for task in self.tasks)

    @property
    def on_cpu(self) -> tuple[str, ...]:
        """The precisions whose graphs a CPU can run, and so verify."""
        return tuple(name for name in self.variants if name not in CUDA_ONLY)

    def variant(self, precision: str) -> Variant:
        """The graph of `precision`, or an error that lists what the artifact has."""
        try:
            return self.variants[precision]
        except KeyError:
            have = ", ".join(self.variants)
            raise UsageError(
                f"this artifact has no {precision} graph (it has: {have}); export it again with --precision {precision}"
            ) from None
