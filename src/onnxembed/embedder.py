"""OnnxEmbedder: texts -> prompt -> token ids -> runs without padding -> session -> vectors in order."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypedDict, Unpack

import numpy as np

from onnxembed.arguments import whole_number
from onnxembed.arrays import Feeds, FloatArray
from onnxembed.errors import UsageError
from onnxembed.execution.providers import Providers
from onnxembed.manifest import TEXT_KINDS, Embedding, TextKind
from onnxembed.runtime.model import OpenModel
from onnxembed.runtime.outputs.dense import dense_vectors, finishing, load_layers
from onnxembed.runtime.outputs.joint import Embeddings, Read, columns, joint_job
from onnxembed.runtime.outputs.multi_vector import OUTPUT, multi_vectors, plain_vectors, prepare, treats_alike
from onnxembed.runtime.outputs.sparse import OUTPUTS, SparseEmbedding, sparse_embeddings
from onnxembed.runtime.prompts import Prompting
from onnxembed.runtime.streaming import Job, items, rows, windows
from onnxembed.tokenizer.texts import Tokens

VectorStream = Generator[FloatArray, None, None]


class EmbedOptions(TypedDict, total=False):
    """The options of `OnnxEmbedder.embed`, which describes them; every embedding method takes the same."""

    prompt: str | None
    prompt_name: str | None
    dimensions: int | None
    normalize: bool | None


class OnnxEmbedder:
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
        precision: Literal["auto", "fp32", "fp16", "bf16", "int16", "int8", "int8w"] = "auto",
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
        self._runner = OpenModel(
            model,
            ("embedding", "sparse", "multi_vector"),
            precision=precision,
            onnx_file=onnx_file,
            providers=providers,
            threads=threads,
            device_id=device_id,
            device_ids=device_ids,
            max_length=max_length,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            check_files=check_files,
        )
        self.folder, self.manifest = self._runner.folder, self._runner.manifest
        self.threads, self.max_length = self._runner.threads, self._runner.max_length
        self.provider = self._runner.provider
        """The ONNX Runtime provider in use."""
        self._layers = load_layers(self.folder, self.manifest.embedding) if self.manifest.embedding else []
        self._prompting = Prompting(self.manifest.prompts)

    @property
    def dimension(self) -> int:
        """Length of this model's vectors; of those that its tokens have, where it makes no others."""
        section = self.manifest.embedding or self.manifest.multi_vector or self.manifest.require_sparse()
        return section.dimension

    @property
    def _embedding(self) -> Embedding:
        """How dense vectors are made; UsageError for a model that makes none."""
        return self.manifest.require_embedding()

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
        blocks = self._blocks(texts, prompt, prompt_name, dimensions, normalize)
        return (vector for block in blocks for vector in block)

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
        blocks = list(self._blocks(texts, prompt, prompt_name, dimensions, normalize))
        return np.concatenate(blocks) if blocks else np.empty((0, dimensions or self.dimension), np.float32)

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
        section = self.manifest.require_sparse()
        output = OUTPUTS[section.aggregated_by]

        def compute(tokens: list[Tokens]) -> Sequence[SparseEmbedding]:
            feeds = self._runner.feeds(tokens)
            return sparse_embeddings(section, self._runner.run([output], feeds)[0], feeds)

        prefix = self._prompting.choose(prompt, prompt_name)
        self._runner.check_open()
        blocks = self._runner.stream(windows(texts, prefix), Job(compute, items))
        return (embedding for block in blocks for embedding in block)

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

        def compute(tokens: list[Tokens]) -> Sequence[FloatArray]:
            feeds, kept = prepare(section, kind or "document", self._runner.feeds(tokens))
            return multi_vectors(self._runner.run([OUTPUT], feeds)[0], kept)

        self._runner.check_open()
        length = section.query_length if kind == "query" else section.document_length
        blocks = self._runner.stream(windows(texts, prefix), Job(compute, items), max_length=length.value)
        return (vectors for block in blocks for vectors in block)

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
        reads: dict[str, Read] = {}  # by the graph's output that is read
        if dense:
            reads[self._embedding.graph_output] = partial(dense_vectors, self._embedding, self._layers)
        if sparse:
            weights = self.manifest.require_sparse()
            reads[OUTPUTS[weights.aggregated_by]] = partial(sparse_embeddings, weights)
        if multi_vector:
            reads[OUTPUT] = plain_vectors(self.manifest.require_multi_vector())
        if not reads:
            raise UsageError("encode_all was asked for no kind of embedding: dense, sparse and multi_vector are False")

        prefix = self._prompting.choose(prompt, prompt_name)
        self._runner.check_open()
        blocks = self._runner.stream(windows(texts, prefix), joint_job(self._runner, reads))
        found = iter(columns(blocks, len(reads)))
        return Embeddings(
            dense=self._stacked(next(found)) if dense else None,
            sparse=next(found) if sparse else None,
            multi_vector=next(found) if multi_vector else None,
        )

    def _stacked(self, vectors: list[FloatArray]) -> FloatArray:
        """Vectors [D] from the graph as an array [N, D], finished as the model does it."""
        none = np.empty((0, self.dimension), np.float32)
        return finishing(self._embedding, None, None)(np.stack(vectors)) if vectors else none

    def decode_sparse(self, embedding: SparseEmbedding, top_k: int | None = None) -> list[tuple[str | None, float]]:
        """The tokens that a sparse embedding's indices stand for, with their weights, the largest first.

        The token is None for an id that the tokenizer does not use. `top_k` keeps so many of them. Raises
        UsageError for a model that makes no sparse embeddings.
        """
        self.manifest.require_sparse()
        top = None if top_k is None else whole_number("top_k", top_k)
        order = np.argsort(-embedding.values, kind="stable")[:top]
        tokens = self._runner.tokens(embedding.indices[order])
        return list(zip(tokens, embedding.values[order].tolist(), strict=True))

    def token_count(self, texts: str | Iterable[str]) -> int:
        """Number of tokens the model reads for these texts: special tokens included, prompts not, cut to length."""
        return sum(len(tokens) for window in windows(texts) for tokens in self._runner.tokenize(window))

    def tokenize(self, texts: str | Iterable[str]) -> list[Tokens]:
        """Token ids of each text as the model gets them: special tokens included, cut to length, no prompt."""
        return [tokens for window in windows(texts) for tokens in self._runner.tokenize(window)]

    def forward(self, feeds: Feeds) -> FloatArray:
        """Vectors [B, D] of a padded batch: int64 [B, T] each for input_ids, attention_mask and token_type_ids.

        For callers with ids of their own; a text's vector is as `embed` gives it without options. Inputs that
        the graph does not take may be left out. Raises UsageError for one that is missing.
        """
        missing = [name for name in self.manifest.model.inputs if name not in feeds]
        if missing:
            raise UsageError(f"this model also takes {', '.join(missing)}")
        return finishing(self._embedding, None, None)(self._compute(feeds))

    def close(self) -> None:
        """Free the session and its threads; the embedder cannot be used afterwards. Safe to repeat.

        A stream that is still being read gives the vectors it has, then raises UsageError.
        """
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"OnnxEmbedder({str(self.folder)!r}, dimension={self.dimension}, max_length={self.max_length})"

    # ---- from texts to vectors

    def _prompted(self, kind: TextKind, options: EmbedOptions) -> EmbedOptions:
        """The options with the model's prompt for texts of this kind, unless they choose one themselves."""
        if options.get("prompt") is None and options.get("prompt_name") is None:
            options["prompt"] = self._prompting.of_kind(kind)
        return options

    def _blocks(
        self,
        texts: str | Iterable[str],
        prompt: str | None,
        prompt_name: str | None,
        dimensions: int | None,
        normalize: bool | None,
    ) -> Iterator[FloatArray]:
        """Check everything but the texts themselves; then vectors [N, D] of one window after another."""
        finish = finishing(self._embedding, dimensions, normalize)
        prefix = self._prompting.choose(prompt, prompt_name)
        self._runner.check_open()
        blocks = self._runner.stream(windows(texts, prefix), Job(self._run, rows))
        return (finish(vectors) for vectors in blocks)

    def _run(self, texts: list[Tokens]) -> FloatArray:
        """Vectors [B, D] of the texts of one run, before `finishing`."""
        return self._compute(self._runner.feeds(texts))

    def _compute(self, feeds: Feeds) -> FloatArray:
        """What the graph, and the pooling and Dense layers left out of it, give: vectors [B, D] before `finishing`."""
        output = self._runner.run([self._embedding.graph_output], feeds)[0]
        return dense_vectors(self._embedding, self._layers, output, feeds)
