"""An opened artifact: files checked, tokenizer and session ready, texts streamed over worker threads.

What OnnxEmbedder and OnnxReranker share. It knows token ids, runs and outputs by name, but not what they mean.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from onnxembed.arguments import whole_number
from onnxembed.arrays import Feeds, FloatArray, IntArray
from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.execution.backend import open_graph
from onnxembed.execution.cores import available_threads
from onnxembed.execution.cpu import CpuBackend
from onnxembed.execution.gpu import GpuBackend
from onnxembed.execution.providers import Providers, check_device_ids, may_use_gpu
from onnxembed.hub.source import HubOptions
from onnxembed.loading.locate import locate
from onnxembed.loading.located import Located
from onnxembed.manifest import PRECISIONS, Task
from onnxembed.runtime.streaming import Job, in_order, start_block
from onnxembed.tokenizer.texts import TextTokenizer, Tokens, pad
from onnxembed.warning import warn

Part = TypeVar("Part")
Result = TypeVar("Result")

MakeTokenizer = Callable[[Located, int], TextTokenizer]
"""Makes the tokenizer of an artifact, for texts of at most so many tokens."""


def _text_tokenizer(located: Located, max_length: int) -> TextTokenizer:
    return TextTokenizer(located.folder, located.manifest.tokenization, max_length, located.tokenizer)


class OpenModel:
    """An artifact ready to run, for any of `tasks`; its other options are those of OnnxEmbedder.

    Safe to use from many threads. Raises UsageError for an artifact that does none of the tasks.
    """

    def __init__(
        self,
        model: str | Path,
        tasks: Sequence[Task],
        *,
        precision: str = "auto",
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
        tokenizer: MakeTokenizer = _text_tokenizer,
    ) -> None:
        if precision not in ("auto", *PRECISIONS):
            raise UsageError(f"precision is {precision!r}, not one of auto, {', '.join(PRECISIONS)}")
        self.threads = available_threads() if threads is None else whole_number("threads", threads)
        devices = check_device_ids(device_id, device_ids)
        located = locate(
            model,
            HubOptions(revision, cache_dir, local_files_only),
            precision=precision,
            onnx_file=onnx_file,
            gpu=may_use_gpu(providers, devices),
        )
        self.folder, self.manifest = located.folder, located.manifest
        if not set(tasks) & set(self.manifest.tasks):
            raise UsageError(f"{model} is made for {self.manifest.abilities()}, not for {' or '.join(tasks)}")
        limit = self.manifest.tokenization.max_length.value
        self.max_length = limit if max_length is None else whole_number("max_length", max_length, limit)
        located.check_sizes()
        with ThreadPoolExecutor(1) as hashing:
            # Hashing takes about as long as opening the session: do both at once, and let a
            # wrong hash explain a session that could not be opened.
            hashed = hashing.submit(located.check_hashes if check_files else lambda: None)
            try:
                self._tokenizer = tokenizer(located, self.max_length)
                if threads is not None:
                    self._tokenizer.at_once = min(self.threads, self._tokenizer.at_once)
                self._session: CpuBackend | GpuBackend | None = open_graph(
                    located.graph, providers, self.threads, devices
                )
            except ModelFilesError:
                hashed.result()
                raise
            hashed.result()
        self.provider = self._session.provider
        self._shorter: dict[int, TextTokenizer] = {}
        # Taken, for good, by the thread that says it.
        self._truncation_unsaid = threading.Lock()

    @property
    def session(self) -> CpuBackend | GpuBackend:
        """The sessions; UsageError when the model is closed."""
        session = self._session
        if session is None:
            raise UsageError("this model is closed")
        return session

    def check_open(self) -> None:
        """Raise UsageError when the model is closed."""
        _ = self.session

    def tokenize(self, texts: Sequence[Any]) -> list[Tokens]:
        """Token ids of each text, special tokens included, cut to length."""
        self.check_open()
        return self._tokenizer.tokenize(texts)

    def tokens(self, ids: Iterable[int]) -> list[str | None]:
        """The token that each id stands for; None for an id that the tokenizer does not use."""
        return self._tokenizer.tokens(ids)

    def feeds(self, texts: Sequence[Tokens]) -> dict[str, IntArray]:
        """The graph's inputs for the texts of one run, int64 [B, T] each, padded on the right."""
        return pad(texts, self.manifest.tokenization.pad_token_id.value)

    def run(self, outputs: Sequence[str], feeds: Feeds) -> list[FloatArray]:
        """Compute outputs by name; inputs that the graph does not take may be among the feeds."""
        return self.session.run(outputs, {name: feeds[name] for name in self.manifest.model.inputs})

    def stream(
        self, windows: Iterator[list[Any]], job: Job[Part, Result], what: str = "texts", max_length: int | None = None
    ) -> Generator[Result, None, None]:
        """The job's results, one for each window, in order; the next window is already under way.

        `max_length` cuts to fewer tokens than the model's own limit.
        At the end, or when the caller stops listening, says once how many of `what` were cut to length.
        """
        seen = cut = 0
        limit = self.max_length if max_length is None else min(max_length, self.max_length)
        tokenizer = self._cutting(limit)
        started = (start_block(window, tokenizer, job, self.session) for window in windows)
        try:
            for result, texts, truncated in in_order(started, self.session.blocks_ahead):
                seen, cut = seen + texts, cut + truncated
                yield result
        except RuntimeError:
            self.check_open()  # closed workers refuse runs with a bare RuntimeError
            raise
        except GeneratorExit:
            self._warn_truncated(cut, seen, what, limit)
            raise
        self._warn_truncated(cut, seen, what, limit)

    def close(self) -> None:
        """Free the session and its threads. Safe to repeat.

        A stream that is still being read gives the results it has, then raises UsageError.
        """
        session, self._session = self._session, None  # runs that have not begun find nothing to run on, and end
        if session:
            session.close()

    def _cutting(self, limit: int) -> TextTokenizer:
        """The tokenizer that cuts to this many tokens."""
        if limit == self.max_length:
            return self._tokenizer
        if limit not in self._shorter:
            self._shorter[limit] = self._tokenizer.shortened(self.folder, limit)
        return self._shorter[limit]

    def _warn_truncated(self, cut: int, seen: int, what: str, limit: int) -> None:
        if cut and self._truncation_unsaid.acquire(blocking=False):
            warn(f"{cut} of {seen} {what} were longer than max_length={limit} tokens and were cut (this is said once)")
