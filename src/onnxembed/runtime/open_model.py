"""An open model: files checked, tokenizer and backend ready, texts streamed over worker threads.

What OnnxEmbedder and OnnxReranker share. It knows token ids, runs and readouts, but not what outputs mean.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from onnxembed.arguments import whole_number
from onnxembed.arrays import Feeds
from onnxembed.errors import IntegrityError, ModelFilesError, OnnxEmbedError, UsageError
from onnxembed.execution.backend import Backend, OpenBackend
from onnxembed.execution.opening import check_length, open_backend
from onnxembed.execution.providers import Placement, decide
from onnxembed.hub.source import HubOptions
from onnxembed.loading.agreement import check_artifact, check_links
from onnxembed.loading.choices import AdoptionChoices
from onnxembed.loading.locate import locate
from onnxembed.loading.located import LocatedArtifact
from onnxembed.manifest import Task
from onnxembed.runtime.outputs.readout import Readout
from onnxembed.runtime.padding_check import check_padding
from onnxembed.runtime.prompts import Prompting
from onnxembed.runtime.streaming import DEFAULT_READING, STOP, Block, Computation, Reading, Windows, stream
from onnxembed.tokenizer.texts import TextTokenizer, Tokens
from onnxembed.warning import Once

Item = TypeVar("Item")
Result = TypeVar("Result")

TOO_LONG = r"\d+ of \d+ (texts?|pairs?) (was|were) longer than max_length"
"""How the warning about texts that are cut begins, for callers whose texts are too long on purpose."""

MakeTokenizer = Callable[[LocatedArtifact, int], TextTokenizer]
"""Makes the tokenizer of an artifact; the number is the most tokens of a text."""


def make_text_tokenizer(located: LocatedArtifact, max_length: int) -> TextTokenizer:
    """The tokenizer for single texts."""
    return TextTokenizer(located.files.folder, located.manifest.tokenization, max_length, located.tokenizer)


class OpenModel:
    """An artifact that is ready to run. Safe to use from many threads.

    Args:
        model: a folder, or the hub id of a repository, as for OnnxEmbedder.
        tasks: what the artifact may be for: one of them, or several.
        placement: where and how the graph is run.
        hub: where and how a hub repository is asked for.
        precision, onnx_file, max_length, prompts, default_prompt_name, check_files: as for OnnxEmbedder.
        choices: what the caller decides about a graph that another program made.
        make_tokenizer: makes the tokenizer, which may be for pairs.
        open_backend: opens the graph.

    Raises UsageError for an artifact that has none of the tasks, and what OnnxEmbedder raises.
    """

    def __init__(
        self,
        model: str | Path,
        tasks: Sequence[Task],
        placement: Placement,
        *,
        hub: HubOptions | None = None,
        precision: str = "auto",
        onnx_file: str | None = None,
        max_length: int | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        check_files: bool = True,
        choices: AdoptionChoices | None = None,
        make_tokenizer: MakeTokenizer = make_text_tokenizer,
        open_backend: OpenBackend = open_backend,
    ) -> None:
        place = decide(placement)
        located = locate(
            model,
            hub,
            precision=precision,
            onnx_file=onnx_file,
            device=place.wanted[0].device,
            choices=choices,
        )
        manifest, graph = located.manifest, located.graph
        if not set(tasks) & set(manifest.tasks):
            raise UsageError(f"{model} is made for {manifest.abilities()}, not for {' or '.join(tasks)}")
        limit = manifest.tokenization.max_length.value
        self.max_length = limit if max_length is None else whole_number("max_length", max_length, limit)
        check_length(graph.bf16, self.max_length)
        model_prompts = Prompting(manifest.prompts.texts.value, manifest.prompts.default.value)
        self.prompting = model_prompts.with_own(prompts, default_prompt_name)
        open_graph = partial(open_backend, graph, place)
        while True:
            try:
                self.tokenizer, backend = self._open(located, make_tokenizer, open_graph, hashes=check_files)
                break
            except IntegrityError as error:
                located.files.renew(error.file, error)  # once for each file
        if placement.threads is not None:
            self.tokenizer.at_once = min(place.threads, self.tokenizer.at_once)
        variant = manifest.variants[located.precision]
        if manifest.model.engine == "adopted" and variant.one_text is None:
            try:
                check_padding(backend, manifest, located.precision)
            except BaseException:
                backend.close()
                raise
        self.folder, self.revision, self.manifest = located.files.folder, located.files.revision, manifest
        self.threads, self.provider = place.threads, backend.provider
        self.variant = located.precision
        """The precision of the graph, by which the manifest knows it."""
        self.precision = "bf16" if graph.bf16 else located.precision
        """The precision of the vectors: that of the graph, or bf16 if the CPU computes an fp32 graph in it."""
        self._backend: Backend | None = backend
        self._single_texts, self._integer_outputs = graph.one_text, variant.integer_outputs
        self._inputs, self._pad_token_id = manifest.model.inputs, manifest.tokenization.pad_token_id.value
        self._shortened: dict[int, TextTokenizer] = {}  # by the most tokens of a text
        self._truncation_warning = Once()

    def _open(
        self,
        located: LocatedArtifact,
        make_tokenizer: MakeTokenizer,
        open_graph: Callable[[], Backend],
        *,
        hashes: bool,
    ) -> tuple[TextTokenizer, Backend]:
        """The tokenizer and the graph of an artifact; IntegrityError for a file that is not the one recorded."""
        with ThreadPoolExecutor(1) as checking:
            # Hashing takes about as long as opening the graph: do both at once, and let a
            # missing or changed file explain a graph that could not be opened.
            checked = checking.submit(check_artifact, located, hashes=hashes)
            try:
                tokenizer = make_tokenizer(located, self.max_length)
                backend = open_graph()
            except (ModelFilesError, OSError):
                checked.result()
                check_links(located.graph.path)
                raise
            try:
                checked.result()
            except OnnxEmbedError:
                backend.close()
                raise
        return tokenizer, backend

    @property
    def backend(self) -> Backend:
        """Where the graph runs; UsageError when the model is closed."""
        backend = self._backend
        if backend is None:
            raise UsageError("this model is closed")
        return backend

    def tokenize(self, texts: Sequence[Any]) -> list[Tokens]:
        """Token ids of each text, special tokens included, cut to length; UsageError when the model is closed."""
        _ = self.backend
        return self.tokenizer.tokenize(texts)

    def tokenize_named(self, texts: Sequence[Any]) -> list[Tokens]:
        """`tokenize`, with the token that each id stands for."""
        return [replace(text, tokens=tuple(self.tokens(text.ids))) for text in self.tokenize(texts)]

    def tokens(self, ids: Iterable[int]) -> list[str | None]:
        """The token that each id stands for; None for an id that the tokenizer does not use."""
        return self.tokenizer.tokens(ids)

    def compute(self, readout: Readout[Result], feeds: Feeds) -> Result:
        """What the readout makes of a padded batch, int64 [B, T] for each input.

        The feeds may hold inputs that the graph does not take. Raises UsageError if one that it takes is missing.
        """
        missing = [name for name in self._inputs if name not in feeds]
        if missing:
            raise UsageError(f"this model also takes {', '.join(missing)}")
        return self.computation(readout).result(feeds)

    def prompt_left_out(self, prompt: str, tokenizer: TextTokenizer) -> int:
        """How many tokens of texts that begin with the prompt are not pooled; 0 for most models, which pool all.

        Reference: sentence-transformers 6.2, Transformer._get_prompt_length.
        """
        embedding = self.manifest.embedding
        if not prompt or embedding is None or embedding.prompt_left_out is None:
            return 0
        ids = tokenizer.tokenize([prompt])[0].ids
        return len(ids) - int(np.isin(ids[-1:], embedding.prompt_left_out.value).sum())

    def computation(self, readout: Readout[Result]) -> Computation[Result]:
        """What computes runs of this model with the readout; UsageError when the model is closed."""
        return Computation(
            self.backend,
            readout,
            self._inputs,
            self.tokens,
            self._pad_token_id,
            self._single_texts,
            self._integer_outputs,
            STOP.get(),
        )

    def stream(
        self,
        windows: Windows[Item],
        readout: Readout[Result],
        *,
        prompt: str = "",
        items: str = "texts",
        max_length: int | None = None,
        reading: Reading = DEFAULT_READING,
        notice: Callable[[Block[Item, Result]], None] | None = None,
    ) -> Generator[tuple[list[Item], Result], None, None]:
        """Each window with what the readout makes of its items, in order; the next windows are already under way.

        `prompt` is what the windows put before each text. `max_length` cuts to fewer tokens than the model's own
        limit; `reading` bounds what is read ahead and what a run holds. At the end, or when the caller stops listening,
        warns once if `items` were cut; not if there is a `notice`, which is called with each block before its result
        is given. Raises UsageError at once when the model is closed, and later when it is closed meanwhile.
        """
        limit = self.max_length if max_length is None else min(max_length, self.max_length)
        computation = self.computation(readout)
        tokenizer = self.tokenizer_for(limit)
        if left_out := self.prompt_left_out(prompt, tokenizer):
            computation = computation._replace(prompt_left_out=left_out)

        def report(truncated: int, seen: int) -> None:
            if notice is not None:  # it was told of each text
                return
            was, noun = "was" if truncated == 1 else "were", items if seen != 1 else items.removesuffix("s")
            self._truncation_warning.warn(
                f"{truncated} of {seen} {noun} {was} longer than max_length={limit} tokens and {was} cut (shown once)"
            )

        def refuse(place: int) -> None:
            raise UsageError(f"{items}[{place}] is longer than max_length={limit} tokens (truncate='error')")

        return stream(
            windows,
            tokenizer,
            computation,
            report,
            reading=reading,
            refuse=refuse,
            notice=notice or (lambda block: None),
        )

    def close(self) -> None:
        """Free the graph and its threads. Safe to repeat.

        A stream that is still being read gives the results it has, then raises UsageError.
        """
        backend, self._backend = self._backend, None
        if backend:
            backend.close()

    def tokenizer_for(self, limit: int | None) -> TextTokenizer:
        """The tokenizer that cuts to this many tokens, if that is less than the model's `max_length`."""
        if limit is None or limit >= self.max_length:
            return self.tokenizer
        if limit not in self._shortened:
            self._shortened[limit] = self.tokenizer.shortened(self.folder, limit)
        return self._shortened[limit]
