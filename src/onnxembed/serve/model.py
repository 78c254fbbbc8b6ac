"""One served model: what can be computed with it, and how a request's texts become its tokens."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from onnxembed.errors import UsageError
from onnxembed.manifest import TASKS, Task, TextKind, TruncationSide
from onnxembed.proof.checking import find_proof
from onnxembed.proof.opening import needs_proof, wanted
from onnxembed.proof.record import Proof, read_proof
from onnxembed.runtime.open_model import OpenModel
from onnxembed.runtime.outputs.dense import DenseReadout, dense_readout
from onnxembed.runtime.outputs.joint import JointReadout
from onnxembed.runtime.outputs.multi_vector import MultiVectorReadout, treats_alike
from onnxembed.runtime.outputs.readout import Readout
from onnxembed.runtime.outputs.scores import ScoresReadout
from onnxembed.runtime.outputs.sparse import SparseReadout
from onnxembed.runtime.outputs.tokens import TokenReadout
from onnxembed.runtime.prompts import PROMPTS_OF_KIND
from onnxembed.runtime.streaming import Computation
from onnxembed.runtime.tokenizing import make_tokenizer
from onnxembed.serve.errors import Refusal
from onnxembed.serve.settings import ModelOptions, ModelSource
from onnxembed.tokenizer.texts import TextTokenizer, Tokens

Key = TypeVar("Key")
Value = TypeVar("Value")

Item = Any
"""What is computed: a text (str), a pair of texts (tuple[str, str]), or the token ids of a text (tuple[int, ...])."""


@dataclass(frozen=True)
class Cut:
    """What becomes of texts that are too long, and how long they may be."""

    allowed: bool = True
    side: TruncationSide | None = None
    """The side on which they are cut; the model's own if None."""
    max_length: int | None = None


class ServedModel:
    """A model that is open, with the names that requests may call it by. Safe to use from many threads."""

    def __init__(self, source: ModelSource, options: ModelOptions) -> None:
        self.opened = opened = OpenModel(
            source.model,
            TASKS,
            options.placement,
            hub=options.hub,
            precision=options.precision,
            max_length=options.max_length,
            check_files=options.check_files,
            make_tokenizer=make_tokenizer,
        )
        self.manifest = opened.manifest
        self.precision, self.placement = options.precision, options.placement
        self._prove = options.prove
        local = Path(source.model).is_dir()
        self.name = source.name or (opened.folder.resolve().name if local else source.model)
        self.names = {self.name, source.model, opened.manifest.source.model}
        """Every name that requests may call it by."""
        self._dense: DenseReadout | None = None
        self._computations: dict[Hashable, Computation[Any]] = {}
        self._tokenizers: dict[tuple[TruncationSide, int], TextTokenizer] = {}
        self._tokenizing: dict[Cut, Callable[[Sequence[Item]], list[Tokens]]] = {}

    @cached_property
    def proof(self) -> Proof | None:
        """What the model gives for a few probes; None without a proof, and where none is wanted."""
        if wanted(self._prove) is False:
            return None
        return find_proof(self.opened) if needs_proof(self.opened) else read_proof(self.opened.folder)

    @cached_property
    def whole_tokenizer(self) -> Any:
        """The tokenizer of the library, which cuts nothing and knows where in the text each token is."""
        return self.opened.tokenizer.whole()

    def require(self, task: Task) -> None:
        """Raise Refusal unless the model is made for the task."""
        if task not in self.manifest.tasks:
            made_for = ", ".join(self.manifest.tasks)
            raise Refusal("model_type", f"the model {self.name} is made for {made_for}, not for {task}")

    # ---- what is computed

    def dense(self, *, dimensions: int | None = None, normalize: bool | None = True) -> Computation[Any]:
        """Vectors, cut to `dimensions` and scaled to length 1; `normalize` None does what the model does."""
        self.require("embedding")
        section = self.manifest.require_embedding()
        if self._dense is None:
            self._dense = dense_readout(self.opened.folder, section)
        own = self._dense
        try:
            return self._once(("dense", dimensions, normalize), lambda: own.with_options(dimensions, normalize))
        except UsageError as error:
            raise Refusal("validation", str(error)) from None

    def sparse(self) -> Computation[Any]:
        """Sparse embeddings."""
        self.require("sparse")
        return self._once("sparse", lambda: SparseReadout(self.manifest.require_sparse()))

    def multi_vector(self, kind: TextKind | None) -> Computation[Any]:
        """A vector for each token of queries or documents; the kind may be None if both are treated alike."""
        self.require("multi_vector")
        section = self.manifest.require_multi_vector()
        if kind is None and not treats_alike(section):
            raise Refusal("validation", 'this model needs input_type, "query" or "document"', param="$.input_type")
        return self._once(("multi_vector", kind), lambda: MultiVectorReadout(section, kind or "document"))

    def joint(self, kinds: Sequence[Task], kind: TextKind | None) -> Computation[Any]:
        """Several kinds of embeddings of each text, as a tuple in the order of `kinds`."""
        parts: dict[Task, Callable[[], Computation[Any]]] = {
            "embedding": lambda: self.dense(normalize=None),
            "sparse": self.sparse,
            "multi_vector": lambda: self.multi_vector(kind),
        }
        readouts = [parts[task]().readout for task in kinds]
        return self._once(("joint", *kinds, kind), lambda: JointReadout(readouts))

    def token_embeddings(self) -> Computation[Any]:
        """The token embeddings of a text, before pooling."""
        self.require("embedding")
        return self._once("token_embeddings", lambda: TokenReadout(self.manifest.require_embedding()))

    def logits(self) -> Computation[Any]:
        """The logits of a pair."""
        self.require("reranking")
        return self._once("logits", lambda: ScoresReadout(self.manifest.require_reranking(), raw=True))

    def scores(self) -> Computation[Any]:
        """The scores of a pair, with the model's activation."""
        self.require("reranking")
        return self._once("scores", lambda: ScoresReadout(self.manifest.require_reranking(), raw=False))

    def _once(self, key: Hashable, make: Callable[[], Readout[Any]]) -> Computation[Any]:
        """The computation of a readout, made once: texts of one computation run together."""
        if key not in self._computations:
            self._computations[key] = self.opened.computation(make())
        return self._computations[key]

    def after_prompt(
        self, computation: Computation[Any], prompt: str, items: Sequence[Item], cut: Cut
    ) -> Computation[Any]:
        """The computation for texts that begin with the prompt: some models do not pool its tokens.

        Raises Refusal where only some of the items are texts, which have the prompt.
        """
        embedding = self.manifest.embedding
        if not prompt or embedding is None or embedding.prompt_left_out is None or all(map(_is_ids, items)):
            return computation
        left_out = self.opened.prompt_left_out(prompt, self._tokenizer(*self._side_and_limit(cut)))
        if not left_out:
            return computation
        if any(map(_is_ids, items)):
            why = "this model does not pool the tokens of a prompt, so texts and token ids need a request each"
            raise Refusal("validation", why)
        key = ("after", id(computation), left_out)
        if key not in self._computations:
            self._computations[key] = computation._replace(prompt_left_out=left_out)
        return self._computations[key]

    # ---- texts -> tokens

    def prefix(self, prompt_name: str | None, kind: TextKind | None) -> str:
        """The prompt before each text: the named one, the one of the kind, or the model's default."""
        if prompt_name is not None:
            if kind is not None:
                raise Refusal("validation", "give prompt_name or input_type, not both", param="$.prompt_name")
            try:
                return self.opened.prompting.choose(None, prompt_name)
            except UsageError as error:
                raise Refusal("validation", str(error), param="$.prompt_name") from None
        if kind is not None:
            return self.opened.prompting.of_kind(kind)
        prompts = self.manifest.prompts
        return prompts.texts.value[prompts.default.value] if prompts.default.value is not None else ""

    @property
    def expects_prompts(self) -> bool:
        """Whether the model has prompts for queries and for documents, and none that is used by default."""
        prompts = self.manifest.prompts
        both = all(any(prompts.texts.value.get(name) for name in names) for names in PROMPTS_OF_KIND.values())
        return both and prompts.default.value is None

    def tokenizing(self, cut: Cut) -> Callable[[Sequence[Item]], list[Tokens]]:
        """What tokenizes texts, pairs and lists of ids; it raises Refusal for one that may not be cut and is too long.

        It is the same one for every equal cut, so that texts of several requests are tokenized together. Raises Refusal
        for a side on which pairs cannot be cut.
        """
        if cut in self._tokenizing:
            return self._tokenizing[cut]
        own = self.manifest.tokenization.truncation_side.value
        if cut.side not in (None, own) and self.manifest.reranking:
            raise Refusal("validation", f"this model's pairs are cut on the {own} only", param="$.truncation_direction")
        side, limit = self._side_and_limit(cut)

        def tokenize(items: Sequence[Item]) -> list[Tokens]:
            tokenizer = self._tokenizer(side, limit)  # here, where no other request waits while it is made
            texts = [item for item in items if not _is_ids(item)]
            made = iter(tokenizer.tokenize(texts))
            tokens = [_ids_as_tokens(item, limit, side) if _is_ids(item) else next(made) for item in items]
            if not cut.allowed:
                self._refuse_truncated(items, tokens, limit)
            return tokens

        _keep(self._tokenizing, cut, tokenize)
        return tokenize

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raise Refusal for ids that are not in the vocabulary."""
        size = self.whole_tokenizer.get_vocab_size(with_added_tokens=True)
        if not ids:
            raise Refusal("empty", "`inputs` cannot be empty: a list of token ids has no id")
        if min(ids) < 0 or max(ids) >= size:
            raise Refusal("validation", f"this model has token ids from 0 to {size - 1}, not {max(ids, key=abs)}")

    def _side_and_limit(self, cut: Cut) -> tuple[TruncationSide, int]:
        """On which side, and to how many tokens, texts are cut."""
        longest = self.opened.max_length
        limit = longest if cut.max_length is None else min(cut.max_length, longest)
        return cut.side or self.manifest.tokenization.truncation_side.value, limit

    def _tokenizer(self, side: TruncationSide, limit: int) -> TextTokenizer:
        opened = self.opened
        if side == self.manifest.tokenization.truncation_side.value and limit == opened.max_length:
            return opened.tokenizer
        tokenizer = self._tokenizers.get((side, limit))
        if tokenizer is None:
            tokenizer = opened.tokenizer.shortened(opened.folder, limit, side)
            _keep(self._tokenizers, (side, limit), tokenizer)
        return tokenizer

    def _refuse_truncated(self, items: Sequence[Item], tokens: Sequence[Tokens], limit: int) -> None:
        item = next((item for item, each in zip(items, tokens, strict=True) if each.truncated), None)
        if item is not None:
            if _is_ids(item):
                given = len(item)
            else:
                given = len(self.whole_tokenizer.encode(*(item if isinstance(item, tuple) else (item,))).ids)
            raise Refusal("validation", f"`inputs` must have less than {limit + 1} tokens. Given: {given}")


MAX_TOKENIZERS = 64
"""Each length that requests cut to has a tokenizer of its own; at most this many are kept."""


def _keep(kept: dict[Key, Value], key: Key, value: Value) -> None:
    if len(kept) >= MAX_TOKENIZERS:
        kept.clear()
    kept[key] = value


def _is_ids(item: Item) -> bool:
    return isinstance(item, tuple) and not isinstance(item[0], str)


def _ids_as_tokens(ids: Sequence[int], limit: int, side: TruncationSide) -> Tokens:
    kept = np.array(ids[-limit:] if side == "left" else ids[:limit], np.int64)
    return Tokens(kept, np.zeros_like(kept), truncated=len(kept) < len(ids))
