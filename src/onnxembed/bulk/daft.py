"""Daft: a provider for `embed_text`, which then gives a model's own vectors as Daft's embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from onnxembed.arguments import whole_number
from onnxembed.bulk.batches import EmbedBatch
from onnxembed.bulk.making import VectorOptions
from onnxembed.bulk.model_options import ModelOptions
from onnxembed.errors import MissingExtraError, UsageError
from onnxembed.hub.source import HubOptions
from onnxembed.loading.locate import read_model_manifest

try:
    from daft import DataType
    from daft.ai.protocols import TextEmbedder, TextEmbedderDescriptor
    from daft.ai.provider import Provider
    from daft.ai.typing import EmbeddingDimensions, UDFOptions
except ImportError as error:
    raise MissingExtraError(f"OnnxEmbedProvider needs daft ({error}): pip install -U daft") from error

MAKING = ("kind", "normalize", "prompt", "prompt_name")
KNOWN = sorted({*ModelOptions.__annotations__, *MAKING, *(field.name for field in fields(UDFOptions))})
"""The options: those of opening a model, of making vectors, and of how Daft runs."""


class OnnxEmbedProvider(Provider):
    """Gives `embed_text(column, provider=OnnxEmbedProvider(...), model=FOLDER_OR_HUB_ID)` the model's dense vectors.

    A row without a text has no vector. Each process opens the model once.

    Options stand here, or in `embed_text` for one call: those of EmbedBatch, such as `threads`; kind, normalize, prompt
    and prompt_name, as of `encode`; Daft's batch_size, concurrency, max_retries (0, as the same texts fail again),
    num_gpus and on_error. Raises UsageError for others, and for a model without dense vectors, or too few dimensions.
    """

    name = "onnxembed"

    def __init__(self, **options: Any) -> None:
        self._options = _known(options)

    def get_text_embedder(
        self, model: str | None = None, dimensions: int | None = None, **options: Any
    ) -> TextEmbedderDescriptor:
        """What makes the vectors, for Daft to send to its workers; of the model, only the manifest is read here."""
        if model is None:
            raise UsageError("embed_text needs a model: a folder, or the hub id of a repository")
        if Path(model).exists():  # workers begin in other folders than this process
            model = str(Path(model).absolute())
        options = {"max_retries": 0, **self._options, **_known(options)}
        hub = HubOptions(**_among(options, ("revision", "cache_dir", "local_files_only")))
        whole = read_model_manifest(model, hub, options.get("onnx_file")).manifest.require_embedding().dimension
        size = whole if dimensions is None else whole_number("dimensions", dimensions, whole)
        vectors = VectorOptions("embedding", dimensions=size, **_among(options, MAKING))
        batch = EmbedBatch(model, vectors=vectors, **_among(options, ModelOptions.__annotations__))
        return _Embedding(batch, size, options)


@dataclass(frozen=True)
class _Embedding(TextEmbedderDescriptor):
    """What Daft asks of a column of vectors, and what makes them in each worker: it pickles without the model."""

    batch: EmbedBatch
    size: int
    options: dict[str, Any]

    def get_provider(self) -> str:
        return OnnxEmbedProvider.name

    def get_model(self) -> str:
        return self.batch.model

    def get_options(self) -> dict[str, Any]:
        return self.options  # of which Daft takes its own

    def get_dimensions(self) -> EmbeddingDimensions:
        return EmbeddingDimensions(self.size, DataType.float32())

    def instantiate(self) -> TextEmbedder:
        return self

    def embed_text(self, text: Sequence[str | None]) -> list[Any]:
        """The vector of each text, float32 [size], and None where a row is null, as Daft passes it."""
        vectors = iter(self.batch({"text": [each for each in text if each is not None]})["vector"])
        return [None if each is None else next(vectors) for each in text]


def _known(options: dict[str, Any]) -> dict[str, Any]:
    if unknown := sorted(options.keys() - {*KNOWN}):
        raise UsageError(f"unknown options: {', '.join(unknown)}; there are: {', '.join(KNOWN)}")
    return options


def _among(options: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}
