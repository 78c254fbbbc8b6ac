"""`explain_scores`: why somebody else's scores of pairs are not a reranker's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from onnxembed.arrays import Array, FloatArray, IntArray
from onnxembed.counting import counted
from onnxembed.errors import UsageError
from onnxembed.explain.analysis import AnalysisGraphs, CannotBuildError
from onnxembed.explain.builds import builds
from onnxembed.explain.given import FEWEST
from onnxembed.explain.hypotheses import LENGTHS
from onnxembed.explain.report import Report, Row, Tried, causes_of, sentence, untested_lines
from onnxembed.explain.setup import Build, Hypothesis, Inputs, Pooled, Setup
from onnxembed.manifest import LOGITS, HeadPooling
from onnxembed.reranker import OnnxReranker
from onnxembed.runtime.outputs.pooling import ACTIVATIONS
from onnxembed.tokenizer.pairs import Pair, PairTokenizer
from onnxembed.tokenizer.texts import Tokens, pad

ACCEPTED = 2e-3
"""The largest difference of two scores that rounding explains, fp16 included; relative to scores above 1."""

FLOAT_NOISE = 2e-5
"""What fp32 changes."""

Changes = tuple[Hypothesis, ...]
MakeTokens = Callable[[], list[Tokens]]


@dataclass(frozen=True, eq=False)
class _Change:
    """A hypothesis about pairs, and the tokens that it makes; None if it changes the graph instead."""

    hypothesis: Hypothesis
    tokens: MakeTokens | None = None


@dataclass(frozen=True, eq=False)
class _Candidate:
    """Changes, and how far the scores that they make are from theirs, [N]."""

    changes: Changes
    differences: FloatArray

    @property
    def error(self) -> float:
        return float(self.differences.max())

    @property
    def words(self) -> str:
        return " and ".join(change.theirs for change in self.changes) or "are made as ours"

    def tried(self) -> Tried:
        return Tried(self.words, self.error, tuple(change.cause for change in self.changes))


def explain_scores(model: OnnxReranker, pairs: Sequence[Pair], scores: Array, *, system: str | None = None) -> Report:
    """Why somebody else's scores [N] of these (query, document) pairs are not the model's own.

    A cause is named only if it reproduces every score. For models with one label, and at least three pairs. `system`
    is the other system, as the fixes name it.

    Raises UsageError for scores that cannot belong to the pairs.
    """
    theirs = _checked(model, pairs, scores)
    usable = np.flatnonzero(np.isfinite(theirs)).tolist()
    with closing(AnalysisGraphs(model)) as graphs:
        search = _Search(model, [pairs[place] for place in usable], theirs[usable], graphs)
        found = search.run()
    before, *_ = search.candidates
    tried = sorted(search.candidates, key=lambda each: each.error)
    chosen = found[0] if found else tried[0]
    others = [each for each in tried if each not in found and not {*chosen.changes} <= {*each.changes}]
    counts = [len(tokens) for tokens in search.own]
    rows = zip(usable, counts, before.differences.tolist(), chosen.differences.tolist(), strict=True)
    left_out = _left_out(theirs)
    return Report(
        verdict=left_out + _verdict(chosen, explained=bool(found)),
        explained=bool(found),
        band=False,
        same=bool(found) and not chosen.changes and not left_out,
        causes=causes_of(chosen.changes, system) if found else (),
        measure="difference",
        rows=tuple(Row(place, count, a, b, " | ".join(pairs[place])) for place, count, a, b in rows),
        alternatives=tuple(each.tried() for each in found[1:]),
        runner_up=others[0].tried() if found and others else None,
        ruled_out=tuple(each.tried() for each in tried if len(each.changes) == 1 and each.error > ACCEPTED),
        unseen=tuple(change.theirs for change in search.unseen),
        untested=tuple(untested_lines(search.untested)),
        notes=(),
    )


def _checked(model: OnnxReranker, pairs: Sequence[Pair], scores: Array) -> FloatArray:
    if len(model.labels) > 1:
        raise UsageError(f"explain is for rerankers with one label, and this model has {len(model.labels)}")
    theirs = np.asarray(scores)
    if theirs.dtype.kind not in "fiu":
        raise UsageError(f"their scores are not numbers, one for each pair: their type is {theirs.dtype}")
    if theirs.shape != (len(pairs),):
        raise UsageError(f"their scores have the shape {theirs.shape}, not one number for each of {len(pairs)} pairs")
    if (usable := int(np.isfinite(theirs).sum())) < FEWEST:
        raise UsageError(
            f"{_left_out(theirs)}{usable} usable pairs are too few to tell a cause: give at least {FEWEST}"
        )
    return theirs.astype(np.float32)


def _left_out(theirs: FloatArray) -> str:
    """What is said first where some of their scores are no numbers."""
    places = np.flatnonzero(~np.isfinite(theirs)).tolist()
    if not places:
        return ""
    shown = ", ".join(map(str, places[:5])) + (", ..." if len(places) > 5 else "")
    return (
        f"{counted(len(places), 'score')} of theirs cannot be used (NaN or infinity: pairs[{shown}]). Of the others: "
    )


class _Search:
    """Single changes, then pairs: of tokens, of the graph, and the activation beside each."""

    def __init__(self, model: OnnxReranker, pairs: Sequence[Pair], theirs: FloatArray, graphs: AnalysisGraphs) -> None:
        self._model, self._pairs, self._theirs, self._graphs = model, pairs, theirs, graphs
        self._section = model.manifest.require_reranking()
        self.own = model.model.tokenize(list(pairs))
        self.candidates: list[_Candidate] = []
        self.unseen: list[Hypothesis] = []
        self.untested: dict[str, list[Hypothesis]] = {}

    def run(self) -> list[_Candidate]:
        """The accepted candidates that nothing tells apart, the fewest changes first."""
        own = self._try(())
        singles = [change for change in self._changes() if self._is_seen(change, own)]
        if not self._is_found():
            for place, first in enumerate(singles):
                for second in singles[place + 1 :]:
                    if first.hypothesis.cause != second.hypothesis.cause and not (first.tokens and second.tokens):
                        self._try((first, second))
        return self._best()

    def _changes(self) -> Iterator[_Change]:
        yield from self._of_tokens()
        yield from self._poolings()
        manifest = self._model.manifest
        yield from (_Change(hypothesis) for hypothesis in builds(manifest, self._graphs.config))

    def _of_tokens(self) -> Iterator[_Change]:
        model, pairs = self._model.model, self._pairs
        swapped = [(document, query) for query, document in pairs]
        yield _Change(
            Hypothesis("pair order", "have the document before the query", "have the query first"),
            lambda: model.tokenize(swapped),
        )
        if self._section.template is not None:
            return
        whole = model.tokenizer.whole()
        yield _Change(
            Hypothesis("separator", "are of query and document as one text", "have a separator between them"),
            lambda: [_tokens(whole.encode(f"{query} {document}"), model.max_length) for query, document in pairs],
        )
        if "token_type_ids" in self._model.manifest.model.inputs:
            yield _Change(
                Hypothesis("token types", "give every token the type 0", "give the document's tokens the type 1"),
                lambda: [replace(tokens, type_ids=np.zeros_like(tokens.ids)) for tokens in self.own],
            )
        lower = [(query.lower(), document.lower()) for query, document in pairs]
        yield _Change(Hypothesis("case", "lower-case the texts", "keep capital letters"), lambda: model.tokenize(lower))
        for length in LENGTHS:
            if whole.num_special_tokens_to_add(True) < length < model.max_length:
                words = {"length": str(model.max_length)}
                ours = f"cut them to {model.max_length}"
                yield _Change(
                    Hypothesis("truncation", f"cut pairs to {length} tokens", ours, words=words), self._cut(length)
                )

    def _cut(self, length: int) -> MakeTokens:
        folder, pairs = self._model.folder, self._pairs
        return lambda: PairTokenizer(folder, self._model.manifest, length, self._section.truncation.value).tokenize(
            list(pairs)
        )

    def _poolings(self) -> Iterator[_Change]:
        own = self._section.pooling
        words: dict[HeadPooling, str] = {"cls": "the first token", "mean": "the mean of the tokens"}
        for mode, theirs in words.items():
            if mode != own.value and own.value in words:
                ours = f"reads {words[own.value]} ({own.reason})"
                yield _Change(Hypothesis("head", f"are read by the head from {theirs}", ours, build={"head": mode}))

    def _is_seen(self, change: _Change, own: FloatArray | None) -> bool:
        """Try a single change; whether it makes other logits than ours."""
        before = len(self.candidates)
        logits = self._try((change,))
        if logits is None:
            return False
        if own is not None and np.abs(logits - own).max() < FLOAT_NOISE / 10:
            del self.candidates[before:]
            self.unseen.append(change.hypothesis)
            return False
        return True

    def _try(self, changes: tuple[_Change, ...]) -> FloatArray | None:
        setup = Setup(Inputs("", self._model.max_length, "right"), Pooled(("cls",)))
        tokens = self.own
        for change in changes:
            setup = change.hypothesis.applied(setup)
            tokens = change.tokens() if change.tokens else tokens
        try:
            logits = self._logits(tokens, setup.build)
        except CannotBuildError as error:
            self.untested.setdefault(str(error), []).extend(
                change.hypothesis for change in changes if change.tokens is None
            )
            return None
        own = self._section.activation.value
        for name in dict.fromkeys((own, "identity", "sigmoid")):
            made = ACTIVATIONS[name](logits)
            differences = np.abs(made - self._theirs) / np.maximum(1, np.abs(self._theirs))
            hypotheses = tuple(change.hypothesis for change in changes)
            made_so = (*hypotheses, *_activated(name, own))
            self.candidates.append(_Candidate(made_so, differences))
            if differences.max() > ACCEPTED and (reordered := _reordered(made, self._theirs)) is not None:
                self.candidates.append(_Candidate((*made_so, _order(self._theirs)), reordered))
        return logits

    def _logits(self, tokens: list[Tokens], build: Build) -> FloatArray:
        """The logit of each pair, [N], each computed by itself."""
        fill = self._model.manifest.tokenization.pad_token_id.value
        if not build.key:
            logits = [self._model.forward(pad([each], fill))[0, 0] for each in tokens]
        else:
            backend = self._graphs.backend(build)
            logits = [backend.run([LOGITS], self._fed(pad([each], fill)))[0][0, 0] for each in tokens]
        return np.array(logits, np.float32)

    def _fed(self, feeds: dict[str, IntArray]) -> dict[str, IntArray]:
        return {name: feeds[name] for name in self._model.manifest.model.inputs}

    def _is_found(self) -> bool:
        found = self._best()
        return bool(found) and found[0].error < FLOAT_NOISE

    def _best(self) -> list[_Candidate]:
        accepted = [each for each in self.candidates if each.error <= ACCEPTED]
        if not accepted:
            return []
        level = max(10 * min(each.error for each in accepted), FLOAT_NOISE)
        near = [each for each in accepted if each.error <= level]
        fewest = min(len(each.changes) for each in near)
        return sorted((each for each in near if len(each.changes) == fewest), key=lambda each: each.error)


def _tokens(encoding: object, length: int) -> Tokens:
    ids = np.array(getattr(encoding, "ids", ()), np.int64)
    if len(ids) > length:
        ids = np.concatenate([ids[: length - 1], ids[-1:]])
    return Tokens(ids, np.zeros_like(ids), truncated=False)


def _reordered(made: FloatArray, theirs: FloatArray) -> FloatArray | None:
    """The differences [N] if theirs are these scores in another order; None if they are not.

    Only what rounds as fp32 does is believed: a few scores are near many others.
    """
    ours, other = np.argsort(made, kind="stable"), np.sort(theirs)
    differences = np.zeros_like(made)
    differences[ours] = np.abs(made[ours] - other) / np.maximum(1, np.abs(other))
    apart = np.diff(made[ours]) > FLOAT_NOISE
    return differences if differences.max() < FLOAT_NOISE and apart.sum() >= FEWEST - 1 else None


def _order(theirs: FloatArray) -> Hypothesis:
    ranked = bool((np.diff(theirs) <= 0).all())
    said = "stand in the order of their ranks, the best first" if ranked else "stand in another order than the pairs"
    return Hypothesis("order", said, "stand in the order of the pairs")


def _activated(name: str, own: str) -> Changes:
    if name == own:
        return ()
    words = {"identity": "are raw logits", "sigmoid": "are the sigmoid of the logits"}
    ours = words.get(own, f"are the {own} of the logits")
    return (Hypothesis("activation of scores", words[name], ours, words={"raw": str(own == "identity").lower()}),)


def _verdict(chosen: _Candidate, *, explained: bool) -> str:
    if not explained:
        return (
            f"Unexplained. Best partial match: if their scores {chosen.words}, the largest difference is "
            f"{chosen.error:.4f}. That is no cause: it may be another model, or something not tried here."
        )
    remains = f"the largest difference is {chosen.error:.1e}"
    noise = "as small as the rounding of " + ("fp32" if chosen.error < FLOAT_NOISE else "fp16, or another form of GELU")
    if not chosen.changes:
        return f"The scores are the same: {remains}, {noise}."
    return f"{sentence(chosen.changes, 'scores')} With this, {remains}, {noise}."
