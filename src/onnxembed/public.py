"""What `from onnxembed import ...` gives. The package imports it when a name is first used, the command line never."""

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
