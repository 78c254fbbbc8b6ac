"""FastEmbed's classes for texts, over onnxembed: `from onnxembed.compat.fastembed import TextEmbedding`.

A model name is a folder or a hub id, as for OnnxEmbedder; it needs an ONNX graph or an artifact, and no list has to
know it. The vectors are the model's own: prompts, pooling and normalization follow its files, where FastEmbed has a
table.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Generic, TypedDict, TypeVar, Unpack

from onnxembed.arrays import FloatArray
from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import UsageError
from onnxembed.manifest import PoolingMode, Task
from onnxembed.recipes.book import read_recipe, recipe_names
from onnxembed.reranker import OnnxReranker
from onnxembed.runtime.outputs.sparse import SparseEmbedding
from onnxembed.tokenizer.pairs import Pair

Model = TypeVar("Model", OnnxEmbedder, OnnxReranker)


class PoolingType(StrEnum):
    """How the tokens of a custom model are pooled; DISABLED leaves it to the graph and the model's files."""

    CLS = "CLS"
    MEAN = "MEAN"
    LAST_TOKEN = "LAST_TOKEN"
    DISABLED = "DISABLED"


class Device(StrEnum):
    """Where a model runs, as FastEmbed names it."""

    CPU = "cpu"
    CUDA = "cuda"
    AUTO = "auto"


POOLING: dict[PoolingType, PoolingMode | None] = {
    PoolingType.CLS: "cls",
    PoolingType.MEAN: "mean",
    PoolingType.LAST_TOKEN: "lasttoken",
    PoolingType.DISABLED: None,
}


@dataclass(frozen=True)
class ModelSource:
    """Where the files of a custom model lie: a hub id or a folder. Archives at a URL are not fetched."""

    hf: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class _Known:
    """A model of the list: published in the recipe book, or added. None is what nothing states."""

    model: str
    sources: ModelSource
    model_file: str | None = None
    description: str | None = None
    license: str | None = None
    size_in_GB: float | None = None  # noqa: N815  # FastEmbed's key
    dim: int | None = None
    pooling: PoolingMode | None = None
    normalization: bool | None = None


class Opening(TypedDict, total=False):
    """FastEmbed's arguments for opening a model that have a name alone, no place."""

    specific_model_path: str | None
    local_files_only: bool


class _Adapter(Generic[Model]):
    """A model that is opened with FastEmbed's arguments."""

    _opened_as: type[Model]
    _task: ClassVar[Task]
    _added: ClassVar[dict[str, _Known]]
    """The models that were added, by name in lower case."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._added = {}

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """The published models of the recipe book for this task, and those that were added, by FastEmbed's keys.

        Models that are not listed can be opened, too. What neither a recipe nor the caller states is None.
        """
        recipes = map(read_recipe, recipe_names())
        published: list[_Known] = [
            _Known(recipe.model, ModelSource(hf=recipe.model)) for recipe in recipes if cls._task in recipe.tasks
        ]
        return [asdict(known) for known in (*published, *cls._added.values())]

    @classmethod
    def _add(cls, known: _Known) -> None:
        if known.sources.hf is None:
            raise UsageError(f"{known.model} has no source on the hub: give ModelSource(hf=...), a hub id or a folder")
        if known.model.lower() in cls._added:
            raise UsageError(f"{known.model} was added already; give another name")
        cls._added[known.model.lower()] = known

    def __init__(  # noqa: PLR0917  # FastEmbed's order of arguments
        self,
        model_name: str | None = None,
        cache_dir: str | Path | None = None,
        threads: int | None = None,
        providers: Sequence[Any] | None = None,
        cuda: bool | str = Device.AUTO,
        device_ids: list[int] | None = None,
        lazy_load: bool = False,
        **opening: Unpack[Opening],
    ) -> None:
        """Open a model. `lazy_load` is taken, and the model opens at once."""
        unknown = opening.keys() - Opening.__annotations__.keys()
        if unknown:
            raise UsageError(f"{type(self).__name__} does not take {', '.join(sorted(unknown))}")
        known = self._added.get((model_name or "").lower())
        source = known.sources.hf if known else model_name
        model = opening.get("specific_model_path") or source
        if model is None:
            raise UsageError("give model_name: a folder or a hub id")
        device = cuda if isinstance(cuda, str) else Device.CUDA if cuda else Device.CPU
        wanted: Any = providers or str(device)
        self.model_name = model_name or str(model)
        self.model: Model = self._opened_as(
            model,
            cache_dir=cache_dir,
            threads=threads,
            providers=wanted,
            device_ids=device_ids,
            local_files_only=opening.get("local_files_only", False),
            **self._decided(known),
        )

    def _decided(self, known: _Known | None) -> dict[str, Any]:
        """The arguments that say what a model was added with."""
        return {"onnx_file": known.model_file} if known else {}


class _TextAdapter(_Adapter[OnnxEmbedder]):
    """A model that takes texts one by one."""

    _opened_as = OnnxEmbedder

    @property
    def embedding_size(self) -> int:
        """The length of the vectors."""
        return self.model.dimension

    @classmethod
    def get_embedding_size(cls, model_name: str) -> int:
        """The length of the vectors of a model that was added; UsageError for another one, which must be opened."""
        known = cls._added.get(model_name.lower())
        if known is None or known.dim is None:
            raise UsageError(
                f"nothing states the length of {model_name}'s vectors before it is opened: "
                f"{cls.__name__}({model_name!r}).embedding_size"
            )
        return known.dim

    def token_count(self, texts: str | Iterable[str], batch_size: int | None = None) -> int:
        """The number of tokens of all texts; `batch_size` is taken, and changes nothing."""
        return self.model.token_count(texts)


class TextEmbedding(_TextAdapter):
    """Dense vectors. Without a name, the model is FastEmbed's default."""

    _task = "embedding"

    def __init__(self, model_name: str = "BAAI/bge-small-en-v1.5", *opening: Any, **more: Any) -> None:
        super().__init__(model_name, *opening, **more)
        known = self._added.get(model_name.lower())
        if known is not None and known.dim not in (None, self.model.dimension):
            raise UsageError(
                f"{model_name} was added with dim={known.dim}, and its vectors have {self.model.dimension}"
            )

    @classmethod
    def add_custom_model(  # noqa: PLR0917  # FastEmbed's order of arguments
        cls,
        model: str,
        pooling: PoolingType,
        normalization: bool,
        sources: ModelSource,
        dim: int,
        model_file: str = "onnx/model.onnx",
        description: str = "",
        license: str = "",
        size_in_gb: float = 0.0,
        additional_files: list[str] | None = None,
        output_name: str | None = None,
    ) -> None:
        """Add a model with an ONNX graph from elsewhere under a name of its own.

        Pooling and normalization that contradict the model's files are said when it is opened. `additional_files` is
        taken and not needed: the graph names its files. Raises UsageError for `output_name`: the output is found.
        """
        if output_name is not None:
            raise UsageError(
                f"add_custom_model does not take output_name={output_name!r}: the output is found by itself"
            )
        mode = POOLING[PoolingType(pooling)]
        details = (model_file, description or None, license or None, size_in_gb or None, dim, mode, normalization)
        cls._add(_Known(model, sources, *details))

    def _decided(self, known: _Known | None) -> dict[str, Any]:
        if known is None:
            return {}
        return {"onnx_file": known.model_file, "pooling": known.pooling, "normalize": known.normalization}

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


class SparseTextEmbedding(_TextAdapter):
    """Sparse embeddings."""

    _task = "sparse"

    def embed(
        self, documents: str | Iterable[str], batch_size: int | None = None, parallel: int | None = None
    ) -> Generator[SparseEmbedding, None, None]:
        """Stream the sparse embedding of each text; see `OnnxEmbedder.embed_sparse`."""
        return self.model.embed_sparse(documents, batch_size=batch_size, parallel=parallel)

    passage_embed = embed

    def query_embed(self, query: str | Iterable[str], **options: Any) -> Generator[SparseEmbedding, None, None]:
        """Stream the sparse embedding of each query."""
        return self.model.embed_sparse(query, **options)


class LateInteractionTextEmbedding(_TextAdapter):
    """A vector for each token."""

    _task = "multi_vector"

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
    _task = "reranking"

    @classmethod
    def add_custom_model(  # noqa: PLR0917  # FastEmbed's order of arguments
        cls,
        model: str,
        sources: ModelSource,
        model_file: str = "onnx/model.onnx",
        description: str = "",
        license: str = "",
        size_in_gb: float = 0.0,
        additional_files: list[str] | None = None,
    ) -> None:
        """Add a reranker with an ONNX graph from elsewhere under a name of its own; see TextEmbedding."""
        cls._add(_Known(model, sources, model_file, description or None, license or None, size_in_gb or None))

    def rerank(
        self, query: str, documents: Iterable[str], batch_size: int | None = None, **options: Any
    ) -> Generator[float, None, None]:
        """Stream the logit of each document for the query."""
        return self.model.rerank(query, documents, batch_size=batch_size, **options)

    def rerank_pairs(
        self, pairs: Iterable[Pair], batch_size: int | None = None, parallel: int | None = None
    ) -> Generator[float, None, None]:
        """Stream the logit of each pair."""
        scores = self.model.score_stream(pairs, raw_scores=True, batch_size=batch_size, parallel=parallel)
        return (float(score) for score in scores)

    def token_count(self, pairs: Iterable[Pair], batch_size: int | None = None) -> int:
        """The number of tokens of all pairs; `batch_size` is taken, and changes nothing."""
        return sum(len(tokens) for tokens in self.model.tokenize(list(pairs)))
