"""The base of models that embed texts: prompts, tokens, and the stream under every method."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TypeVar, overload

import numpy as np

from onnxembed.arguments import whole_number
from onnxembed.manifest import Task, TextKind
from onnxembed.runtime.given import Given, given_texts
from onnxembed.runtime.options import Options, PromptOptions
from onnxembed.runtime.outputs.readout import Readout
from onnxembed.runtime.outputs.sparse import SparseEmbedding, SparseEmbeddings
from onnxembed.runtime.progress import Blocks, shown
from onnxembed.runtime.public_base import OnnxModel
from onnxembed.runtime.streaming import windows
from onnxembed.tokenizer.texts import Tokens

Result = TypeVar("Result")
Prompted = TypeVar("Prompted", bound=PromptOptions)


class TextModel(OnnxModel):
    """An open model that takes texts one by one, with the prompts of its manifest, or the caller's."""

    @property
    def prompts(self) -> dict[str, str]:
        """The model's prompts by name, in a dictionary of your own."""
        return dict(self.model.prompting.texts)

    @property
    def default_prompt_name(self) -> str | None:
        """The name of the prompt that is used when a call names none."""
        return self.model.prompting.default

    @staticmethod
    def sparsity(embeddings: SparseEmbeddings) -> dict[str, float]:
        """How sparse embeddings are: the mean number of ids with a weight, and the share of the others."""
        return embeddings.sparsity()

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
        """The ids and tokens of each text, cut to length, with special tokens and without prompts."""
        given = given_texts(texts)
        tokens = [tokens for window in windows(given.items) for tokens in self.model.tokenize_named(window)]
        return tokens[0] if given.single else tokens

    @property
    def _kind(self) -> Task:
        """What the model makes; dense vectors, if it makes several kinds."""
        return next(task for task in ("embedding", "sparse", "multi_vector") if task in self.manifest.tasks)

    def _blocks(
        self, given: Given[str], readout: Readout[Result], options: Options, max_length: int | None = None
    ) -> Blocks[str, Result]:
        """One window of texts after another, with what the readout makes of them."""
        prompt = self.model.prompting.choose(options.prompt, options.prompt_name)
        texts = partial(windows, given.items, prompt)
        blocks = self.model.stream(texts, readout, prompt=prompt, max_length=max_length, reading=options.reading)
        return shown(blocks, given.total, "text") if options.show_progress else blocks

    def _prompted(self, kind: TextKind, options: Prompted) -> Prompted:
        """The options with the model's prompt for texts of this kind, unless they choose one themselves."""
        if options.get("prompt") is None and options.get("prompt_name") is None:
            options["prompt"] = self.model.prompting.of_kind(kind)
        return options
