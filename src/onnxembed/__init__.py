"""Embedding models as ONNX folders that give the model's own vectors, fast, without torch.

Everything here is imported when it is first used: a program that only embeds never imports the rest.
"""

TYPE_CHECKING = False  # what `typing` calls so; importing that takes longer than this module
if TYPE_CHECKING:
    from onnxembed import commands as commands
    from onnxembed import errors as errors
    from onnxembed import manifest as manifest
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

# The public modules, and where each public name above is; type checkers and editors read the imports above instead.
_MODULES = ("commands", "errors", "manifest")
_HOMES = {
    "embedder": ("OnnxEmbedder",),
    "errors": ("HubError", "ModelFilesError", "OnnxEmbedError", "ProviderError", "UsageError"),
    "manifest": ("Manifest",),
    "quantization": ("quantization_ranges", "quantize_embeddings"),
    "reranker": ("OnnxReranker", "RankedDocument"),
    "rescoring": ("binary_search", "rescore"),
    "runtime.outputs.joint": ("Embeddings", "TextEmbeddings"),
    "runtime.outputs.sparse": ("SparseEmbedding", "SparseEmbeddings"),
    "runtime.outputs.tokens": ("TokenEmbeddings",),
    "similarity": ("hybrid_score", "maxsim", "mean_maxsim", "paraphrase_mining", "semantic_search", "sparse_dot"),
    "tokenizer.texts": ("Tokens",),
}

if not TYPE_CHECKING:  # a type checker reports unknown names by itself

    def __getattr__(name: str) -> object:
        """A public name, from its module, or a public module."""
        from importlib import import_module

        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        home = next((home for home, names in _HOMES.items() if name in names), None)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted([*__all__, *_MODULES])
