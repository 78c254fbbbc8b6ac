"""OnnxEmbedder: texts -> prompt -> token ids -> runs without padding -> session -> vectors in order."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np

from onnxembed.arguments import whole_number
from onnxembed.arrays import Feeds, FloatArray
from onnxembed.errors import UsageError
from onnxembed.execution.backend import Placement
from onnxembed.execution.providers import Providers
from onnxembed.hub.source import HubOptions
from onnxembed.manifest import TEXT_KINDS, Precision, TextKind
from onnxembed.runtime.model import OpenModel
from onnxembed.runtime.onnx_model import OnnxModel, named_devices
from onnxembed.runtime.outputs.dense import DenseReadout, dense_readout
from onnxembed.runtime.outputs.joint import Embeddings, JointReadout
from onnxembed.runtime.outputs.multi_vector import MultiVectorReadout, treats_alike
from onnxembed.runtime.outputs.readout import Readout
from onnxembed.runtime.outputs.sparse import SparseEmbedding, SparseReadout
from onnxembed.runtime.prompts import Prompting
from onnxembed.runtime.streaming import windows
from onnxembed.tokenizer.texts import Tokens

VectorStream = Generator[FloatArray, None, None]


class EmbedOptions(TypedDict, total=False):
    """The options of `OnnxEmbedder.embed`, which describes them; every embedding method takes the same."""

    prompt: str | None
    prompt_name: str | None
    dimensions: int | None
    normalize: bool | None


class OnnxEmbedder(OnnxModel):
    """An embedding model from an artifact folder or a hub repository that holds one.

    Needs numpy, tokenizers and onnxruntime; never torch. Safe to use from many threads. `with
    OnnxEmbedder(...) as model:` frees the session at the end of the block, as `close()` does.

    Args:
        model: a folder that `onnxembed export` wrote, or the hub id of a repository with its files; or a folder
            or repository with an ONNX graph that something else wrote, which is adopted in memory: its files are
            resolved as for an export, and nothing of it has been verified.
        precision: "fp32", "fp16", "bf16" (CUDA only), "int16", "int8", "int8w", or "auto": fp32 where the artifact
            has it, else what it has.
        onnx_file: the graph to adopt, by its path, where it is not onnx/model.onnx or model.onnx.
        providers: "auto" (CUDA where it can be used, else the CPU), "cpu", "cuda", "tensorrt", or a list of ONNX
            Runtime's provider names or (name, options) pairs; see `Session`.
        threads: texts are run on this many CPU threads; on all that the process may use when None.
        device_id: the GPU to use, by its number; the first when None.
        device_ids: several GPUs to share the work among, instead.
        max_length: cut texts to this many tokens, at most the model's own limit, which is the default.
        revision: branch, tag or commit of a hub repository.
        cache_dir: where hub files are kept; the hub client's standard cache when None.
        local_files_only: never ask the hub; use what is in the cache.
        check_files: compare the sha256 of every file with the manifest's while loading.

    Raises:
        ModelFilesError: not an artifact, or its files are not those its manifest records.
        HubError: the hub could not be asked, or said no.
        ProviderError: a requested provider cannot be used.
        UsageError: an argument that cannot be.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        precision: Literal["auto"] | Precision = "auto",
        onnx_file: str | None = None,
        providers: Providers = "auto",
        threads: int | None = None,
        device_id: int | None = None,
        device_ids: Sequence[int] | None = None,
        max_length: int | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        check_files: bool = True,
    ) -> None:
        opened = OpenModel(
            model,
            ("embedding", "sparse", "multi_vector"),
            HubOptions(revision, cache_dir, local_files_only),
            Placement(providers, threads, named_devices(device_id, device_ids)),
            precision=precision,
            onnx_file=onnx_file,
            max_length=max_length,
            check_files=check_files,
        )
        self._use(opened)

    def _use(self, model: OpenModel) -> None:
        super()._use(model)
        section = model.manifest.embedding
        self._dense = dense_readout(model.folder, section) if section else None
        self._prompting = Prompting(model.manifest.prompts)

    @property
    def dimension(self) -> int:
        """Length of this model's vectors; of those that its tokens have, where it makes no others."""
        section = self.manifest.embedding or self.manifest.multi_vector or self.manifest.require_sparse()
        return section.dimension

    def embed(
        self,
        texts: str | Iterable[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
    ) -> VectorStream:
        """Stream the vector of each text, float32 [D], in the order of the texts.

        Takes any iterable, also an endless one: about two thousand texts are read ahead, and memory stays
        bounded. Options are checked now; texts when they are read. Leaving the stream early, or its
        `close()`, drops the work that has not begun.

        Args:
            texts: one text, or an iterable of texts.
            prompt: put this before every text; "" for none.
            prompt_name: put the manifest's prompt of this name before every text; without prompt and
                prompt_name, the manifest's default prompt, if it has one. A model that has prompts for both
                queries and documents, and no default, expects one: without, it warns once.
            dimensions: cut vectors to their first so many numbers (Matryoshka); those that were scaled to
                length 1 are scaled again.
            normalize: scale vectors to length 1, or do not; None does what the model does.

        Raises:
            UsageError: an element that is not a str (its position is named), an impossible option, or a
                closed embedder.
        """
        readout = self._dense_readout(dimensions, normalize)
        prefix = self._prompting.choose(prompt, prompt_name)
        blocks = self.model.stream(windows(texts, prefix), readout)
        return (vector for _, vectors in blocks for vector in vectors)

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
    ) -> FloatArray:
        """The vectors of all texts, float32 [N, D]; [1, D] for one text. Arguments and errors as in `embed`."""
        readout = self._dense_readout(dimensions, normalize)
        prefix = self._prompting.choose(prompt, prompt_name)
        blocks = [vectors for _, vectors in self.model.stream(windows(texts, prefix), readout)]
        return np.concatenate(blocks) if blocks else np.empty((0, readout.dimensions), np.float32)

    def query_embed(self, queries: str | Iterable[str], **options: Unpack[EmbedOptions]) -> VectorStream:
        """`embed` with the model's query prompt, or none; `prompt` or `prompt_name` choose another."""
        return self.embed(queries, **self._prompted("query", options))

    def passage_embed(self, passages: str | Iterable[str], **options: Unpack[EmbedOptions]) -> VectorStream:
        """`embed` with the model's document prompt, or none; `prompt` or `prompt_name` choose another."""
        return self.embed(passages, **self._prompted("document", options))

    def encode_query(self, queries: str | Iterable[str], **options: Unpack[EmbedOptions]) -> FloatArray:
        """`encode` with the model's query prompt, or none; `prompt` or `prompt_name` choose another."""
        return self.encode(queries, **self._prompted("query", options))

    def encode_document(self, documents: str | Iterable[str], **options: Unpack[EmbedOptions]) -> FloatArray:
        """`encode` with the model's document prompt, or none; `prompt` or `prompt_name` choose another."""
        return self.encode(documents, **self._prompted("document", options))

    def embed_sparse(
        self, texts: str | Iterable[str], *, prompt: str | None = None, prompt_name: str | None = None
    ) -> Generator[SparseEmbedding, None, None]:
        """Stream the sparse embedding of each text, in the order of the texts. Arguments and errors as in `embed`.

        Raises UsageError also for a model that makes none.
        """
        readout = SparseReadout(self.manifest.require_sparse())
        prefix = self._prompting.choose(prompt, prompt_name)
        blocks = self.model.stream(windows(texts, prefix), readout)
        return (embedding for _, embeddings in blocks for embedding in embeddings)

    def embed_multi_vector(
        self,
        texts: str | Iterable[str],
        *,
        kind: TextKind | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
    ) -> VectorStream:
        """Stream the vectors of each text's tokens, float32 [T, D], in the order of the texts.

        Arguments and errors as in `embed`. `kind` says what the texts are, "query" or "document": markers,
        lengths, query expansion and skipped tokens are that kind's, and so is the prompt, unless one is given.
        Only a model that treats both alike may go without it.

        Raises UsageError also for a model that makes no such vectors, and for a kind that is missing or unknown.
        """
        section = self.manifest.require_multi_vector()
        if kind not in TEXT_KINDS and not (kind is None and treats_alike(section)):
            raise UsageError(
                f"kind is {kind!r}, not 'query' or 'document', which this model does not treat alike (--kind)"
            )
        options: EmbedOptions = {"prompt": prompt, "prompt_name": prompt_name}
        if kind is not None:
            options = self._prompted(kind, options)
        prefix = self._prompting.choose(options["prompt"], options["prompt_name"])

        length = section.query_length if kind == "query" else section.document_length
        readout = MultiVectorReadout(section, kind or "document")
        blocks = self.model.stream(windows(texts, prefix), readout, max_length=length.value)
        return (vectors for _, texts_vectors in blocks for vectors in texts_vectors)

    def encode_all(
        self,
        texts: str | Iterable[str],
        *,
        dense: bool = True,
        sparse: bool = True,
        multi_vector: bool = True,
        prompt: str | None = None,
        prompt_name: str | None = None,
    ) -> Embeddings:
        """Several kinds of embeddings of all texts, from one run of the model (as bge-m3's are meant).

        Raises UsageError for a kind that the model does not make (pass False for it), and as `embed` does.
        """
        readouts: list[Readout[Any]] = []
        if dense:
            readouts.append(self._dense_readout())
        if sparse:
            readouts.append(SparseReadout(self.manifest.require_sparse()))
        if multi_vector:
            section = self.manifest.require_multi_vector()
            if not treats_alike(section):
                raise UsageError(
                    "this model does not treat queries and documents alike: use embed_multi_vector(texts, kind=...)"
                )
            readouts.append(MultiVectorReadout(section, "document"))
        if not readouts:
            raise UsageError("encode_all was asked for no kind of embedding: dense, sparse and multi_vector are False")
        prefix = self._prompting.choose(prompt, prompt_name)
        blocks = self.model.stream(windows(texts, prefix), JointReadout(readouts))
        embeddings = [items for _, block in blocks for items in block]
        columns = iter([list(column) for column in zip(*embeddings, strict=True)] or [[] for _ in readouts])
        vectors = next(columns) if dense else None
        return Embeddings(
            dense=None if vectors is None else np.array(vectors, np.float32).reshape(-1, self.dimension),
            sparse=next(columns) if sparse else None,
            multi_vector=next(columns) if multi_vector else None,
        )

    def decode_sparse(self, embedding: SparseEmbedding, top_k: int | None = None) -> list[tuple[str | None, float]]:
        """The tokens that a sparse embedding's indices stand for, with their weights, the largest first.

        The token is None for an id that the tokenizer does not use. `top_k` keeps so many of them. Raises
        UsageError for a model that makes no sparse embeddings.
        """
        self.manifest.require_sparse()
        top = None if top_k is None else whole_number("top_k", top_k)
        order = np.argsort(-embedding.values, kind="stable")[:top]
        tokens = self.model.tokens(embedding.indices[order])
        return list(zip(tokens, embedding.values[order].tolist(), strict=True))

    def token_count(self, texts: str | Iterable[str]) -> int:
        """Number of tokens the model reads for these texts: special tokens included, prompts not, cut to length."""
        return sum(len(tokens) for window in windows(texts) for tokens in self.model.tokenize(window))

    def tokenize(self, texts: str | Iterable[str]) -> list[Tokens]:
        """Token ids of each text as the model gets them: special tokens included, cut to length, no prompt."""
        return [tokens for window in windows(texts) for tokens in self.model.tokenize(window)]

    def forward(self, feeds: Feeds) -> FloatArray:
        """Vectors [B, D] of a padded batch: int64 [B, T] each for input_ids, attention_mask and token_type_ids.

        For callers with ids of their own; a text's vector is as `embed` gives it without options. Inputs that
        the graph does not take may be left out. Raises UsageError for one that is missing.
        """
        return self.model.compute(self._dense_readout(), feeds)

    def __repr__(self) -> str:
        return f"OnnxEmbedder({str(self.folder)!r}, dimension={self.dimension}, max_length={self.max_length})"

    def _dense_readout(self, dimensions: int | None = None, normalize: bool | None = None) -> DenseReadout:
        """How dense vectors are made; UsageError for a model that makes none, and for an impossible option."""
        if self._dense is None:
            self._dense = dense_readout(self.folder, self.manifest.require_embedding())
        if dimensions is None and normalize is None:
            return self._dense
        return self._dense.with_options(dimensions, normalize)

    def _prompted(self, kind: TextKind, options: EmbedOptions) -> EmbedOptions:
        """The options with the model's prompt for texts of this kind, unless they choose one themselves."""
        if options.get("prompt") is None and options.get("prompt_name") is None:
            options["prompt"] = self._prompting.of_kind(kind)
        return options
