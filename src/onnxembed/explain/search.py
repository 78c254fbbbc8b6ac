"""One search over the hypotheses: single changes, then pairs; each run of the graph serves many of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations as pairs_of

import numpy as np

from onnxembed.arrays import FloatArray, row_cosines
from onnxembed.explain.candidates import FLOAT_NOISE, Candidate, Scale, best, candidate, combinations
from onnxembed.explain.hypotheses import truncated
from onnxembed.explain.replay import Replay, TokenIds
from onnxembed.explain.setup import Hypothesis, Inputs, Setup

# Predictions closer than this to our own vectors cannot be told from them.
_UNSEEN = 1e-7

# Steps of the search for a length: every so many tokens first, then each around the best.
_STEP = 16

# A change is tried on this many of the shortest texts first.
_FEW = 6

Changes = tuple[Hypothesis, ...]


@dataclass
class Search:
    """Looks for the changes that turn our vectors into theirs, [N, D]."""

    replay: Replay
    setup: Setup
    theirs: FloatArray
    scale: Scale
    lengths: range
    """The limits that the graph can take, in tokens."""
    candidates: list[Candidate] = field(default_factory=list)
    rejected: list[Candidate] = field(default_factory=list)
    """Changes that do not even fit the shortest texts, with the cosines of those."""
    unseen: list[Hypothesis] = field(default_factory=list)
    """Single changes that do not change these texts' vectors."""
    untested: list[Hypothesis] = field(default_factory=list)
    """Single changes that this graph cannot make."""
    _tokens: dict[Changes, list[TokenIds]] = field(default_factory=dict)
    _own: FloatArray | None = None

    def run(self, hypotheses: Sequence[Hypothesis]) -> list[Candidate]:
        """The accepted candidates that nothing tells apart, as `best` gives them; empty if nothing fits."""
        self._tokens = {(): self.replay.tokenize(self.setup.inputs)}
        again = [each for each in hypotheses if each.inputs and self._possible(each)]
        pooled = [each for each in hypotheses if not each.inputs]
        runs = [each for each in again if self._is_seen((each,))]
        self.unseen += [each for each in again if each not in runs]
        self._own = self.replay.vectors(self.replay.states(self.setup.inputs), self.setup.pooled)
        self._replays((), pooled)
        for each in runs:
            if self._is_found():
                break
            self._screened((each,), pooled)
        if not best(self.candidates):
            self._lengths_of(pooled)
        if not best(self.candidates):
            for pair in pairs_of(runs, 2):
                if not self._is_found() and pair[0].fits(pair[1]) and self._is_seen(pair):
                    self._screened(pair, [each for each in pooled if each.cause == "dimensions"])
        return best(self.candidates)

    def _is_found(self) -> bool:
        """Whether at most one change explains all to the rounding of fp32: other runs could not come closer."""
        found = best(self.candidates)
        return bool(found) and found[0].error < FLOAT_NOISE and len(found[0].changes) < 2

    def _screened(self, changes: Changes, pooled: Sequence[Hypothesis]) -> None:
        """`_replays`, if the shortest texts fit at all; padding depends on all texts."""
        if self._applied(changes).inputs.padding == "none":
            few = self._of_few()
            few._replays(changes, pooled)
            if not any(each.accepted for each in few.candidates):
                self.rejected += [each for each in few.candidates if each.changes == changes]
                return
        self._replays(changes, pooled)

    def _of_few(self) -> Search:
        """The same search for the shortest texts, whose runs take little time."""
        counts = [len(text.ids) for text in self._tokens[()]]
        places = sorted(range(len(counts)), key=lambda place: counts[place])[:_FEW]
        return replace(self, replay=self.replay.only(places), theirs=self.theirs[places], candidates=[], unseen=[])

    def _possible(self, hypothesis: Hypothesis) -> bool:
        possible = hypothesis.inputs.get("max_length", self.lengths.start) in self.lengths
        return possible and hypothesis.inputs.get("max_length") != self.setup.inputs.max_length

    def _applied(self, changes: Changes) -> Setup:
        setup = self.setup
        for change in changes:
            setup = change.applied(setup)
        return setup

    def _is_seen(self, changes: Changes) -> bool:
        """Whether changes of inputs change what the graph gets, compared with fewer of them."""
        inputs = self._applied(changes).inputs
        tokens = self._tokens[changes] = self.replay.tokenize(inputs)
        fewer = [()] if len(changes) == 1 else [(each,) for each in changes]
        return all(
            not _same(tokens, self._tokens[each]) or _fed(inputs) != _fed(self._applied(each).inputs) for each in fewer
        )

    def _replays(self, changes: Changes, pooled: Sequence[Hypothesis]) -> None:
        """Run the graph once, and try every pooling with it; of a run without changes, also two changes at once."""
        setup = self._applied(changes)
        states = self.replay.states(setup.inputs)
        cuts = [each for each in pooled if each.cause == "dimensions"]
        others = [each for each in pooled if each.cause != "dimensions" and all(each.fits(one) for one in changes)]
        for more in combinations(others, most=max(0, 2 - len(changes))):
            vectors = self.replay.vectors(states, self._applied((*changes, *more)).pooled)
            if vectors is None:
                self.untested += [each for each in more if len(more) == 1 and each not in self.untested]
                continue
            all_changes = (*changes, *more)
            if len(all_changes) == 1 and not changes and self._is_ours(vectors):
                self.unseen.append(all_changes[0])
                continue
            for cut in ((), *((each,) for each in cuts)):
                dimensions = cut[0].pooled["dimensions"] if cut else None
                made = candidate((*all_changes, *cut), vectors, self.theirs, self.scale, dimensions)
                self.candidates += [made] if made else []

    def _is_ours(self, vectors: FloatArray) -> bool:
        ours = self._own
        assert ours is not None
        return vectors.shape == ours.shape and bool(1 - row_cosines(vectors, ours).min() < _UNSEEN)

    def _lengths_of(self, pooled: Sequence[Hypothesis]) -> None:
        """Where short texts fit and longer ones do not, find the limit that makes the shortest of the latter fit."""
        for partial in sorted(self.candidates, key=lambda each: -int(each.exact.sum()))[:3]:
            if any("max_length" in change.inputs for change in partial.changes):
                continue
            kept = tuple(change for change in partial.changes if change.inputs or change.pooled)
            counts = np.array([len(text.ids) for text in self.replay.tokenize(self._whole(kept))])
            exact = partial.exact
            if not exact.any() or exact.all() or counts[exact].max() >= counts[~exact].min():
                continue
            place = int(np.where(exact, counts.max() + 1, counts).argmin())
            length = self._best_length(kept, place, int(counts[exact].max()), int(counts[place]))
            changes = (*(each for each in kept if each.inputs), truncated(self.setup, length))
            if self._is_seen((changes[-1],)):
                self._replays(changes, [each for each in kept if not each.inputs])

    def _whole(self, changes: Changes) -> Inputs:
        setup = self._applied(changes)
        return Hypothesis("", "", "", inputs={"max_length": self.lengths.stop - 1}).applied(setup).inputs

    def _best_length(self, changes: Changes, place: int, low: int, high: int) -> int:
        """The limit from `low` to below `high` tokens at which one text comes closest to theirs."""
        setup = self._applied(changes)
        alone = self.replay.only([place])

        def error(length: int) -> float:
            cut = truncated(self.setup, length).applied(setup)
            vectors = alone.vectors(alone.states(cut.inputs), cut.pooled)
            assert vectors is not None
            theirs = self.theirs[place : place + 1]
            return float(1 - row_cosines(vectors[:, : theirs.shape[1]], theirs).min())

        coarse = {length: error(length) for length in _clipped(self.lengths, range(low, high, _STEP))}
        near = sorted(coarse, key=lambda length: coarse[length])[:2]
        fine = {length for middle in near for length in range(middle - _STEP + 1, middle + _STEP)}
        found = {length: error(length) for length in _clipped(self.lengths, sorted(fine & {*range(low, high)}))}
        return min(found, key=lambda length: found[length])


def _clipped(lengths: range, wanted: Sequence[int]) -> Iterator[int]:
    return (length for length in wanted if length in lengths)


def _fed(inputs: Inputs) -> tuple[object, ...]:
    """What the graph gets beside the tokens."""
    return inputs.type_id, inputs.padding


def _same(a: Sequence[TokenIds], b: Sequence[TokenIds]) -> bool:
    return all(np.array_equal(one.ids, other.ids) for one, other in zip(a, b, strict=True))
