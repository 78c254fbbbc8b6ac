"""OnnxEmbedder: texts -> prompt -> token ids -> runs without padding -> graph -> vectors in order."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import numpy as np

from onnxembed.arrays import Array, Feeds, FloatArray
from onnxembed.errors import UsageError
from onnxembed.execution.providers import Placement, Providers
from onnxembed.hub.source import HubOptions
from onnxembed.loading.choices import AdoptionChoices
from onnxembed.manifest import TEXT_KINDS, PoolingMode, Precision, TextKind
from onnxembed.proof.opening import proved
from onnxembed.quantization import quantizing
from onnxembed.runtime.asynchronous import stream_twin, twin
from onnxembed.runtime.given import given_texts
from onnxembed.runtime.open_model import OpenModel
from onnxembed.runtime.options import DEFAULTS, EmbedOptions, KindOptions, Options, PromptOptions, take_options
from onnxembed.runtime.outputs.dense import DenseReadout, QuantizedReadout, dense_readout
from onnxembed.runtime.outputs.joint import Embeddings, JointReadout, TextEmbeddings
from onnxembed.runtime.outputs.multi_vector import MultiVectorReadout, treats_alike
from onnxembed.runtime.outputs.readout import Readout
from onnxembed.runtime.outputs.sparse import SparseEmbedding, SparseEmbeddings, SparseReadout
from onnxembed.runtime.outputs.tokens import TokenEmbeddings, TokenReadout
from onnxembed.runtime.similarity_name import similarity_name
from onnxembed.runtime.streaming import collected
from onnxembed.runtime.text_model import TextModel
from onnxembed.similarity import Compared, items_of, similarities

VectorStream = Generator[Array, None, None]


class OnnxEmbedder(TextModel):
    """An embedding model, from a folder or a hub repository with an artifact.

    Needs numpy, tokenizers and onnxruntime; never torch. Safe to use from many threads. `with
    OnnxEmbedder(...) as model:` frees the graph at the end of the block, as `close()` does.

    Args:
        model: a folder that `onnxembed export` wrote, or the hub id of a repository with its files. A folder or
            repository with an ONNX graph from elsewhere is adopted in memory: pooling, prompts and the rest are
            decided from its files as for an export, and nothing has been verified.
        precision: "fp32", "fp16", "bf16", "int16", "int8", "int8w", or "auto": fp32 if the artifact has it, else the
            first one that it has. bf16 is for CUDA, and for CPUs with its instructions, which compute the fp32 graph.
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
        spin: whether the threads that compute a single text keep their cores busy until the next one. It then takes a
            little less time, and the cores serve nothing else.
        device_id: the number of the GPU to use; the first one if None.
        device_ids: the numbers of several GPUs to share the work among, instead of `device_id`.
        max_length: texts are cut to this many tokens; at most the model's own limit, which is the default.
        dimensions: the length that dense vectors are cut to (Matryoshka), unless a call says another one.
        truncate_dim: `dimensions`, by the name that sentence-transformers gives it.
        prompts: prompts by name, beside the model's own and in their place; those named "query", and "document" or
            "passage", are what `encode_query` and `encode_document` put before texts.
        default_prompt_name: the name of the prompt for calls that name none; the model's own default if None.
        revision: a branch, tag or commit of a hub repository. A branch or tag is asked for each time a model is
            opened; if the hub cannot be reached, the copy in the cache is used, with a warning. A commit in the cache
            asks nothing. The attribute `revision` is the commit that is open.
        cache_dir: where hub files are kept; the hub client's standard cache if None.
        local_files_only: use the files in the cache, and never ask the hub.
        refresh: download every file anew, whatever the cache has.
        token: the hub's access token; the one of HF_TOKEN or `hf auth login` if None, no token if False.
        check_files: compare the sha256 of every file with the manifest while loading.
        prove: whether to compare the graph's results with the artifact's proof before anything is embedded. None does
            so once on each machine for every provider and precision but the plain fp32 graph on the CPU, or as the
            variable ONNXEMBED_PROVE says ("once", "always", "never"); see docs/proof.md.

    Raises:
        ModelFilesError: the model is not an artifact, or its files are not the ones that its manifest records.
        HubError: the hub could not be reached, or it refused.
        ProviderError: a requested provider cannot be used.
        ProofError: the graph does not give the model's own results on this machine.
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
        spin: bool = False,
        device_id: int | None = None,
        device_ids: Sequence[int] | None = None,
        max_length: int | None = None,
        dimensions: int | None = None,
        truncate_dim: int | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        refresh: bool = False,
        token: str | bool | None = None,
        check_files: bool = True,
        prove: bool | None = None,
    ) -> None:
        if truncate_dim is not None and dimensions not in (None, truncate_dim):
            raise UsageError(f"dimensions is {dimensions}, and truncate_dim, its other name, {truncate_dim}")
        placement = Placement(providers, threads, device_id, device_ids, spin=spin)
        opened = OpenModel(
            model,
            ("embedding", "sparse", "multi_vector"),
            placement,
            hub=HubOptions(revision, cache_dir, local_files_only, refresh, token),
            precision=precision,
            onnx_file=onnx_file,
            max_length=max_length,
            prompts=prompts,
            default_prompt_name=default_prompt_name,
            check_files=check_files,
            choices=AdoptionChoices(
                pooling=None if pooling is None else (pooling,) if isinstance(pooling, str) else tuple(pooling),
                normalize=normalize,
                task=task,
                share_scales=share_scales,
            ),
        )
        self._open(proved(opened, placement, prove))
        if (cut := truncate_dim if dimensions is None else dimensions) is not None:
            self._cut(cut)
        elif opened.manifest.embedding and opened.manifest.embedding.dense:
            _ = self._dense  # so that a file that is no Dense layer is found now

    _dimensions: int | None = None

    @cached_property
    def _dense(self) -> DenseReadout:
        """How the model's own dense vectors are made; UsageError for a model that makes none."""
        return dense_readout(self.folder, self.manifest.require_embedding())

    def _cut(self, dimensions: int) -> None:
        """Cut dense vectors to a length, where a call does not say another one."""
        readout = self._dense_readout(dimensions)
        self._dense, self._dimensions = readout, readout.dimensions

    @property
    def dimension(self) -> int:
        """The length of the model's vectors: per token for a multi-vector model, of the vocabulary for a sparse one."""
        section = self.manifest.embedding or self.manifest.multi_vector or self.manifest.require_sparse()
        return self._dimensions or section.dimension

    @property
    def truncate_dim(self) -> int | None:
        """The length that vectors are cut to, as `dimensions` of the constructor says; None if they are whole."""
        return self._dimensions

    def embed(self, texts: str | Iterable[str], **options: Unpack[EmbedOptions]) -> VectorStream:
        """Stream the vector of each text, float32 [D] unless `dtype` says otherwise, in the order of the texts.

        Takes any iterable, even an endless one: about two thousand texts are read ahead, and memory stays
        bounded. Options are checked at once, texts when they are read. Leaving the stream early, or calling
        its `close()`, drops the work that has not begun.

        Args:
            texts: one text, or an iterable of texts: a list, a generator, a column of a data frame, an Arrow array.
            prompt: the prompt to put before every text; "" for none.
            prompt_name: the name of the model's prompt to put before every text. Without `prompt` and
                `prompt_name`, it is the model's default prompt, if there is one. A model with prompts for both
                queries and documents and without a default expects a prompt: if it gets none, it warns once.
            dimensions: keep only the first `dimensions` numbers of each vector (Matryoshka); vectors of length 1
                are scaled to length 1 again.
            normalize: whether to scale vectors to length 1; None does what the model does.
            dtype: the type of the numbers, which `quantize_embeddings` describes: "float16", "int8", "uint8",
                "binary" or "ubinary"; float32 if None. It has nothing to do with the precision of the graph.
            ranges: for int8 and uint8: the lowest and the highest number of each dimension, [2, D], as
                `quantization_ranges` takes them from typical vectors.
            batch_size: the most texts of a run; runs are planned by their tokens, and need no such bound.
            show_progress: show a bar that counts the texts.
            read_ahead: the most texts that are read before the first vector is given. With 1, each text is answered
                before the next one is read.
            truncate: "cut" shortens a text of too many tokens, and warns once; "error" raises UsageError.
                `tokenize(texts)[i].truncated` says which texts are cut.

        The names of sentence-transformers and FastEmbed are taken, too, where they ask for what is done here
        (`normalize_embeddings`, `truncate_dim`, `precision` for `dtype`, `show_progress_bar`, `convert_to_numpy`,
        `parallel`); for other arguments of theirs, the error names what to use instead.

        Raises:
            UsageError: an element is not a str (the message names its position), an option has an impossible
                value, the model makes no dense vectors, or the embedder is closed.
        """
        taken, readout = self._dense_options("embed", options)
        blocks = self._blocks(given_texts(texts), readout, taken)
        return (vector for _, vectors in blocks for vector in vectors)

    def encode(self, texts: str | Iterable[str], **options: Unpack[EmbedOptions]) -> Array:
        """The vectors of all texts, [N, D]; of one str, [D]. Arguments, types and errors as for `embed`."""
        taken, readout = self._dense_options("encode", options)
        given = given_texts(texts)
        blocks = collected(self._blocks(given, readout, taken))
        vectors: Array = np.concatenate(blocks) if blocks else readout.none()
        return vectors[0] if given.single else vectors

    def query_embed(self, queries: str | Iterable[str], **options: Unpack[EmbedOptions]) -> VectorStream:
        """`embed` with the model's query prompt, if it has one; `prompt` and `prompt_name` override it."""
        return self.embed(queries, **self._prompted("query", options))

    def passage_embed(self, passages: str | Iterable[str], **options: Unpack[EmbedOptions]) -> VectorStream:
        """`embed` with the model's document prompt, if it has one; `prompt` and `prompt_name` override it."""
        return self.embed(passages, **self._prompted("document", options))

    def encode_query(self, queries: str | Iterable[str], **options: Unpack[EmbedOptions]) -> FloatArray | Any:
        """`encode` with the model's query prompt, if it has one; `prompt` and `prompt_name` override it.

        Of a model without dense vectors, what `encode_sparse` or `encode_multi_vector` gives.
        """
        return self._encode_kind("query", queries, options)

    def encode_document(self, documents: str | Iterable[str], **options: Unpack[EmbedOptions]) -> FloatArray | Any:
        """`encode` with the model's document prompt, if it has one; otherwise as `encode_query`."""
        return self._encode_kind("document", documents, options)

    aembed = stream_twin(embed)
    aencode = twin(encode)
    aencode_query = twin(encode_query)
    aencode_document = twin(encode_document)

    @overload
    def embed_tokens(self, texts: str, **options: Unpack[PromptOptions]) -> TokenEmbeddings: ...  # type: ignore[overload-overlap]
    @overload
    def embed_tokens(
        self, texts: Iterable[str], **options: Unpack[PromptOptions]
    ) -> Generator[TokenEmbeddings, None, None]: ...
    def embed_tokens(
        self, texts: str | Iterable[str], **options: Unpack[PromptOptions]
    ) -> TokenEmbeddings | Generator[TokenEmbeddings, None, None]:
        """Stream the tokens of each text with their places and vectors, before pooling; of one str, its own at once.

        The tokens of a prompt are among them. Arguments and errors as for `embed`; also raises UsageError for a graph
        without the output token_embeddings, as some graphs from elsewhere are.
        """
        taken = take_options("embed_tokens", options, PromptOptions)
        given = given_texts(texts)
        blocks = self._blocks(given, TokenReadout(self.manifest.require_embedding()), taken)
        prompt = len(self.model.prompting.choose(taken.prompt, taken.prompt_name))
        embeddings = (
            TokenEmbeddings(tokens, np.maximum(offsets - prompt, 0), vectors)
            for window, block in blocks
            for (tokens, offsets), vectors in zip(self.model.tokenizer.spans(window), block, strict=True)
        )
        if not given.single:
            return embeddings
        (embedding,) = embeddings
        return embedding

    def embed_sparse(
        self, texts: str | Iterable[str], **options: Unpack[PromptOptions]
    ) -> Generator[SparseEmbedding, None, None]:
        """Stream the sparse embedding of each text, in the order of the texts. Arguments and errors as for `embed`.

        Also raises UsageError for a model that makes no sparse embeddings.
        """
        readout = SparseReadout(self.manifest.require_sparse())
        blocks = self._blocks(given_texts(texts), readout, take_options("embed_sparse", options, PromptOptions))
        return (embedding for _, embeddings in blocks for embedding in embeddings)

    @overload
    def encode_sparse(self, texts: str, **options: Unpack[PromptOptions]) -> SparseEmbedding: ...  # type: ignore[overload-overlap]
    @overload
    def encode_sparse(self, texts: Iterable[str], **options: Unpack[PromptOptions]) -> SparseEmbeddings: ...
    def encode_sparse(
        self, texts: str | Iterable[str], **options: Unpack[PromptOptions]
    ) -> SparseEmbedding | SparseEmbeddings:
        """The sparse embedding of each text, in a list; of one str, by itself. Otherwise as `embed_sparse`."""
        embeddings = SparseEmbeddings(self.embed_sparse(texts, **options), self.manifest.require_sparse().dimension)
        return embeddings[0] if given_texts(texts).single else embeddings

    aembed_sparse = stream_twin(embed_sparse)
    aencode_sparse = twin(encode_sparse)

    def embed_multi_vector(
        self, texts: str | Iterable[str], *, kind: TextKind | None = None, **options: Unpack[PromptOptions]
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
        prompted = options if kind is None else self._prompted(kind, options)
        length = section.query_length if kind == "query" else section.document_length
        readout = MultiVectorReadout(section, kind or "document")
        taken = take_options("embed_multi_vector", prompted, PromptOptions)
        blocks = self._blocks(given_texts(texts), readout, taken, length.value)
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
        vectors = list(self.embed_multi_vector(texts, kind=kind, **options))
        return vectors[0] if given_texts(texts).single else vectors

    aembed_multi_vector = stream_twin(embed_multi_vector)
    aencode_multi_vector = twin(encode_multi_vector)

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
        **options: Unpack[PromptOptions],
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
        taken = take_options("encode_all", options, PromptOptions)
        blocks = self._blocks(given, JointReadout(list(readouts.values())), taken)
        rows = [row for _, block in blocks for row in block]
        columns: dict[str, Any] = {kind: [row[place] for row in rows] for place, kind in enumerate(readouts)}
        if dense:
            columns["dense"] = np.array(columns["dense"], np.float32).reshape(-1, self.dimension)
        wanted = [columns.get(kind) for kind in ("dense", "sparse", "multi_vector")]
        if given.single:
            return TextEmbeddings(*(None if column is None else column[0] for column in wanted))
        return Embeddings(*wanted)

    @cached_property
    def similarity_fn_name(self) -> str:
        """How embeddings are compared, as the model's files say: "cosine", "dot", "euclidean", "manhattan", or for
        multi-vector models "maxsim" or "mean_maxsim".

        Where they say nothing, it is what sentence-transformers uses: the cosine, the dot product for sparse models,
        maxsim for multi-vector ones. Raises ModelFilesError if the file that says it cannot be read.
        """
        return similarity_name(self.folder, self.manifest, self._kind)

    def similarity(self, a: Compared, b: Compared) -> FloatArray:
        """How alike each embedding of `a` and each of `b` are, by the model's own measure: [N, M].

        They are vectors [N, D]; of a sparse or multi-vector model, what its methods give. One by itself counts as one
        of one. For a model of several kinds, dense vectors are compared.
        """
        return similarities(self._kind, self.similarity_fn_name, a, b)

    def similarity_pairwise(self, a: Compared, b: Compared) -> FloatArray:
        """How alike each embedding of `a` and the one at the same place in `b` are: [N]."""
        pairs = zip(items_of(self._kind, a), items_of(self._kind, b), strict=True)
        return np.array([self.similarity(x, y)[0, 0] for x, y in pairs], np.float32)

    def get_sentence_embedding_dimension(self) -> int:
        """`dimension`, by the name that sentence-transformers gives it."""
        return self.dimension

    get_embedding_dimension = get_sentence_embedding_dimension

    def forward(self, feeds: Feeds) -> FloatArray:
        """Vectors [B, D] of a padded batch: int64 [B, T] each for input_ids, attention_mask and token_type_ids.

        For callers that tokenize themselves; the vectors are those of `embed` without options. Inputs that the
        graph does not take may be left out. Raises UsageError if another one is missing.
        """
        return self.model.compute(self._dense_readout(), feeds)

    def __repr__(self) -> str:
        return f"OnnxEmbedder({str(self.folder)!r}, dimension={self.dimension}, max_length={self.max_length})"

    def _encode_kind(self, kind: TextKind, texts: str | Iterable[str], options: Any) -> Any:
        if self._kind == "multi_vector":
            return self.encode_multi_vector(texts, kind=kind, **options)
        encode = self.encode if self._kind == "embedding" else self.encode_sparse
        return encode(texts, **self._prompted(kind, options))

    def _dense_options(self, method: str, options: EmbedOptions) -> tuple[Options, DenseReadout | QuantizedReadout]:
        """The options of a call, and how they want dense vectors made."""
        taken = take_options(method, options, EmbedOptions) if options else DEFAULTS
        readout = self._dense_readout(taken.dimensions, taken.normalize)
        if taken.dtype in (None, "float32") and taken.ranges is None:
            return taken, readout
        return taken, QuantizedReadout(readout, quantizing(taken.dtype, readout.dimensions, taken.ranges))

    def _dense_readout(self, dimensions: int | None = None, normalize: bool | None = None) -> DenseReadout:
        """How dense vectors are made; UsageError for a model that makes none, and for an impossible option."""
        if dimensions is None and normalize is None:
            return self._dense
        return self._dense.with_options(self._dimensions if dimensions is None else dimensions, normalize)
