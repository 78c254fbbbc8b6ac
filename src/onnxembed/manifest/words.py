"""The words of the contract: tasks, poolings, precisions, engines, and the names of inputs and files."""

from __future__ import annotations

from typing import Literal, get_args

FILE_NAME = "onnxembed.json"

TOKENIZER_FILE = "tokenizer.json"

CARD_FILE = "README.md"
"""The model card, which people may edit: no hash of it is recorded, and nothing but its reader depends on it."""

PROOF_FILE = "proof.npz"
"""What the model gives for a few probes, so that a graph can be checked where it runs; older artifacts have none."""

FORMAT_VERSION = 1

Form = Literal["fused", "portable"]
"""The operators of a graph: ONNX Runtime's own ones too, or standard ones only, for any program that reads ONNX."""

Origin = Literal["file", "recipe", "flag", "architecture"]
"""Where a decision came from: the model's files, the recipe book, the caller, or the architecture's default."""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""The graph inputs that this version can feed."""

SENTENCE_EMBEDDING = "sentence_embedding"
"""The graph output of sentence embeddings, float32 [B, dimension]."""

TOKEN_EMBEDDINGS = "token_embeddings"
"""The graph output of token embeddings, float32 [B, T, D]."""

LAST_HIDDEN_STATE = "last_hidden_state"
"""What transformers, and graphs exported from it, call the token embeddings."""

SPARSE_EMBEDDING = "sparse_embedding"
"""The graph output of sparse embeddings that the graph aggregates, float32 [B, vocabulary]."""

SPARSE_WEIGHTS = "sparse_weights"
"""The graph output of one weight for each token, which the runtime aggregates, float32 [B, T]."""

MULTI_VECTOR = "multi_vector"
"""The graph output of one vector for each token, float32 [B, T, dimension]."""

LOGITS = "logits"
"""The graph output of a reranker, float32 [B, labels]."""

Task = Literal["embedding", "sparse", "multi_vector", "reranking"]
"""What a model can do; each task has a section of the same name in the manifest."""

PoolingMode = Literal["cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken"]

AttentionMode = Literal["bidirectional", "causal"]

Engine = Literal["build", "trace", "optimum"]
"""Who wrote the encoder's graph: our builders, transformers' exporter, or optimum's."""

Maker = Literal[Engine, "adopted"]
"""An engine, or "adopted" for a graph that another program made."""

HeadPooling = Literal["cls", "mean", "mean_of_logits", "lasttoken"]
"""What a classification head reads: one token, the mean of all tokens, or every token, averaging their logits."""

ScoreActivation = Literal["identity", "sigmoid", "tanh", "relu", "gelu", "silu"]
"""The activation that turns logits into scores."""

PairTruncation = Literal["longest_first", "only_second"]
"""How a pair that is too long is truncated: the longer text, token by token, or the document alone."""

TruncationSide = Literal["left", "right"]
"""Which end of a text is cut off."""

SparseActivation = Literal["relu", "log1p_relu", "log1p_log1p_relu"]
"""The activation that turns logits into weights; "log1p_relu" is log(1 + relu(x)), as in SPLADE."""

LOGARITHMS: dict[SparseActivation, int] = {"relu": 0, "log1p_relu": 1, "log1p_log1p_relu": 2}
"""How often each activation applies log(1 + x) after relu."""

TextKind = Literal["query", "document"]
"""The kind of a text, for models that treat queries and documents differently."""

Precision = Literal["fp32", "fp16", "bf16", "int16", "int8", "int8w"]

TASKS: tuple[Task, ...] = get_args(Task)

# The API of each task, for error messages.
METHODS: dict[Task, str] = {
    "embedding": "OnnxEmbedder.embed, onnxembed embed",
    "sparse": "OnnxEmbedder.embed_sparse, onnxembed embed --sparse",
    "multi_vector": "OnnxEmbedder.embed_multi_vector, onnxembed embed --multi-vector",
    "reranking": "OnnxReranker, onnxembed rerank",
}

PAIR_TRUNCATIONS: tuple[PairTruncation, ...] = get_args(PairTruncation)

SCORE_ACTIVATIONS: tuple[ScoreActivation, ...] = get_args(ScoreActivation)

ATTENTION_MODES: tuple[AttentionMode, ...] = get_args(AttentionMode)

POOLING_MODES: tuple[PoolingMode, ...] = get_args(PoolingMode)

MAX_OF_NOTHING = -1e9
"""What "max" pooling gives for a text without tokens: `max_pooling` on sentence-transformers' model cards.

Pooling of its release 6.2 gives -inf, which no normalization makes a vector.
"""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

# The CPU has kernels for hardly any operator in these types.
CUDA_ONLY: tuple[Precision, ...] = ("bf16",)

# The lowest cosine between a text's vector and its fp32 vector, unless the export asks for another.
MIN_COSINES: dict[Precision, float] = {"int16": 0.9999, "int8": 0.995, "int8w": 0.998}

# The lowest rank agreement (Kendall's tau-b) of a reranker's scores with fp32's, unless the export asks for another.
MIN_AGREEMENTS: dict[Precision, float] = {"int16": 0.99, "int8": 0.9, "int8w": 0.95}

FORMS: tuple[Form, ...] = get_args(Form)

ENGINES: tuple[Engine, ...] = get_args(Engine)

TEXT_KINDS: tuple[TextKind, ...] = get_args(TextKind)


def graph_file(precision: str) -> str:
    """Where the graph of a precision lies in a model's folder. Other exporters use the same names."""
    return "onnx/model.onnx" if precision == "fp32" else f"onnx/model_{precision}.onnx"
