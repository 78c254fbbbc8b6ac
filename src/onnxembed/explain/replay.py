"""Runs of a graph with other inputs, and the vectors that other poolings make of one run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxembed.arrays import Feeds, FloatArray, IntArray
from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import UsageError
from onnxembed.execution.backend import Backend
from onnxembed.explain.analysis import AnalysisGraphs
from onnxembed.explain.heads import read_layers, through
from onnxembed.explain.setup import Build, Inputs, Pooled, Setup
from onnxembed.explain.tokenizers import Parts, keeping_case, parts_of, set_parts, variants
from onnxembed.manifest import TOKEN_EMBEDDINGS
from onnxembed.runtime.outputs import pooling
from onnxembed.runtime.outputs.dense import DenseReadout, dense_readout

# A run of padded texts holds at most this many slots, which bounds the memory of its attention.
_SLOTS = 8192

# Bytes of token embeddings that are kept once they are computed: other hypotheses ask for the same tokens.
_KEPT = 256 * 2**20

Flags = NDArray[np.bool_]
Special = tuple[int, int]
"""An id and its token type."""

Encoded = tuple[IntArray, Flags]
"""The ids and types of a text [2, T], and which tokens are the prompt's, [T]."""


@dataclass(frozen=True, eq=False)
class TokenIds:
    """The tokens of one text, each [T]; `added` are special tokens, and `prompt` those before the text itself."""

    ids: IntArray
    types: IntArray
    added: Flags
    prompt: Flags

    @cached_property
    def key(self) -> bytes:
        """Equal for equal ids and types."""
        return self.ids.tobytes() + b"|" + self.types.tobytes()


@dataclass(frozen=True, eq=False)
class States:
    """What a graph made of one text: token embeddings [T, D] of all slots, and which slots are what, [T]."""

    tokens: FloatArray
    mask: IntArray
    added: Flags
    prompt: Flags
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

    def __init__(self, model: OnnxEmbedder, texts: Sequence[str], own: Pooled, graphs: AnalysisGraphs) -> None:
        self._model, self._texts, self._own, self._graphs = model, texts, own, graphs
        self._section = model.manifest.require_embedding()
        self._readout: DenseReadout = dense_readout(model.folder, self._section)
        self._in_graph = self._section.pooled_by == "graph"
        self._layers = read_layers(model.folder, model.manifest, self._readout)
        self._kept: dict[tuple[str, bytes, int | None], States] = {}
        self._room = _KEPT
        self._encoded: dict[tuple[str, ...], list[Encoded]] = {}

    @cached_property
    def replays_poolings(self) -> bool:
        """Whether another pooling can be made of a run: the layers after it are known."""
        return self._layers is not None

    @property
    def kinds_of_layers(self) -> tuple[str, ...]:
        """The kinds of layers after the pooling that can be left out."""
        kinds = dict.fromkeys(layer.kind for layer in self._layers or ())
        return tuple(kind for kind in kinds if kind != "normalize")

    @property
    def specials(self) -> int:
        """The number of special tokens around every text."""
        before, after = _around(self._tokenizer)
        return len(before) + len(after)

    @cached_property
    def _tokenizer(self) -> Any:
        return self._model.model.tokenizer.whole()

    @cached_property
    def _parts(self) -> Parts:
        return parts_of(self._tokenizer)

    @cached_property
    def word_variants(self) -> dict[str, Parts]:
        """Other ways to split texts into words, by what they do."""
        return variants(self._parts)

    def _encodings(self, inputs: Inputs) -> list[Encoded]:
        """The encoding of every text without special tokens, whole; a text is encoded once for each way to do it."""
        key = (inputs.prompt, inputs.case, inputs.words)
        if key not in self._encoded:
            texts = [inputs.prompt + text for text in self._texts]
            texts = [text.lower() for text in texts] if inputs.case == "lower" else texts
            parts = self.word_variants[inputs.words] if inputs.words else self._parts
            parts = keeping_case(parts) if inputs.case == "kept" else parts
            set_parts(self._tokenizer, parts)
            encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
            set_parts(self._tokenizer, self._parts)
            length = len(inputs.prompt)
            self._encoded[key] = [
                (
                    np.array([encoding.ids, encoding.type_ids], np.int64),
                    np.array([start < length for start, _ in encoding.offsets], np.bool_),
                )
                for encoding in encodings
            ]
        return self._encoded[key]

    def tokenize(self, inputs: Inputs, places: Iterable[int] | None = None) -> list[TokenIds]:
        """The tokens of each text, or of those at some places, with its prompt, cut to length."""
        encodings = self._encodings(inputs)
        before, after = _around(self._tokenizer)
        before = [] if inputs.dropped in ("first", "all") else before
        after = [] if inputs.dropped in ("last", "all") else after
        after = [*after, *after[-1:]] if inputs.dropped == "doubled" else after
        chosen = range(len(encodings)) if places is None else places
        return [_joined(encodings[place], (before, after), inputs) for place in chosen]

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The tokens that ids stand for."""
        return [token or "?" for token in self._model.model.tokens(ids)]

    def states(self, setup: Setup, places: Sequence[int] | None = None) -> list[States]:
        """What the graph of a setup makes of each text, or of those at some places.

        Raises CannotBuildError for a graph that cannot be made.
        """
        inputs, build = setup.inputs, setup.build
        tokens = self.tokenize(inputs, places)
        backend = self._graphs.backend(build) if build.key else self._model.model.backend
        if inputs.padding != "none":
            return self._padded(tokens, inputs, build, backend)
        keys = [(build.key, text.key, inputs.type_id) for text in tokens]
        missing = [place for place, key in enumerate(keys) if key not in self._kept]
        # The same tokens may stand in several places.
        missing = list({keys[place]: place for place in missing}.values())
        runs = backend.plan([max(1, len(tokens[place].ids)) for place in missing])
        wanted = [[missing[place] for place in run] for run in runs]
        computed = backend.start(lambda run: self._run([tokens[place] for place in run], inputs, build, None), wanted)
        found = {}
        for run, results in zip(wanted, computed, strict=True):
            for place, states in zip(run, results.result(), strict=True):
                found[keys[place]] = states
                if self._room >= states.tokens.nbytes:
                    self._room -= states.tokens.nbytes
                    self._kept[keys[place]] = states
        return [_seen(found.get(key) or self._kept[key], text) for key, text in zip(keys, tokens, strict=True)]

    def _padded(self, tokens: list[TokenIds], inputs: Inputs, build: Build, backend: Backend) -> list[States]:
        """Texts padded to the longest of all, those that are not computed now included."""
        width = max(1, *(len(text.ids) for text in self.tokenize(inputs)))
        each = max(1, min(_SLOTS // width, len(tokens) // 2))
        runs = [tokens[start : start + each] for start in range(0, len(tokens), each)]
        computed = backend.start(lambda run: self._run(run, inputs, build, width), runs)
        return [states for run in computed for states in run.result()]

    def _run(self, texts: list[TokenIds], inputs: Inputs, build: Build, width: int | None) -> list[States]:
        width = width or max(1, *(len(text.ids) for text in texts))
        feeds = self._feeds(texts, inputs, width)
        if build.key:
            fed = {name: feeds[name] for name in self._model.manifest.model.inputs}
            results: list[tuple[FloatArray, ...]] = [
                (tokens,) for tokens in self._graphs.backend(build).run([TOKEN_EMBEDDINGS], fed)[0]
            ]
        else:
            own = self._section.graph_output
            names = (TOKEN_EMBEDDINGS, own) if self._in_graph else (own,)
            results = self._model.model.compute(RawReadout(names), feeds)
        return [_states(texts[row], tokens, sentence, width, inputs) for row, (tokens, *sentence) in enumerate(results)]

    def _feeds(self, texts: list[TokenIds], inputs: Inputs, width: int) -> dict[str, IntArray]:
        shape = (len(texts), width)
        pad = self._model.manifest.tokenization.pad_token_id.value
        ids, mask, types = np.full(shape, pad, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, text in enumerate(texts):
            place = _place(len(text.ids), width, inputs)
            ids[row, place], types[row, place], mask[row, place] = text.ids, text.types, 1
        if inputs.type_id is not None:
            types[:] = inputs.type_id
        if inputs.padding == "attended":
            mask[:] = 1
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}

    def vectors(self, states: Sequence[States], pooled: Pooled) -> FloatArray | None:
        """The vectors [N, D] of a run, whole and not scaled; None if they cannot be made from it."""
        if self._layers is None:
            own = (pooled.pooling, pooled.over, pooled.left_out) == (self._own.pooling, self._own.over, ())
            if not own or any(state.sentence is None for state in states):
                return None
            return np.stack([state.sentence for state in states if state.sentence is not None])
        vectors = np.concatenate([_pooled(state, pooled) for state in states])
        return through(self._layers, vectors, pooled.left_out)


def _states(text: TokenIds, tokens: FloatArray, sentence: list[FloatArray], width: int, inputs: Inputs) -> States:
    """The states of one row; without padding only those of its tokens, since a run may be wider than the text."""
    count = len(text.ids)
    place = _place(count, width, inputs)
    if inputs.padding == "none":
        ones = np.ones(max(1, count), np.int64) if count else np.zeros(1, np.int64)
        shown = tokens[: max(1, count)].copy()  # not a view that keeps the whole run
        return States(shown, ones, text.added, text.prompt, sentence[0] if sentence else None)
    mask, added, prompt = np.zeros(width, np.int64), np.zeros(width, np.bool_), np.zeros(width, np.bool_)
    mask[place], added[place], prompt[place] = 1, text.added, text.prompt
    return States(tokens, mask, added, prompt, sentence[0] if sentence else None)


def _seen(states: States, text: TokenIds) -> States:
    """States of equal tokens, with the flags of this text: another prompt may end elsewhere."""
    same = states.added is text.added and states.prompt is text.prompt
    return states if same else States(states.tokens, states.mask, text.added, text.prompt, states.sentence)


def _place(count: int, width: int, inputs: Inputs) -> slice:
    """The slots of a text's tokens."""
    return slice(width - count, width) if inputs.padding == "left" else slice(0, count)


def _pooled(state: States, pooled: Pooled) -> FloatArray:
    mask = state.mask
    if pooled.over == "slots":
        mask = np.ones_like(mask)
    elif pooled.over != "tokens" and len(mask) == len(state.added):
        rest = mask * ~(state.added if pooled.over == "words" else state.prompt)
        mask = rest if rest.any() else mask
    return pooling.pool(state.tokens[None], mask[None], pooled.pooling)


def _around(tokenizer: Any) -> tuple[list[Special], list[Special]]:
    """The ids and types of the special tokens before and after every text."""
    encoding = tokenizer.encode("a")
    pairs = list(zip(encoding.ids, encoding.type_ids, strict=True))
    inner = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
    return pairs[: inner[0]], pairs[inner[-1] + 1 :]


def _joined(encoded: Encoded, around: tuple[list[Special], list[Special]], inputs: Inputs) -> TokenIds:
    """A text between its special tokens, cut to length."""
    (pairs, prompt), (before, after) = encoded, around
    room = max(0, inputs.max_length - len(before) - len(after))
    if pairs.shape[1] > room:
        kept = slice(0, room) if inputs.side == "right" else slice(pairs.shape[1] - room, None)
        pairs = pairs[:, kept]
    whole = np.concatenate([np.array(part, np.int64).reshape(-1, 2).T for part in (before, pairs.T, after)], axis=1)
    added = np.zeros(whole.shape[1], np.bool_)
    added[: len(before)] = True
    added[whole.shape[1] - len(after) :] = True
    # The tokens of the prompt are left out together with the special ones at the start. sentence-transformers counts
    # them from there, whatever has been cut.
    flags = np.zeros(whole.shape[1], np.bool_)
    if prompt.any():
        flags[: len(before) + int(prompt.sum())] = True
    return TokenIds(whole[0], whole[1], added, flags)


def check_tokens(replay: Replay, model: OnnxEmbedder, texts: Sequence[str], inputs: Inputs) -> None:
    """Raise UsageError if the parts of the tokenizer do not make the model's own ids, which everything rests on."""
    own = model.model.tokenize([inputs.prompt + text for text in texts])
    for mine, joined in zip(own, replay.tokenize(inputs), strict=True):
        if not np.array_equal(mine.ids, joined.ids):
            raise UsageError("this model's tokenizer cannot be taken apart, so its tokens cannot be varied")
