"""OnnxEmbedder: texts -> prompt -> token ids -> runs without padding -> graph -> vectors in order."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

import numpy as np

from onnxembed.arguments import whole_number
from onnxembed.arrays import Feeds, FloatArray
from onnxembed.errors import UsageError
from onnxembed.execution.backend import Placement
from onnxembed.execution.providers import Providers
from onnxembed.hub.source import HubOptions
from onnxembed.loading.choices import AdoptionChoices
from onnxembed.manifest import TEXT_KINDS, PoolingMode, Precision, TextKind
from onnxembed.runtime.given import given_texts
from onnxembed.runtime.open_model import OpenModel
from onnxembed.runtime.outputs.dense import DenseReadout, dense_readout
from onnxembed.runtime.outputs.joint import Embeddings, JointReadout, TextEmbeddings
from onnxembed.runtime.outputs.multi_vector import MultiVectorReadout, treats_alike
from onnxembed.runtime.outputs.readout import Readout
from onnxembed.runtime.outputs.sparse import SparseEmbedding, SparseReadout
from onnxembed.runtime.prompts import Prompting
from onnxembed.runtime.public_base import OnnxModel
from onnxembed.runtime.streaming import windows
from onnxembed.tokenizer.texts import Tokens

VectorStream = Generator[FloatArray, None, None]


class PromptOptions(TypedDict, total=False):
    """The options of every method; `OnnxEmbedder.embed` describes them."""

    prompt: str | None
    prompt_name: str | None


class KindOptions(PromptOptions, total=False):
    """The options of `OnnxEmbedder.encode_all`: the kinds of embeddings that are asked for."""

    dense: bool
    sparse: bool
    multi_vector: bool


class EmbedOptions(PromptOptions, total=False):
    """The options of every method for dense vectors; `OnnxEmbedder.embed` describes them."""

    dimensions: int | None
    normalize: bool | None


class OnnxEmbedder(OnnxModel):
    """An embedding model, from a folder or a hub repository with an artifact.

    Needs numpy, tokenizers and onnxruntime; never torch. Safe to use from many threads. `with
    OnnxEmbedder(...) as model:` frees the graph at the end of the block, as `close()` does.

    Args:
        model: a folder that `onnxembed export` wrote, or the hub id of a repository with its files. A folder or
            repository with an ONNX graph from elsewhere is adopted in memory: pooling, prompts and the rest are
            decided from its files as for an export, and nothing has been verified.
        precision: "fp32", "fp16", "bf16" (CUDA only), "int16", "int8", "int8w", or "auto": fp32 if the artifact
            has it, else the first one that it has.
        onnx_file: the path of the graph to adopt, if it is not onnx/model.onnx or model.onnx.
        pooling: how the tokens of a graph to adopt are pooled, whatever its files say: "cls", "mean", "lasttoken",
            "max", "weightedmean", "mean_sqrt_len", or several of them. Like the next three arguments, it is for a
            graph from elsewhere: about an artifact, all is decided.
        normalize: whether the vectors of a graph to adopt are scaled to length 1, whatever its files say.
        task: what to adopt a graph for, where its files do not say it: "embedding", "sparse" or "multi_vector".
        share_scales: run the texts of a graph together whose dynamic quantization gives all texts of a run one scale.
            Each text then changes the others' vectors; by default, each runs by itself.
        providers: "auto" (CUDA if it can be used, else the CPU), "cpu", "cuda", "tensorrt", or a list of ONNX
            Runtime's provider names or (name, options) pairs, in order of preference.
        threads: the number of CPU threads; all that the process may use if None.
        device_id: the number of the GPU to use; the first one if None.
        device_ids: the numbers of several GPUs to share the work among, instead of `device_id`.
        max_length: texts are cut to this many tokens; at most the model's own limit, which is the default.
        revision: a branch, tag or commit of a hub repository.
        cache_dir: where hub files are kept; the hub client's standard cache if None.
        local_files_only: use the files in the cache, and never ask the hub.
        check_files: compare the sha256 of every file with the manifest while loading.

    Raises:
        ModelFilesError: the model is not an artifact, or its files are not the ones that its manifest records.
        HubError: the hub could not be reached, or it refused.
        ProviderError: a requested provider cannot be used.
        UsageError: an argument has an impossible value, or the artifact makes no embeddings.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        precision: Literal["auto"] | Precision = "auto",
        onnx_file: str | None = None,
        pooling: PoolingMode | Sequence[PoolingMode] | None = None,
        normalize: bool | None = None,
        task: Literal["embedding", "sparse", "multi_vector"] | None = None,
        share_scales: bool = False,
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
            Placement(providers, threads, device_id, device_ids),
            precision=precision,
            onnx_file=onnx_file,
            max_length=max_length,
            check_files=check_files,
            choices=AdoptionChoices(
                pooling=None if pooling is None else (pooling,) if isinstance(pooling, str) else tuple(pooling),
                normalize=normalize,
                task=task,
                share_scales=share_scales,
            ),
        )
        self._use(opened)

    def _use(self, model: OpenModel) -> None:
        super()._use(model)
        section = model.manifest.embedding
        self._dense = dense_readout(model.folder, section) if section else None
        self._prompting = Prompting(model.manifest.prompts)

    @property
    def dimension(self) -> int:
        """The length of the model's vectors: per token for a multi-vector model, of the vocabulary for a sparse one."""
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

        Takes any iterable, even an endless one: about two thousand texts are read ahead, and memory stays
        bounded. Options are checked at once, texts when they are read. Leaving the stream early, or calling
        its `close()`, drops the work that has not begun.

        Args:
            texts: one text, or an iterable of texts.
            prompt: the prompt to put before every text; "" for none.
            prompt_name: the name of the model's prompt to put before every text. Without `prompt` and
                `prompt_name`, it is the model's default prompt, if there is one. A model with prompts for both
                queries and documents and without a default expects a prompt: if it gets none, it warns once.
            dimensions: keep only the first `dimensions` numbers of each vector (Matryoshka); vectors of length 1
                are scaled to length 1 again.
            normalize: whether to scale vectors to length 1; None does what the model does.

        Raises:
            UsageError: an element is not a str (the message names its position), an option has an impossible
                value, the model makes no dense vectors, or the embedder is closed.
        """
        readout = self._dense_readout(dimensions, normalize)
        prefix = self._prompting.choose(prompt, prompt_name)
        blocks = self.model.stream(windows(given_texts(texts).items, prefix), readout)
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
        """The vectors of all texts, float32 [N, D]; of one str, [D]. Arguments and errors as for `embed`."""
        readout = self._dense_readout(dimensions, normalize)
        prefix = self._prompting.choose(prompt, prompt_name)
        given = given_texts(texts)
        blocks = [vectors for _, vectors in self.model.stream(windows(given.items, prefix), readout)]
        vectors = np.concatenate(blocks) if blocks else np.empty((0, readout.dimensions), np.float32)
        return vectors[0] if given.single else vectors

    def query_embed(self, queries: str | Iterable[str], **options: Unpack[EmbedOptions]) -> VectorStream:
        """`embed` with the model's query prompt, if it has one; `prompt` and `prompt_name` override it."""
        return self.embed(queries, **self._prompted("query", options))

    def passage_embed(self, passages: str | Iterable[str], **options: Unpack[EmbedOptions]) -> VectorStream:
        """`embed` with the model's document prompt, if it has one; `prompt` and `prompt_name` override it."""
        return self.embed(passages, **self._prompted("document", options))

    def encode_query(self, queries: str | Iterable[str], **options: Unpack[EmbedOptions]) -> FloatArray:
        """`encode` with the model's query prompt, if it has one; `prompt` and `prompt_name` override it."""
        return self.encode(queries, **self._prompted("query", options))

    def encode_document(self, documents: str | Iterable[str], **options: Unpack[EmbedOptions]) -> FloatArray:
        """`encode` with the model's document prompt, if it has one; `prompt` and `prompt_name` override it."""
        return self.encode(documents, **self._prompted("document", options))

    def embed_sparse(
        self, texts: str | Iterable[str], *, prompt: str | None = None, prompt_name: str | None = None
    ) -> Generator[SparseEmbedding, None, None]:
        """Stream the sparse embedding of each text, in the order of the texts. Arguments and errors as for `embed`.

        Also raises UsageError for a model that makes no sparse embeddings.
        """
        readout = SparseReadout(self.manifest.require_sparse())
        prefix = self._prompting.choose(prompt, prompt_name)
        blocks = self.model.stream(windows(given_texts(texts).items, prefix), readout)
        return (embedding for _, embeddings in blocks for embedding in embeddings)

    @overload
    def encode_sparse(self, texts: str, **options: Unpack[PromptOptions]) -> SparseEmbedding: ...  # type: ignore[overload-overlap]
    @overload
    def encode_sparse(self, texts: Iterable[str], **options: Unpack[PromptOptions]) -> list[SparseEmbedding]: ...
    def encode_sparse(
        self, texts: str | Iterable[str], **options: Unpack[PromptOptions]
    ) -> SparseEmbedding | list[SparseEmbedding]:
        """The sparse embedding of each text, in a list; of one str, by itself. Otherwise as `embed_sparse`."""
        given = given_texts(texts)
        embeddings = list(self.embed_sparse(given.items, **options))
        return embeddings[0] if given.single else embeddings

    def embed_multi_vector(
        self,
        texts: str | Iterable[str],
        *,
        kind: TextKind | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
    ) -> VectorStream:
        """Stream the vectors of each text's tokens, float32 [T, D], in the order of the texts.

        Arguments and errors as for `embed`. `kind` says what the texts are, "query" or "document": it decides the
        prompt (unless one is given), the length, query expansion and skipped tokens. It may be left out only for
        a model that treats both alike.

        Also raises UsageError for a model that makes no such vectors, and for a kind that is missing or unknown.
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
        blocks = self.model.stream(windows(given_texts(texts).items, prefix), readout, max_length=length.value)
        return (vectors for _, block in blocks for vectors in block)

    @overload
    def encode_multi_vector(  # type: ignore[overload-overlap]
        self, texts: str, *, kind: TextKind | None = None, **options: Unpack[PromptOptions]
    ) -> FloatArray: ...
    @overload
    def encode_multi_vector(
        self, texts: Iterable[str], *, kind: TextKind | None = None, **options: Unpack[PromptOptions]
    ) -> list[FloatArray]: ...
    def encode_multi_vector(
        self, texts: str | Iterable[str], *, kind: TextKind | None = None, **options: Unpack[PromptOptions]
    ) -> FloatArray | list[FloatArray]:
        """The vectors [T, D] of each text, in a list; of one str, by themselves. Otherwise as `embed_multi_vector`."""
        given = given_texts(texts)
        vectors = list(self.embed_multi_vector(given.items, kind=kind, **options))
        return vectors[0] if given.single else vectors

    @overload
    def encode_all(self, texts: str, **options: Unpack[KindOptions]) -> TextEmbeddings: ...  # type: ignore[overload-overlap]
    @overload
    def encode_all(self, texts: Iterable[str], **options: Unpack[KindOptions]) -> Embeddings: ...
    def encode_all(
        self,
        texts: str | Iterable[str],
        *,
        dense: bool = True,
        sparse: bool = True,
        multi_vector: bool = True,
        prompt: str | None = None,
        prompt_name: str | None = None,
    ) -> Embeddings | TextEmbeddings:
        """Several kinds of embeddings of all texts, from one run of the model, for models such as bge-m3.

        For one str, each kind is that of the text by itself: [D], one sparse embedding, [T, D].

        Raises UsageError for a kind that the model does not make (pass False for it), and in the cases of `embed`.
        """
        readouts: dict[str, Readout[Any]] = {}
        if dense:
            readouts["dense"] = self._dense_readout()
        if sparse:
            readouts["sparse"] = SparseReadout(self.manifest.require_sparse())
        if multi_vector:
            section = self.manifest.require_multi_vector()
            if not treats_alike(section):
                raise UsageError(
                    "this model does not treat queries and documents alike: use embed_multi_vector(texts, kind=...)"
                )
            readouts["multi_vector"] = MultiVectorReadout(section, "document")
        if not readouts:
            raise UsageError("encode_all was asked for no kind of embedding: dense, sparse and multi_vector are False")
        given = given_texts(texts)
        prefix = self._prompting.choose(prompt, prompt_name)
        blocks = self.model.stream(windows(given.items, prefix), JointReadout(list(readouts.values())))
        rows = [row for _, block in blocks for row in block]
        columns: dict[str, Any] = {kind: [row[place] for row in rows] for place, kind in enumerate(readouts)}
        if dense:
            columns["dense"] = np.array(columns["dense"], np.float32).reshape(-1, self.dimension)
        wanted = [columns.get(kind) for kind in ("dense", "sparse", "multi_vector")]
        if given.single:
            return TextEmbeddings(*(None if column is None else column[0] for column in wanted))
        return Embeddings(*wanted)

    def decode_sparse(self, embedding: SparseEmbedding, top_k: int | None = None) -> list[tuple[str | None, float]]:
        """The tokens of a sparse embedding with their weights, the largest weights first; at most `top_k` tokens.

        The token is None for an id that the tokenizer does not use. Raises UsageError for a model that makes no
        sparse embeddings.
        """
        self.manifest.require_sparse()
        top = None if top_k is None else whole_number("top_k", top_k)
        order = np.argsort(-embedding.values, kind="stable")[:top]
        tokens = self.model.tokens(embedding.indices[order])
        return list(zip(tokens, embedding.values[order].tolist(), strict=True))

    def token_count(self, texts: str | Iterable[str]) -> int:
        """The number of tokens of all texts, cut to length, with special tokens and without prompts."""
        given = given_texts(texts)
        return sum(len(tokens) for window in windows(given.items) for tokens in self.model.tokenize(window))

    @overload
    def tokenize(self, texts: str) -> Tokens: ...  # type: ignore[overload-overlap]
    @overload
    def tokenize(self, texts: Iterable[str]) -> list[Tokens]: ...
    def tokenize(self, texts: str | Iterable[str]) -> Tokens | list[Tokens]:
        """The token ids of each text, cut to length, with special tokens and without prompts."""
        given = given_texts(texts)
        tokens = [tokens for window in windows(given.items) for tokens in self.model.tokenize(window)]
        return tokens[0] if given.single else tokens

    def forward(self, feeds: Feeds) -> FloatArray:
        """Vectors [B, D] of a padded batch: int64 [B, T] each for input_ids, attention_mask and token_type_ids.

        For callers that tokenize themselves; the vectors are those of `embed` without options. Inputs that the
        graph does not take may be left out. Raises UsageError if another one is missing.
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
