"""Embedding models as ONNX folders that give the model's own vectors, fast, without torch."""

import typing

from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import HubError, ModelFilesError, OnnxEmbedError, ProviderError, UsageError
from onnxembed.manifest import Manifest
from onnxembed.quantization import quantization_ranges, quantize_embeddings
from onnxembed.reranker import OnnxReranker, RankedDocument
from onnxembed.rescoring import binary_search, rescore
from onnxembed.runtime.outputs.joint import Embeddings, TextEmbeddings
from onnxembed.runtime.outputs.sparse import SparseEmbedding, SparseEmbeddings
from onnxembed.runtime.outputs.tokens import TokenEmbeddings
from onnxembed.similarity import hybrid_score, maxsim, mean_maxsim, paraphrase_mining, semantic_search, sparse_dot
from onnxembed.tokenizer.texts import Tokens

if typing.TYPE_CHECKING:
    from onnxembed import commands as commands
else:

    def __getattr__(name: str) -> object:
        """`onnxembed.commands`, imported when it is first used: embedding never needs it."""
        if name == "commands":
            from importlib import import_module

            return import_module("onnxembed.commands")
        raise AttributeError(f"module 'onnxembed' has no attribute {name!r}")


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
    "binary_search",
    "hybrid_score",
    "maxsim",
    "mean_maxsim",
    "paraphrase_mining",
    "quantization_ranges",
    "quantize_embeddings",
    "rescore",
    "semantic_search",
    "sparse_dot",
]
