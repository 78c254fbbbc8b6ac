"""onnxembed.json: the contract between export and runtime. Standard library only.

The runtime reads nothing else to know how to embed. The format is closed: a key that this version
does not know, a missing key and a newer format version are errors, because a guess about any of them
would change vectors in silence. Every decision says where it came from.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Generic, Literal, TypeVar, get_args

from onnxembed.decoding import decode
from onnxembed.errors import ManifestError, UsageError

FILE_NAME = "onnxembed.json"
FORMAT_VERSION = 1

Origin = Literal["file", "recipe", "flag", "architecture"]
"""Where a decision came from: the model's files, the recipe book, the caller, or the architecture's default."""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""The graph inputs that this version can feed."""

Task = Literal["embedding", "sparse", "multi_vector", "reranking"]
"""What a model can do; each has the section of its name in the manifest."""

PoolingMode = Literal["cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken"]
AttentionMode = Literal["bidirectional", "causal"]
Engine = Literal["build", "trace", "optimum"]
"""Who wrote the encoder's graph: our builders, transformers' exporter, or optimum's."""
Maker = Literal[Engine, "adopted"]
"""An engine, or somebody else, whose graph was taken as it was found."""
HeadPooling = Literal["cls", "mean", "mean_of_logits", "lasttoken"]
"""What a classification head reads: a token, the mean of all, or each token, whose logits are averaged."""
ScoreActivation = Literal["identity", "sigmoid", "tanh", "relu", "gelu", "silu"]
"""What makes scores of logits."""
PairTruncation = Literal["longest_first", "only_second"]
"""How a pair that is too long is cut: whichever text is longer, token by token, or the document alone."""
SparseActivation = Literal["relu", "log1p_relu", "log1p_log1p_relu"]
"""What makes a weight of a logit; "log1p_relu" is log(1 + relu(x)), as in SPLADE."""
Kind = Literal["query", "document"]
"""What a text is, to models that read the two differently."""
Precision = Literal["fp32", "fp16", "bf16", "int16", "int8", "int8w"]

TASKS: tuple[Task, ...] = get_args(Task)
# What does each task, in messages to those who ask for another.
METHODS: dict[Task, str] = {
    "embedding": "OnnxEmbedder.embed",
    "sparse": "OnnxEmbedder.embed_sparse",
    "multi_vector": "OnnxEmbedder.embed_multi_vector",
    "reranking": "OnnxReranker",
}
PAIR_TRUNCATIONS: tuple[PairTruncation, ...] = get_args(PairTruncation)
SCORE_ACTIVATIONS: tuple[ScoreActivation, ...] = get_args(ScoreActivation)
POOLING_MODES: tuple[PoolingMode, ...] = get_args(PoolingMode)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
# The CPU has kernels for hardly any operator in them.
CUDA_ONLY: tuple[Precision, ...] = ("bf16",)
# The lowest cosine with the fp32 vector that a text may have, unless the export asks for another.
MIN_COSINES: dict[Precision, float] = {"int16": 0.9999, "int8": 0.995, "int8w": 0.998}
ENGINES: tuple[Engine, ...] = get_args(Engine)
KINDS: tuple[Kind, ...] = get_args(Kind)

T = TypeVar("T")


@dataclass(frozen=True)
class Decision(Generic[T]):
    """A value and its provenance; `reason` names the file and key, the flag, or the rule."""

    value: T
    origin: Origin
    reason: str


@dataclass(frozen=True)
class Source:
    """The checkpoint: a hub id with its commit, or a folder; and the recipe that was followed."""

    model: str
    revision: str | None
    recipe: str | None = None


@dataclass(frozen=True)
class Model:
    """What the graph computes up to the token embeddings.

    `adapter` names the task whose adapter is merged into the weights, of a model that has them; `engine_reason`
    says why another engine than `build` wrote the graph, and with what; of an adopted one, who made it.
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

    `weight` and `bias` name .npy files of the artefact when pooling is left to the runtime, else None.
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
    graph may or may not scale its vectors to length 1 itself; the runtime does, which twice changes nothing.
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
        return self.output or ("sentence_embedding" if self.pooled_by == "graph" else "token_embeddings")


@dataclass(frozen=True)
class Template:
    """The text that a pair becomes: `{query}`, `{document}` and `{instruction}` stand in `body`, which may be cut.

    `instruction` is what the model is told when the caller says nothing; None where the body has no place for it.
    """

    prefix: str
    body: str
    suffix: str
    instruction: str | None = None


@dataclass(frozen=True)
class Reranking:
    """From a pair's token embeddings [B, T, D] to its logits [B, labels], and to its scores.

    `token_types` says whether the document's tokens are told from the query's by segment ids; `template`, of a
    model that reads a pair as one text; `answers`, of a language model, are the tokens whose logits' difference
    is the logit.
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

    `aggregated_by` "graph": its output `sparse_embedding` [B, dimension] is all there is to it, the largest weight
    of an id over the text's tokens, or their sum. "runtime": the output `sparse_weights` [B, T] has a weight for
    each token, and the runtime gathers them by token id. Ids of `dropped_token_ids` have no weight.
    """

    activation: Decision[SparseActivation]
    aggregation: Decision[Literal["max", "sum"]]
    aggregated_by: Literal["graph", "runtime"]
    dropped_token_ids: Decision[tuple[int, ...]]
    dimension: int


@dataclass(frozen=True)
class QueryExpansion:
    """Queries shorter than `length` tokens are filled up with `token_id`, and get its vectors too.

    `attended`: the query's own tokens see these. `longer`: what is done to queries of more than `length` tokens.
    """

    token_id: int
    length: int
    attended: bool
    longer: Literal["cut", "kept"]


@dataclass(frozen=True)
class MultiVector:
    """From token embeddings to a vector for each token, the output `multi_vector` [B, T, dimension].

    `first_token`: whether the first token's vector is one of the text's. `skipped_token_ids`: tokens whose
    vectors are not, in texts of the kinds `skipped_in`. Lengths are in tokens, None for the limit of every text.
    Markers before queries and documents are prompts.
    """

    normalize: Decision[bool]
    first_token: Decision[bool]
    query_length: Decision[int | None]
    document_length: Decision[int | None]
    query_expansion: Decision[QueryExpansion | None]
    skipped_token_ids: Decision[tuple[int, ...]]
    skipped_in: tuple[Kind, ...]
    dimension: int


@dataclass(frozen=True)
class Prompts:
    """Text that goes before a text, by name; `default` is used when the caller names none."""

    texts: Decision[dict[str, str]]
    default: Decision[str | None]


@dataclass(frozen=True)
class Quality:
    """How near the vectors of a graph of integers are to fp32's, on texts that its making has not seen.

    `required` is the lowest cosine that was allowed; `kept_wider` names the products and tables in 16 bits.
    """

    texts: int
    min_cosine: float
    mean_cosine: float
    required: float
    kept_wider: tuple[str, ...]


@dataclass(frozen=True)
class PackedGraph:
    """The same computation for CUDA, without padding: the texts of a run in one row, pooled where they end.

    Its inputs are those of onnxembed.packing, its output is `sentence_embedding`; `data` is its variant's own.
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
    """The identity of one file of the artefact."""

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

    def to_json(self) -> str:
        """The text of onnxembed.json: stable key order, UTF-8, final newline."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def require_embedding(self) -> Embedding:
        """The section `embedding`; UsageError for a model that makes none."""
        if self.embedding is None:
            raise UsageError(f"this model is made for {self.abilities()}, not for embedding")
        return self.embedding

    def require_sparse(self) -> Sparse:
        """The section `sparse`; UsageError for a model that makes no sparse embeddings."""
        if self.sparse is None:
            raise UsageError(f"this model is made for {self.abilities()}, not for sparse")
        return self.sparse

    def require_multi_vector(self) -> MultiVector:
        """The section `multi_vector`; UsageError for a model that makes one vector for a text."""
        if self.multi_vector is None:
            raise UsageError(f"this model is made for {self.abilities()}, not for multi_vector")
        return self.multi_vector

    def abilities(self) -> str:
        """The tasks, and what does each."""
        return " and ".join(f"{task} ({METHODS[task]})" for task in self.tasks)

    def require_reranking(self) -> Reranking:
        """The section `reranking`; UsageError for a model that ranks nothing."""
        if self.reranking is None:
            raise UsageError(f"this model is made for {' and '.join(self.tasks)}, not for reranking")
        return self.reranking

    @property
    def on_cpu(self) -> tuple[str, ...]:
        """The precisions whose graphs a CPU can run, and so verify."""
        return tuple(name for name in self.variants if name not in CUDA_ONLY)

    def variant(self, precision: str) -> Variant:
        """The graph of `precision`, or an error that lists what the artefact has."""
        try:
            return self.variants[precision]
        except KeyError:
            have = ", ".join(self.variants)
            raise UsageError(
                f"this artefact has no {precision} graph (it has: {have}); export it again with --precision {precision}"
            ) from None


def read_manifest(folder: Path) -> Manifest:
    """Read onnxembed.json of an artefact folder.

    Raises ManifestError when it is absent, not JSON, of another format version, or not exactly of the
    known shape (all problems of one file are listed at once).
    """
    path = folder / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ManifestError(
            f"{folder} has no {FILE_NAME}: it is not an onnxembed artefact; make one with onnxembed export"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"cannot read {path} ({error}); export the model again") from error
    return parse_manifest(text, where=str(path))


def parse_manifest(text: str, where: str = FILE_NAME) -> Manifest:
    """Parse the text of an onnxembed.json; see `read_manifest` for the errors."""
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{where} is not valid JSON ({error}); export the model again") from None
    if not isinstance(data, dict):
        raise ManifestError(f"{where} holds {type(data).__name__}, not an object; export the model again")
    version = data.get("format_version")
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        cure = "upgrade onnxembed" if newer else "export the model again"
        raise ManifestError(
            f"{where} has format_version {version!r}; this onnxembed reads version {FORMAT_VERSION}: {cure}"
        )
    problems: list[str] = []
    manifest: Manifest = decode(Manifest, data, "", problems)
    problems = problems or list(_contradictions(manifest))
    if problems:
        raise ManifestError(
            f"{where} is not a format {FORMAT_VERSION} manifest: {'; '.join(problems)}. Export the model again"
        )
    return manifest


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """What the types cannot say: every file that is read is recorded, and lies inside the folder."""
    if not manifest.variants:
        yield "variants is empty"
    if not manifest.tasks:
        yield "tasks is empty"
    for task in TASKS:
        if (task in manifest.tasks) is not (getattr(manifest, task, None) is not None):
            yield f"tasks is {', '.join(manifest.tasks)}, which does not go with the section {task}"
    if manifest.reranking and manifest.reranking.template:
        yield from (f"reranking.template: {flaw}" for flaw in template_flaws(manifest.reranking.template.value))
    for name in manifest.model.inputs:
        if name not in INPUTS:
            yield f"model.inputs has {name!r}, not one of {', '.join(INPUTS)}"
    for name in manifest.files:
        path = PureWindowsPath(name)  # the stricter of the systems: it knows drives and both slashes
        if path.anchor or ".." in path.parts:
            yield f"files names {name!r}, which leads out of the folder"
    read: dict[str, tuple[str | None, ...]] = {"tokenization": ("tokenizer.json",)}
    read |= {f"variants.{key}": (variant.file, variant.data) for key, variant in manifest.variants.items()}
    read |= {
        f"variants.{key}.packed": (variant.packed.file,) for key, variant in manifest.variants.items() if variant.packed
    }
    dense = manifest.embedding.dense if manifest.embedding else ()
    read |= {f"embedding.dense[{i}]": (layer.weight, layer.bias) for i, layer in enumerate(dense)}
    for where, names in read.items():
        yield from (
            f"{where} reads {name!r}, which files lacks" for name in names if name and name not in manifest.files
        )


def template_flaws(template: Template) -> Iterator[str]:
    """What is wrong with a template, in words: each placeholder stands once, in the body."""
    wanted = {"{query}": 1, "{document}": 1, "{instruction}": 0 if template.instruction is None else 1}
    for placeholder, count in wanted.items():
        found = template.body.count(placeholder)
        if found != count:
            yield f"body has {placeholder} {found} times, not {'once' if count else 'without an instruction'}"
        if placeholder in template.prefix or placeholder in template.suffix:
            yield f"{placeholder} stands outside of body"
