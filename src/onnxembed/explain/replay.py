"""Runs of the model's own graph with other inputs, and the vectors that other poolings make of one run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxembed.arrays import Array, Feeds, FloatArray, IntArray
from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import UsageError
from onnxembed.explain.setup import Inputs, Pooled
from onnxembed.manifest import TOKEN_EMBEDDINGS
from onnxembed.runtime.outputs import pooling
from onnxembed.runtime.outputs.dense import DenseReadout, dense_readout

# A run of padded texts holds at most this many slots, which bounds the memory of its attention.
_SLOTS = 8192

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class TokenIds:
    """The tokens of one text, and which of them are special, each [T]."""

    ids: IntArray
    types: IntArray
    special: Flags


@dataclass(frozen=True)
class States:
    """What the graph made of one text: token embeddings [T, D] of all slots, and which slots are what, [T]."""

    tokens: FloatArray
    mask: IntArray
    special: Flags
    sentence: FloatArray | None
    """The graph's own sentence embedding [D], before it is cut or scaled again."""


@dataclass(frozen=True)
class RawReadout:
    """Fetches outputs of the graph as they are."""

    outputs: tuple[str, ...]

    def prepare(self, feeds: Feeds) -> Feeds:
        """The feeds, unchanged."""
        return feeds

    def read(self, outputs: Sequence[FloatArray], feeds: Feeds) -> list[tuple[FloatArray, ...]]:
        """For each text, its part of each output."""
        return list(zip(*outputs, strict=True))


class Replay:
    """Makes the vectors of some texts as another system might. Not for several threads."""

    def __init__(self, model: OnnxEmbedder, texts: Sequence[str], own: Pooled) -> None:
        self._model, self._texts, self._own = model, texts, own
        self._section = model.manifest.require_embedding()
        self._readout: DenseReadout = dense_readout(model.folder, self._section)
        self._in_graph = self._section.pooled_by == "graph"
        # Layers inside the graph cannot be applied to another pooling.
        self.replays_poolings = not self._section.layers and not (self._in_graph and self._section.dense)

    def only(self, places: Sequence[int]) -> Replay:
        """The same for some of the texts."""
        return Replay(self._model, [self._texts[place] for place in places], self._own)

    @property
    def specials(self) -> int:
        """The number of special tokens around every text."""
        before, after = _around(self._tokenizer)
        return len(before) + len(after)

    @cached_property
    def _tokenizer(self) -> Any:
        return self._model.model.tokenizer.whole()

    @cached_property
    def _cased(self) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_str(json.dumps(keeping_case(json.loads(self._tokenizer.to_str()))))

    def tokenize(self, inputs: Inputs) -> list[TokenIds]:
        """The tokens of each text, with its prompt, cut to length."""
        tokenizer = self._cased if inputs.case == "kept" else self._tokenizer
        texts = [inputs.prompt + text for text in self._texts]
        if inputs.case == "lower":
            texts = [text.lower() for text in texts]
        around = _around(tokenizer)
        if inputs.dropped in ("first", "all"):
            around = ([], around[1])
        if inputs.dropped in ("last", "all"):
            around = (around[0], [])
        encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
        return [_joined(encoding, around, inputs) for encoding in encodings]

    def states(self, inputs: Inputs) -> list[States]:
        """What the graph makes of each text."""
        tokens = self.tokenize(inputs)
        if inputs.padding == "none":
            runs = self._model.model.backend.plan([max(1, len(text.ids)) for text in tokens])
            width = None
        else:
            width = max(1, *(len(text.ids) for text in tokens))
            each = max(1, _SLOTS // width)
            places = list(range(len(tokens)))
            runs = [places[start : start + each] for start in range(0, len(places), each)]
        found: dict[int, States] = {}
        for run in runs:
            found.update(zip(run, self._run([tokens[place] for place in run], inputs, width), strict=True))
        return [found[place] for place in range(len(tokens))]

    def _run(self, texts: list[TokenIds], inputs: Inputs, width: int | None) -> list[States]:
        width = width or max(1, *(len(text.ids) for text in texts))
        feeds, special = self._feeds(texts, inputs, width)
        names = (TOKEN_EMBEDDINGS, self._section.graph_output) if self._in_graph else (self._section.graph_output,)
        results = self._model.model.compute(RawReadout(names), feeds)
        states = []
        for row, (tokens, *sentence) in enumerate(results):
            real = np.zeros(width, np.int64)
            real[_place(len(texts[row].ids), width, inputs)] = 1
            states.append(States(tokens, real, special[row], sentence[0] if sentence else None))
        return states

    def _feeds(self, texts: list[TokenIds], inputs: Inputs, width: int) -> tuple[dict[str, IntArray], Array]:
        shape = (len(texts), width)
        pad = self._model.manifest.tokenization.pad_token_id.value
        ids, mask, types = np.full(shape, pad, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        special = np.zeros(shape, np.bool_)
        for row, text in enumerate(texts):
            count = len(text.ids)
            place = _place(count, width, inputs)
            ids[row, place], types[row, place], special[row, place] = text.ids, text.types, text.special
            mask[row, place] = 1
        if inputs.type_id is not None:
            types[:] = inputs.type_id
        if inputs.padding == "attended":
            mask[:] = 1
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}, special

    def vectors(self, states: Sequence[States], pooled: Pooled) -> FloatArray | None:
        """The vectors [N, D] of a run, whole and not scaled; None if they cannot be made from it."""
        own = (pooled.pooling, pooled.over, pooled.dense) == (self._own.pooling, self._own.over, self._own.dense)
        if not self.replays_poolings and not own:
            if pooled.dense or self._section.layers:
                return None
        elif not self.replays_poolings:
            return np.stack([state.sentence for state in states if state.sentence is not None])
        vectors = np.concatenate([_pooled(state, pooled) for state in states])
        if pooled.dense:
            for weight, bias, activation in self._readout.layers:
                vectors = pooling.dense(vectors, weight, bias, activation)
        return vectors


def _place(count: int, width: int, inputs: Inputs) -> slice:
    """The slots of a text's tokens."""
    return slice(width - count, width) if inputs.padding == "left" else slice(0, count)


def _pooled(state: States, pooled: Pooled) -> FloatArray:
    mask = state.mask
    if pooled.over == "slots":
        mask = np.ones_like(mask)
    elif pooled.over == "words":
        words = mask * ~state.special
        mask = words if words.any() else mask
    return pooling.pool(state.tokens[None], mask[None], pooled.pooling)


def _around(tokenizer: Any) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The ids and types of the special tokens before and after every text."""
    encoding = tokenizer.encode("a")
    pairs = list(zip(encoding.ids, encoding.type_ids, strict=True))
    inner = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
    return pairs[: inner[0]], pairs[inner[-1] + 1 :]


def _joined(encoding: Any, around: tuple[list[Any], list[Any]], inputs: Inputs) -> TokenIds:
    before, after = around
    room = max(0, inputs.max_length - len(before) - len(after))
    content = list(zip(encoding.ids, encoding.type_ids, strict=True))
    if len(content) > room:
        content = content[:room] if inputs.side == "right" else content[len(content) - room :]
    pairs = np.array([*before, *content, *after], np.int64).reshape(-1, 2)
    special = np.zeros(len(pairs), np.bool_)
    special[: len(before)] = True
    special[len(pairs) - len(after) :] = True
    return TokenIds(pairs[:, 0], pairs[:, 1], special)


def keeping_case(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """The content of a tokenizer.json whose normalizer does not lower-case any more."""
    return {**tokenizer, "normalizer": _keeping_case(tokenizer.get("normalizer"))}


def _keeping_case(normalizer: Any) -> Any:
    if not isinstance(normalizer, dict):
        return normalizer
    if normalizer["type"] == "Sequence":
        kept = [_keeping_case(step) for step in normalizer["normalizers"]]
        return {**normalizer, "normalizers": [step for step in kept if step is not None]}
    if normalizer["type"] == "Lowercase":
        return None
    return {**normalizer, "lowercase": False} if normalizer["type"] == "BertNormalizer" else normalizer


def check_tokens(replay: Replay, model: OnnxEmbedder, texts: Sequence[str], inputs: Inputs) -> None:
    """Raise UsageError if the parts of the tokenizer do not make the model's own ids, which everything rests on."""
    own = model.model.tokenize([inputs.prompt + text for text in texts])
    for mine, joined in zip(own, replay.tokenize(inputs), strict=True):
        if not np.array_equal(mine.ids, joined.ids):
            raise UsageError("this model's tokenizer cannot be taken apart, so its tokens cannot be varied")
