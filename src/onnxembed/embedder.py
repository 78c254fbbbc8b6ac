"""OnnxEmbedder: texts -> prompt -> token ids -> runs without padding -> session -> vectors in order."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from onnxembed import pooling
from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.hub import fetch, is_local
from onnxembed.integrity import check_hashes, check_sizes
from onnxembed.manifest import FILE_NAME, Manifest, Variant, read_manifest
from onnxembed.scheduling import plan_runs
from onnxembed.session import Providers, Session, available_threads
from onnxembed.tokenizing import TextTokenizer, Tokens

FloatArray = NDArray[np.float32]
Finish = Callable[[FloatArray], FloatArray]

# A window is what is sorted by length together. Larger windows find more texts of equal length;
# both limits bound the memory of a stream, the second for long texts.
WINDOW_TEXTS = 1024
WINDOW_CHARACTERS = 2**20


class OnnxEmbedder:
    """An embedding model from an artefact folder or a hub repository that holds one.

    Needs numpy, tokenizers and onnxruntime; never torch. Safe to use from many threads. `with
    OnnxEmbedder(...) as model:` frees the session at the end of the block, as `close()` does.

    Args:
        model: a folder that `onnxembed export` wrote, or the hub id of a repository with its files.
        precision: "fp32", "fp16", or "auto": fp32 where the artefact has it, else what it has.
        providers: "auto", "cpu", "cuda", or a list of ONNX Runtime's provider names; see `Session`.
        threads: CPU threads to use; all that the process may use when None.
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
        self.threads = _threads(threads)
        self.folder, self.manifest = _locate(model, precision, revision, cache_dir, local_files_only)
        variant = _variant(self.manifest, precision)
        limit = self.manifest.tokenization.max_length.value
        if max_length is not None and not 1 <= max_length <= limit:
            raise UsageError(f"max_length is {max_length}; this artefact takes 1 to {limit} tokens")
        self.max_length = max_length or limit
        files = _files(self.manifest, variant)
        check_sizes(self.folder, self.manifest, files)
        with ThreadPoolExecutor(1) as hashing:
            # Hashing takes about as long as opening the session: do both at once, and let a
            # wrong hash explain a session that could not be opened.
            hashed = hashing.submit(check_hashes, self.folder, self.manifest, files if check_files else [])
            try:
                self._tokenizer = TextTokenizer(self.folder, self.manifest.tokenization, self.max_length)
                self._session = Session(self.folder / variant.file, providers, threads=1)
                self._dense = [
                    _load_dense(self.folder, layer) for layer in self.manifest.embedding.dense if layer.weight
                ]
            except ModelFilesError:
                hashed.result()
                raise
            hashed.result()
        self._workers = ThreadPoolExecutor(self.threads, thread_name_prefix="onnxembed")
        self._warned = threading.Event()
        self._closed = False

    @property
    def dimension(self) -> int:
        """Length of this model's vectors."""
        return self.manifest.embedding.dimension

    @property
    def provider(self) -> str:
        """The ONNX Runtime provider in use."""
        return self._session.provider

    def embed(
        self,
        texts: str | Iterable[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
    ) -> Iterator[FloatArray]:
        """Stream the vector of each text, float32 [D], in the order of the texts.

        Takes any iterable, also an endless one: texts are read about a thousand ahead, and memory stays
        bounded. Options are checked now; texts when they are reached.

        Args:
            texts: one text, or an iterable of texts.
            prompt: put this before every text; "" for none.
            prompt_name: put the manifest's prompt of this name before every text.
            dimensions: cut vectors to their first so many numbers (Matryoshka), re-normalised.
            normalize: scale vectors to length 1; None does what the model does.

        Raises:
            UsageError: an element that is not a str (its position is named), or an impossible option.
        """
        prefix = self._prompt(prompt, prompt_name)
        finish = self._finish(dimensions, normalize)
        return chain.from_iterable(self._blocks(texts, prefix, finish))

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
    ) -> FloatArray:
        """The vectors of all texts, float32 [N, D]; [1, D] for one text. Arguments as in `embed`."""
        prefix = self._prompt(prompt, prompt_name)
        finish = self._finish(dimensions, normalize)
        blocks = list(self._blocks(texts, prefix, finish))
        return np.concatenate(blocks) if blocks else np.empty((0, dimensions or self.dimension), np.float32)

    def query_embed(self, queries: str | Iterable[str], **options: Any) -> Iterator[FloatArray]:
        """`embed` with the model's query prompt, unless `prompt` or `prompt_name` is given."""
        return self.embed(queries, **self._with_prompt(("query",), options))

    def passage_embed(self, passages: str | Iterable[str], **options: Any) -> Iterator[FloatArray]:
        """`embed` with the model's document prompt, unless `prompt` or `prompt_name` is given."""
        return self.embed(passages, **self._with_prompt(("document", "passage", "corpus"), options))

    def encode_query(self, queries: str | Iterable[str], **options: Any) -> FloatArray:
        """`encode` with the model's query prompt, unless `prompt` or `prompt_name` is given."""
        return self.encode(queries, **self._with_prompt(("query",), options))

    def encode_document(self, documents: str | Iterable[str], **options: Any) -> FloatArray:
        """`encode` with the model's document prompt, unless `prompt` or `prompt_name` is given."""
        return self.encode(documents, **self._with_prompt(("document", "passage", "corpus"), options))

    def token_count(self, texts: str | Iterable[str]) -> int:
        """Number of tokens the model reads for these texts: special tokens included, prompts not, cut to length."""
        self._check_open()
        return sum(len(tokens) for window in _windows(texts, "") for tokens in self._tokenizer.tokenize(window))

    def close(self) -> None:
        """Free the session and its threads; the embedder cannot be used afterwards. Safe to repeat."""
        if not self._closed:
            self._closed = True
            self._workers.shutdown()
            del self._session

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"OnnxEmbedder({str(self.folder)!r}, dimension={self.dimension}, max_length={self.max_length})"

    # ---- options

    def _with_prompt(self, names: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
        """Choose the first of `names` that the model has a prompt for, as sentence-transformers does."""
        if options.get("prompt") is not None or options.get("prompt_name") is not None:
            return options
        known = self.manifest.prompts.texts.value
        return {**options, "prompt_name": next((name for name in names if name in known), None)}

    def _prompt(self, prompt: str | None, name: str | None) -> str:
        if prompt is not None:
            if name is not None:
                raise UsageError("give prompt or prompt_name, not both")
            if not isinstance(prompt, str):
                raise UsageError(f"prompt is {type(prompt).__name__}, not str")
            return prompt
        prompts = self.manifest.prompts
        name = name if name is not None else prompts.default.value
        if name is None:
            return ""
        if name not in prompts.texts.value:
            known = ", ".join(prompts.texts.value) or "none"
            raise UsageError(f"this model has no prompt named {name!r}; it has: {known}")
        return prompts.texts.value[name]

    def _finish(self, dimensions: int | None, normalize: bool | None) -> Finish:
        """What is done to vectors [n, D] after the graph: Dense layers left out of it, cut, normalise."""
        embedding = self.manifest.embedding
        if dimensions is not None and not 1 <= dimensions <= self.dimension:
            raise UsageError(f"dimensions is {dimensions}; this model's vectors have {self.dimension}")
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

    # ---- the stream

    def _blocks(self, texts: str | Iterable[str], prefix: str, finish: Finish) -> Iterator[FloatArray]:
        """Vectors [n, D] of one window of texts after another; the next is tokenised while one is computed."""
        self._check_open()
        return self._stream(_windows(texts, prefix), finish)

    def _stream(self, windows: Iterator[list[str]], finish: Finish) -> Iterator[FloatArray]:
        pending: deque[_Block] = deque()
        seen = cut = 0
        try:
            for window in windows:
                self._check_open()
                block = self._start(window)
                seen, cut = seen + len(window), cut + block.truncated
                pending.append(block)
                if len(pending) > 1:
                    yield finish(pending.popleft().vectors())
            while pending:
                yield finish(pending.popleft().vectors())
        finally:
            for block in pending:
                block.cancel()
            self._warn_truncated(cut, seen)

    def _start(self, window: list[str]) -> _Block:
        """Tokenise a window, embedding identical texts once, and start its runs."""
        places = {text: place for place, text in enumerate(dict.fromkeys(window))}
        tokens = self._tokenizer.tokenize(list(places))
        runs = plan_runs([len(each) for each in tokens])
        if len(runs) == 1:
            futures = [_done(self._run(runs[0], tokens))]  # one text: no detour through a thread
        else:
            futures = [self._workers.submit(self._run, run, tokens) for run in runs]
        order = np.array([places[text] for text in window])
        truncated = sum(tokens[place].truncated for place in order)
        return _Block(order=order, runs=runs, futures=futures, truncated=truncated)

    def _run(self, run: list[int], tokens: list[Tokens]) -> FloatArray:
        """Vectors [n, D] of the texts of one run."""
        shape = (len(run), max(len(tokens[index]) for index in run))
        feeds = {
            "input_ids": np.full(shape, self.manifest.tokenization.pad_token_id.value, np.int64),
            "attention_mask": np.zeros(shape, np.int64),
            "token_type_ids": np.zeros(shape, np.int64),
        }
        for row, index in enumerate(run):
            length = len(tokens[index])
            feeds["input_ids"][row, :length] = tokens[index].ids
            feeds["attention_mask"][row, :length] = 1
            feeds["token_type_ids"][row, :length] = tokens[index].type_ids
        wanted = {name: feeds[name] for name in self.manifest.model.inputs}
        if self.manifest.embedding.pooled_by == "graph":
            return self._session.run("sentence_embedding", wanted)
        hidden = self._session.run("token_embeddings", wanted)
        vectors = pooling.pool(hidden, feeds["attention_mask"], self.manifest.embedding.pooling.value)
        for weight, bias, activation in self._dense:
            vectors = pooling.dense(vectors, weight, bias, activation)
        return vectors

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("this embedder is closed")

    def _warn_truncated(self, cut: int, seen: int) -> None:
        if cut and not self._warned.is_set():
            self._warned.set()
            warnings.warn(
                f"{cut} of {seen} texts were longer than max_length={self.max_length} tokens and were cut "
                "(this is said once)",
                stacklevel=4,
            )


@dataclass(frozen=True)
class _Block:
    """A window of texts whose runs have been started. `order` maps its texts to rows of distinct texts."""

    order: NDArray[np.int64]
    runs: list[list[int]]
    futures: list[Future[FloatArray]]
    truncated: int

    def vectors(self) -> FloatArray:
        """Wait for the runs; vectors [n, D] in the order of the window's texts."""
        rows: FloatArray | None = None
        for run, future in zip(self.runs, self.futures, strict=True):
            result = future.result()
            if rows is None:
                rows = np.empty((sum(map(len, self.runs)), result.shape[1]), np.float32)
            rows[run] = result
        assert rows is not None  # a window has at least one text
        return rows[self.order]

    def cancel(self) -> None:
        """Drop the runs that have not begun."""
        for future in self.futures:
            future.cancel()


def _done(result: FloatArray) -> Future[FloatArray]:
    future: Future[FloatArray] = Future()
    future.set_result(result)
    return future


def _windows(texts: str | Iterable[str], prefix: str) -> Iterator[list[str]]:
    """Cut an iterable of texts into windows, each text checked and with its prompt."""
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, Iterable) or isinstance(texts, bytes):  # type: ignore[unreachable]
        raise UsageError(f"texts is {type(texts).__name__}, not a str or an iterable of str")
    return _cut(texts, prefix)


def _cut(texts: Iterable[str], prefix: str) -> Iterator[list[str]]:
    window: list[str] = []
    characters = 0
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(f"texts[{position}] is {type(text).__name__}, not str")
        window.append(prefix + text)
        characters += len(text)
        if len(window) == WINDOW_TEXTS or characters >= WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


def _threads(threads: int | None) -> int:
    if threads is None:
        return available_threads()
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise UsageError(f"threads is {threads!r}, not a positive whole number")
    return threads


def _locate(
    model: str | Path, precision: str, revision: str | None, cache_dir: str | Path | None, local_files_only: bool
) -> tuple[Path, Manifest]:
    """The folder of an artefact with the files of the wanted precision in it, and its manifest."""

    def get(wanted: list[str], at: str | None) -> tuple[Path, str | None]:
        found = fetch(model, wanted=wanted, revision=at, cache_dir=cache_dir, local_files_only=local_files_only)
        return found.folder, found.revision

    try:
        folder, commit = get([FILE_NAME], revision)
    except ModelFilesError as error:
        raise ModelFilesError(
            f"{model} is not an onnxembed artefact ({FILE_NAME} is missing); make one with: onnxembed export {model}"
        ) from error
    manifest = read_manifest(folder)
    if not is_local(model):
        get(_files(manifest, _variant(manifest, precision)), commit)
    return folder, manifest


def _variant(manifest: Manifest, precision: str) -> Variant:
    if precision == "auto":
        precision = "fp32" if "fp32" in manifest.variants else next(iter(manifest.variants))
    return manifest.variant(precision)


def _files(manifest: Manifest, variant: Variant) -> list[str]:
    """The files that the runtime reads."""
    dense = [file for layer in manifest.embedding.dense for file in (layer.weight, layer.bias)]
    return [file for file in ("tokenizer.json", variant.file, variant.data, *dense) if file]


def _load_dense(folder: Path, layer: Any) -> tuple[FloatArray, FloatArray | None, str]:
    weight = np.load(folder / layer.weight, allow_pickle=False)
    return weight, np.load(folder / layer.bias, allow_pickle=False) if layer.bias else None, layer.activation
