"""Embedding models as ONNX folders that give the model's own vectors, fast, without torch."""

from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import HubError, ModelFilesError, OnnxEmbedError, ProviderError, UsageError
from onnxembed.manifest import Manifest
from onnxembed.reranker import OnnxReranker, RankedDocument
from onnxembed.runtime.outputs.joint import Embeddings, TextEmbeddings
from onnxembed.runtime.outputs.sparse import SparseEmbedding, SparseEmbeddings
from onnxembed.runtime.outputs.tokens import TokenEmbeddings
from onnxembed.similarity import hybrid_score, maxsim, mean_maxsim, semantic_search, sparse_dot
from onnxembed.tokenizer.texts import Tokens

__version__ = "0.1.0"

__all__ = [
    "Embeddings",
    "HubError",
    "Manifest",
    "ModelFilesError",
    "OnnxEmbedError",
    "OnnxEmbedder",
    "OnnxReranker",
    "ProviderError",
    "RankedDocument",
    "SparseEmbedding",
    "SparseEmbeddings",
    "TextEmbeddings",
    "TokenEmbeddings",
    "Tokens",
    "UsageError",
    "__version__",
    "hybrid_score",
    "maxsim",
    "mean_maxsim",
    "semantic_search",
    "sparse_dot",
]
