"""FastEmbed's classes for texts, over onnxembed: `from onnxembed.compat.fastembed import TextEmbedding`.

A model name is a folder or a hub id, as for OnnxEmbedder; it needs an ONNX graph or an artifact, and is in no list.
The vectors are the model's own: prompts, pooling and normalization follow its files, where FastEmbed has a table.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeVar, Unpack

from onnxembed.arrays import FloatArray
from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import UsageError
from onnxembed.reranker import OnnxReranker
from onnxembed.runtime.outputs.sparse import SparseEmbedding
from onnxembed.tokenizer.pairs import Pair

Model = TypeVar("Model", OnnxEmbedder, OnnxReranker)


class Opening(TypedDict, total=False):
    """FastEmbed's arguments for opening a model; `lazy_load` is taken, and the model opens at once."""

    threads: int | None
    providers: Sequence[Any] | None
    cuda: bool
    device_ids: list[int] | None
    lazy_load: bool
    specific_model_path: str | None
    local_files_only: bool


class _Adapter(Generic[Model]):
    """A model that is opened with FastEmbed's arguments."""

    _opened_as: type[Model]

    def __init__(
        self, model_name: str | None = None, cache_dir: str | Path | None = None, **opening: Unpack[Opening]
    ) -> None:
        unknown = opening.keys() - Opening.__annotations__.keys()
        if unknown:
            raise UsageError(f"{type(self).__name__} does not take {', '.join(sorted(unknown))}")
        model = opening.get("specific_model_path") or model_name
        if model is None:
            raise UsageError("give model_name: a folder or a hub id")
        providers = opening.get("providers")
        wanted: Any = providers or ("cuda" if opening.get("cuda") else "auto")
        self.model_name = model_name or str(model)
        self.model: Model = self._opened_as(
            model,
            cache_dir=cache_dir,
            threads=opening.get("threads"),
            providers=wanted,
            device_ids=opening.get("device_ids"),
            local_files_only=opening.get("local_files_only", False),
        )


class TextEmbedding(_Adapter[OnnxEmbedder]):
    """Dense vectors. Without a name, the model is FastEmbed's default."""

    _opened_as = OnnxEmbedder

    def __init__(
        self, model_name: str = "BAAI/bge-small-en-v1.5", cache_dir: str | None = None, **opening: Unpack[Opening]
    ) -> None:
        super().__init__(model_name, cache_dir, **opening)

    @property
    def embedding_size(self) -> int:
        """The length of the vectors."""
        return self.model.dimension

    def embed(
        self, documents: str | Iterable[str], batch_size: int | None = None, parallel: int | None = None
    ) -> Generator[FloatArray, None, None]:
        """Stream the vector of each text, without a prompt; see `OnnxEmbedder.embed`."""
        return self.model.embed(documents, prompt="", batch_size=batch_size, parallel=parallel)

    def query_embed(self, query: str | Iterable[str], **options: Any) -> Generator[FloatArray, None, None]:
        """Stream the vector of each query, with the model's own prompt."""
        return self.model.query_embed(query, **options)

    def passage_embed(self, texts: Iterable[str], **options: Any) -> Generator[FloatArray, None, None]:
        """Stream the vector of each document, with the model's own prompt."""
        return self.model.passage_embed(texts, **options)

    def token_count(self, texts: str | Iterable[str]) -> int:
        """The number of tokens of all texts."""
        return self.model.token_count(texts)


class SparseTextEmbedding(_Adapter[OnnxEmbedder]):
    """Sparse embeddings."""

    _opened_as = OnnxEmbedder

    def embed(
        self, documents: str | Iterable[str], batch_size: int | None = None, parallel: int | None = None
    ) -> Generator[SparseEmbedding, None, None]:
        """Stream the sparse embedding of each text; see `OnnxEmbedder.embed_sparse`."""
        return self.model.embed_sparse(documents, batch_size=batch_size, parallel=parallel)

    query_embed = passage_embed = embed


class LateInteractionTextEmbedding(_Adapter[OnnxEmbedder]):
    """A vector for each token."""

    _opened_as = OnnxEmbedder

    def embed(
        self, documents: str | Iterable[str], batch_size: int | None = None, parallel: int | None = None
    ) -> Generator[FloatArray, None, None]:
        """Stream the vectors of each document's tokens; see `OnnxEmbedder.embed_multi_vector`."""
        return self.model.embed_multi_vector(documents, kind="document", batch_size=batch_size, parallel=parallel)

    passage_embed = embed

    def query_embed(self, query: str | Iterable[str], **options: Any) -> Generator[FloatArray, None, None]:
        """Stream the vectors of each query's tokens."""
        return self.model.embed_multi_vector(query, kind="query", **options)


class TextCrossEncoder(_Adapter[OnnxReranker]):
    """Logits of pairs."""

    _opened_as = OnnxReranker

    def rerank(
        self, query: str, documents: Iterable[str], batch_size: int | None = None
    ) -> Generator[float, None, None]:
        """Stream the logit of each document for the query."""
        return self.model.rerank(query, documents, batch_size=batch_size)

    def rerank_pairs(
        self, pairs: Iterable[Pair], batch_size: int | None = None, parallel: int | None = None
    ) -> Generator[float, None, None]:
        """Stream the logit of each pair."""
        scores = self.model.score_stream(pairs, raw_scores=True, batch_size=batch_size, parallel=parallel)
        return (float(score) for score in scores)
