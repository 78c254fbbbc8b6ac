"""OnnxEmbedder: texts -> prompt -> token ids -> runs without padding -> session -> vectors in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from onnxembed import pooling
from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.hub import fetch
from onnxembed.integrity import check_hashes, check_sizes
from onnxembed.manifest import FILE_NAME, PRECISIONS, Dense, Manifest, Variant, read_manifest
from onnxembed.pooling import FloatArray
from onnxembed.session import Providers, Session, available_threads
from onnxembed.streaming import check_text, in_order, start_block, windows
from onnxembed.tokenizing import TextTokenizer, Tokens
from onnxembed.warning import warn

IntArray = NDArray[np.int64]
Finish = Callable[[FloatArray], FloatArray]
VectorStream = Generator[FloatArray, None, None]

QUERY_PROMPTS = ("query",)
# The order that sentence-transformers documents. Its release 6.2 adds an empty "document" prompt to every
# model, and so never comes to the other two; a model that names one of them means it for its documents.
DOCUMENT_PROMPTS = ("document", "passage", "corpus")


class EmbedOptions(TypedDict, total=False):
    """The options of `OnnxEmbedder.embed`, which describes them; every embedding method takes the same."""

    prompt: str | None
    prompt_name: str | None
    dimensions: int | None
    normalize: bool | None


class OnnxEmbedder:
    """An embedding model from an artefact folder or a hub repository that holds one.

    Needs numpy, tokenizers and onnxruntime; never torch. Safe to use from many threads. `with
    OnnxEmbedder(...) as model:` frees the session at the end of the block, as `close()` does.

    Args:
        model: a folder that `onnxembed export` wrote, or the hub id of a repository with its files.
        precision: "fp32", "fp16", or "auto": fp32 where the artefact has it, else what it has.
        providers: "auto", "cpu", "cuda", or a list of ONNX Runtime's provider names; see `Session`.
        threads: texts are run on this many CPU threads; on all that the process may use when None.
        max_length: cut texts to this many tokens, at most the model's own limit, which is the default.
        revision: branch, tag or commit of a hub repository.
        cache_dir: where hub files are kept; the hub client's standard cache when None.
        local_files_only: never ask the hub; use what is in the cache.
        check_files: compare the sha256 of every file with the manifest's while loading.

    Raises:
        ModelFilesError: not an artefact, or its files are not those its manifest records.
        HubError: the hub could not be asked, or said no.
        ProviderError: a requested provider cannot be used.
        UsageError: an argument that cannot be.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        precision: Literal["auto", "fp32", "fp16"] = "auto",
        providers: Providers = "auto",
        threads: int | None = None,
        max_length: int | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        check_files: bool = True,
    ) -> None:
        if precision not in ("auto", *PRECISIONS):
            raise UsageError(f"precision is {precision!r}, not one of auto, {', '.join(PRECISIONS)}")
        self.threads = available_threads() if threads is None else _whole_number("threads", threads)
        self.folder, self.manifest, variant = _locate(model, precision, revision, cache_dir, local_files_only)
        limit = self.manifest.tokenization.max_length.value
        self.max_length = limit if max_length is None else _whole_number("max_length", max_length, limit)
        files = _files(self.manifest, variant)
        check_sizes(self.folder, self.manifest, files)
        with ThreadPoolExecutor(1) as hashing:
            # Hashing takes about as long as opening the session: do both at once, and let a
            # wrong hash explain a session that could not be opened.
            hashed = hashing.submit(check_hashes, self.folder, self.manifest, files if check_files else [])
            try:
                self._tokenizer = TextTokenizer(self.folder, self.manifest.tokenization, self.max_length)
                self._session: Session | None = Session(self.folder / variant.file, providers, threads=1)
                self._dense = [
                    _load_dense(self.folder, layer, layer.weight)
                    for layer in self.manifest.embedding.dense
                    if layer.weight
                ]
            except ModelFilesError:
                hashed.result()
                raise
            hashed.result()
        self.provider = self._session.provider
        """The ONNX Runtime provider in use."""
        self._workers = ThreadPoolExecutor(self.threads, thread_name_prefix="onnxembed")
        # Each is taken, for good, by the thread that says it.
        self._truncation_unsaid, self._prompts_unsaid = threading.Lock(), threading.Lock()

    @property
    def dimension(self) -> int:
        """Length of this model's vectors."""
        return self.manifest.embedding.dimension

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
        return self.embed(queries, **self._prompted(QUERY_PROMPTS, options))

    def passage_embed(self, passages: str | Iterable[str], **options: Unpack[EmbedOptions]) -> VectorStream:
        """`embed` with the model's document prompt, or none; `prompt` or `prompt_name` choose another."""
        return self.embed(passages, **self._prompted(DOCUMENT_PROMPTS, options))

    def encode_query(self, queries: str | Iterable[str], **options: Unpack[EmbedOptions]) -> FloatArray:
        """`encode` with the model's query prompt, or none; `prompt` or `prompt_name` choose another."""
        return self.encode(queries, **self._prompted(QUERY_PROMPTS, options))

    def encode_document(self, documents: str | Iterable[str], **options: Unpack[EmbedOptions]) -> FloatArray:
        """`encode` with the model's document prompt, or none; `prompt` or `prompt_name` choose another."""
        return self.encode(documents, **self._prompted(DOCUMENT_PROMPTS, options))

    def token_count(self, texts: str | Iterable[str]) -> int:
        """Number of tokens the model reads for these texts: special tokens included, prompts not, cut to length."""
        self._opened()
        return sum(len(tokens) for window in windows(texts) for tokens in self._tokenizer.tokenize(window))

    def tokenize(self, texts: str | Iterable[str]) -> list[Tokens]:
        """Token ids of each text as the model gets them: special tokens included, cut to length, no prompt."""
        self._opened()
        return [tokens for window in windows(texts) for tokens in self._tokenizer.tokenize(window)]

    def forward(self, feeds: Mapping[str, IntArray]) -> FloatArray:
        """Vectors [B, D] of a padded batch: int64 [B, T] each for input_ids, attention_mask and token_type_ids.

        For callers with ids of their own; a text's vector is as `embed` gives it without options. Inputs that
        the graph does not take may be left out. Raises UsageError for one that is missing.
        """
        missing = [name for name in self.manifest.model.inputs if name not in feeds]
        if missing:
            raise UsageError(f"this model also takes {', '.join(missing)}")
        return self._finish(None, None)(self._compute(feeds))

    def close(self) -> None:
        """Free the session and its threads; the embedder cannot be used afterwards. Safe to repeat.

        A stream that is still being read gives the vectors it has, then raises UsageError.
        """
        self._session = None  # first: runs that have not begun find nothing to run on, and end at once
        self._workers.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"OnnxEmbedder({str(self.folder)!r}, dimension={self.dimension}, max_length={self.max_length})"

    # ---- options

    def _prompted(self, names: Sequence[str], options: EmbedOptions) -> EmbedOptions:
        """The options with the first prompt of `names` that the model has, unless they choose one themselves.

        Never the default prompt: as in sentence-transformers, that is for texts of no declared kind.
        """
        if options.get("prompt") is None and options.get("prompt_name") is None:
            prompts = self.manifest.prompts.texts.value
            options["prompt"] = next((prompts[name] for name in names if name in prompts), "")
        return options

    def _prompt(self, prompt: str | None, name: str | None) -> str:
        if prompt is not None:
            if name is not None:
                raise UsageError("give prompt or prompt_name, not both")
            return check_text(prompt, "prompt")
        prompts = self.manifest.prompts
        if name is None:
            name = prompts.default.value
            if name is None:
                self._warn_unprompted()
                return ""
        if check_text(name, "prompt_name") not in prompts.texts.value:
            known = ", ".join(prompts.texts.value) or "none"
            raise UsageError(f"this model has no prompt named {name!r}; it has: {known}")
        return prompts.texts.value[name]

    def _finish(self, dimensions: int | None, normalize: bool | None) -> Finish:
        """What is done to vectors [N, D] after the graph: cut, normalise."""
        if dimensions is not None:
            _whole_number("dimensions", dimensions, self.dimension)
        if not isinstance(normalize, bool | np.bool_ | None):
            raise UsageError(f"normalize is {normalize!r}, not True, False or None")
        embedding = self.manifest.embedding
        wanted = embedding.normalize.value if normalize is None else normalize
        done = embedding.normalize.value and embedding.pooled_by == "graph"
        if done and not wanted:
            raise UsageError(
                "this artefact normalises in its graph, so normalize=False cannot be had from it; "
                "export it with --no-normalize or --pooling-out"
            )
        cut = dimensions is not None and dimensions < self.dimension

        def finish(vectors: FloatArray) -> FloatArray:
            vectors = vectors[:, :dimensions] if cut else vectors
            return pooling.normalize(vectors) if wanted and (cut or not done) else vectors

        return finish

    # ---- from texts to vectors

    def _blocks(
        self,
        texts: str | Iterable[str],
        prompt: str | None,
        prompt_name: str | None,
        dimensions: int | None,
        normalize: bool | None,
    ) -> Iterator[FloatArray]:
        """Check everything but the texts themselves; then vectors [N, D] of one window after another."""
        self._opened()
        finish = self._finish(dimensions, normalize)
        return self._stream(windows(texts, self._prompt(prompt, prompt_name)), finish)

    def _stream(self, texts: Iterator[list[str]], finish: Finish) -> Iterator[FloatArray]:
        seen = cut = 0
        started = (start_block(window, self._tokenizer, self._run, self._workers) for window in texts)
        try:
            for vectors, truncated in in_order(started):
                seen, cut = seen + len(vectors), cut + truncated
                yield finish(vectors)
        except RuntimeError:
            self._opened()  # closed workers refuse runs with a bare RuntimeError
            raise
        except GeneratorExit:
            self._warn_truncated(cut, seen)
            raise
        self._warn_truncated(cut, seen)

    def _run(self, texts: list[Tokens]) -> FloatArray:
        """Vectors [B, D] of the texts of one run, before `_finish`."""
        # A tokenizer without special tokens makes nothing of an empty text; the graph needs a slot all the same.
        shape = (len(texts), max(1, *map(len, texts)))
        feeds = {
            "input_ids": np.full(shape, self.manifest.tokenization.pad_token_id.value, np.int64),
            "attention_mask": np.zeros(shape, np.int64),
            "token_type_ids": np.zeros(shape, np.int64),
        }
        for row, tokens in enumerate(texts):
            feeds["input_ids"][row, : len(tokens)] = tokens.ids
            feeds["attention_mask"][row, : len(tokens)] = 1
            feeds["token_type_ids"][row, : len(tokens)] = tokens.type_ids
        return self._compute(feeds)

    def _compute(self, feeds: Mapping[str, IntArray]) -> FloatArray:
        """What the graph, and the pooling and Dense layers left out of it, give: vectors [B, D] before `_finish`."""
        session = self._opened()
        wanted = {name: feeds[name] for name in self.manifest.model.inputs}
        embedding = self.manifest.embedding
        if embedding.pooled_by == "graph":
            return session.run("sentence_embedding", wanted)
        hidden = session.run("token_embeddings", wanted)
        vectors = pooling.pool(hidden, feeds["attention_mask"], embedding.pooling.value)
        for weight, bias, activation in self._dense:
            vectors = pooling.dense(vectors, weight, bias, activation)
        return vectors

    def _opened(self) -> Session:
        session = self._session
        if session is None:
            raise UsageError("this embedder is closed")
        return session

    def _warn_unprompted(self) -> None:
        """Say once that a model whose every text has a prompt got a text without."""
        texts = self.manifest.prompts.texts.value
        found = [[name for name in names if texts.get(name)] for names in (QUERY_PROMPTS, DOCUMENT_PROMPTS)]
        if all(found) and self._prompts_unsaid.acquire(blocking=False):
            prompts = ", ".join(f"{name}: {texts[name]!r}" for name, *_ in found)
            warn(
                f"this model expects a prompt before every text ({prompts}): "
                "query_embed, encode_query, passage_embed and encode_document put it there, as does "
                'prompt_name (--prompt-name); prompt="" means none (this is said once)'
            )

    def _warn_truncated(self, cut: int, seen: int) -> None:
        if cut and self._truncation_unsaid.acquire(blocking=False):
            warn(
                f"{cut} of {seen} texts were longer than max_length={self.max_length} tokens and were cut "
                "(this is said once)"
            )


def _whole_number(name: str, value: int, limit: int | None = None) -> int:
    """A whole number from 1 to `limit`; UsageError, naming it, for anything else."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < 1 or (limit is not None and value > limit):
        allowed = "a positive whole number" if limit is None else f"a whole number from 1 to this model's {limit}"
        raise UsageError(f"{name} is {value!r}, not {allowed}")
    return int(value)


def _locate(
    model: str | Path, precision: str, revision: str | None, cache_dir: str | Path | None, local_files_only: bool
) -> tuple[Path, Manifest, Variant]:
    """The folder of an artefact with the files of the wanted precision in it, its manifest, and that graph."""

    def get(wanted: list[str], at: str | None) -> tuple[Path, str | None]:
        found = fetch(model, wanted=wanted, revision=at, cache_dir=cache_dir, local_files_only=local_files_only)
        return found.folder, found.revision

    try:
        folder, commit = get([FILE_NAME], revision)
    except ModelFilesError as error:
        raise ModelFilesError(
            f"{error}: it is not an onnxembed artefact; make one with: onnxembed export {model} -o DIR"
        ) from None
    manifest = read_manifest(folder)
    variant = _variant(manifest, precision)
    if commit is not None:  # a local folder has its files, or check_sizes says so
        get(_files(manifest, variant), commit)
    return folder, manifest, variant


def _variant(manifest: Manifest, precision: str) -> Variant:
    if precision == "auto":
        precision = "fp32" if "fp32" in manifest.variants else next(iter(manifest.variants))
    return manifest.variant(precision)


def _files(manifest: Manifest, variant: Variant) -> list[str]:
    """The files that the runtime reads."""
    dense = [file for layer in manifest.embedding.dense for file in (layer.weight, layer.bias)]
    return [file for file in ("tokenizer.json", variant.file, variant.data, *dense) if file]


def _load_dense(folder: Path, layer: Dense, weight: str) -> tuple[FloatArray, FloatArray | None, str]:
    """Weight (out, in), bias (out,) or None, and activation of a Dense layer that the graph leaves out."""
    if layer.activation not in pooling.ACTIVATIONS:
        known = ", ".join(pooling.ACTIVATIONS)
        raise ModelFilesError(f"{folder}: a Dense layer has activation {layer.activation!r}; known: {known}")
    try:
        bias = np.load(folder / layer.bias, allow_pickle=False) if layer.bias else None
        return np.load(folder / weight, allow_pickle=False), bias, layer.activation
    except (ValueError, EOFError) as error:
        raise ModelFilesError(f"{folder / weight} or its bias is no array: {error}") from error
