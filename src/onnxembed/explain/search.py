"""One search over the hypotheses: single changes, then pairs; each run of a graph serves many of them.

Nearly all changes are refuted by a few short texts, so these are run first: only what makes their vectors is run on
all texts. What makes some texts' vectors but not others' is a partial match, and the second cause is looked for
beside it, on the shortest text that does not fit yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations as pairs_of
from itertools import product

import numpy as np

from onnxembed.arrays import FloatArray, row_cosines
from onnxembed.explain.analysis import CannotBuildError
from onnxembed.explain.candidates import (
    ACCEPTED,
    FLOAT_NOISE,
    Candidate,
    Scale,
    best,
    candidate,
    combinations,
    matches,
)
from onnxembed.explain.formats import Agreement, agreement, number_formats
from onnxembed.explain.hypotheses import LENGTHS, other_side, truncated
from onnxembed.explain.replay import Replay, States, TokenIds
from onnxembed.explain.setup import Hypothesis, Setup
from onnxembed.runtime.outputs.pooling import normalize

# Predictions closer than this to our own vectors cannot be told from them.
_UNSEEN = 1e-7

# The search for a length begins with this many of them, evenly spread, and then halves the steps around the best.
_STEPS = 12

# A change is tried on this many of the shortest texts first.
_FEW = 4

# At most this many partial matches are followed up.
_PARTIAL = 4

# Agreements closer than this are alike: those of poolings that differ in scale. A format alone agrees better than with
# a change that nobody made (measured: by 0.02 to 0.2), and worse than with one that somebody made (0.05 and more).
_ALIKE = 0.015

Changes = tuple[Hypothesis, ...]


@dataclass
class Search:
    """Looks for the changes that turn our vectors into theirs, [N, D]."""

    replay: Replay
    setup: Setup
    theirs: FloatArray
    everything: FloatArray
    """All of their vectors, [M, D]: rows may be permuted, and only N of the M texts are looked at."""
    scale: Scale
    lengths: range
    """The limits that the graph can take, in tokens."""
    candidates: list[Candidate] = field(default_factory=list)
    rejected: list[Candidate] = field(default_factory=list)
    """Changes that do not even fit a few short texts, with the cosines of those."""
    unseen: list[Hypothesis] = field(default_factory=list)
    """Single changes that do not change these texts' vectors."""
    rounding: list[Hypothesis] = field(default_factory=list)
    """Single changes of the graph that move these texts' vectors no more than rounding does."""
    untested: dict[str, list[Hypothesis]] = field(default_factory=dict)
    """Single changes that cannot be tried, by the reason."""
    _own: FloatArray | None = None

    def run(self, hypotheses: Sequence[Hypothesis]) -> list[Candidate]:
        """The accepted candidates that nothing tells apart, as `best` gives them; empty if nothing fits."""
        self._tokens = self.replay.tokenize(self.setup.inputs)
        self._counts = np.array([len(text.ids) for text in self._tokens])
        self._few = self._shortest()
        self._own = self.replay.vectors(self.replay.states(self.setup), self.setup.pooled)
        pooled = _pooled(hypotheses)
        again = [each for each in hypotheses if each.reruns and self._possible(each)]
        self._try((), pooled, most=2)
        runs = [each for each in again if self._is_seen(each)]
        for each in runs:
            if not self._is_found():
                self._screen((each,), pooled)
        if not self._is_explained():
            self._follow(runs, pooled)
        if not self._is_explained():
            self._pairs([each for each in runs if each not in self.rounding], pooled)
        return best(self.candidates)

    @property
    def own(self) -> FloatArray:
        """The model's own vectors [N, D], scaled as it scales them."""
        assert self._own is not None
        return normalize(self._own) if self.scale == "unit" else self._own

    # ---- which changes there are

    def _shortest(self) -> list[int]:
        """The places of the shortest texts with different tokens."""
        seen: dict[bytes, int] = {}
        for place in np.argsort(self._counts, kind="stable").tolist():
            seen.setdefault(self._tokens[place].key, place)
        return list(seen.values())[:_FEW]

    def _possible(self, hypothesis: Hypothesis) -> bool:
        length = hypothesis.inputs.get("max_length")
        return length is None or (length in self.lengths and length != self.setup.inputs.max_length)

    def _applied(self, changes: Changes) -> Setup:
        setup = self.setup
        for change in changes:
            setup = change.applied(setup)
        return setup

    def _is_seen(self, hypothesis: Hypothesis) -> bool:
        """Whether a change of inputs changes what the graph gets for these texts; else it is noted as unseen."""
        inputs = hypothesis.applied(self.setup).inputs
        fed = inputs.type_id is not None or inputs.padding != "none" or hypothesis.build
        seen = bool(fed) or not _same(self.replay.tokenize(inputs), self._tokens)
        if not seen:
            self.unseen.append(hypothesis)
        return seen

    # ---- what is known so far

    def _is_found(self) -> bool:
        """Whether at most one change explains all to the rounding of fp32: other runs could not come closer."""
        found = best(self.candidates)
        return bool(found) and found[0].error < FLOAT_NOISE and len(found[0].changes) < 2

    def _is_explained(self) -> bool:
        """Whether what remains is noise; a pair may still explain what is larger, or say the same in fewer changes."""
        found = best(self.candidates)
        return bool(found) and found[0].is_noise and len(found[0].changes) <= 2

    # ---- runs

    def _screen(self, changes: Changes, pooled: Sequence[Hypothesis], most: int = 1) -> None:
        """`_try`, only with the poolings that fit a few short texts."""
        setup = self._applied(changes)
        few = self._few_for(setup)
        states = self._states(changes, few)
        if states is None:
            return
        fitting = False
        for more in self._poolings(changes, pooled, most):
            vectors = self.replay.vectors(states, self._applied((*changes, *more)).pooled)
            if vectors is None:
                continue
            cut = _cut(vectors, self.theirs.shape[1])
            if cut is None:
                continue
            if not more and self._only_rounds(changes, vectors, few):
                self.rounding += changes
            if not more:
                tried = Candidate(changes, row_cosines(cut, self.theirs[few]), norms_fit=False)
                self.rejected.append(tried)
            fitting = fitting or matches(cut, self.everything)
        if fitting:
            self.rejected = [each for each in self.rejected if each.changes != changes]
            self._try(changes, pooled, most)

    def _only_rounds(self, changes: Changes, vectors: FloatArray, few: Sequence[int]) -> bool:
        """Whether a single change of the graph moves our vectors no more than rounding does.

        The longest text decides, too: short ones lie in one window.
        """
        own = self._own
        if own is None or len(changes) > 1 or not changes[0].build or own.shape[1] != vectors.shape[1]:
            return False
        if float(1 - row_cosines(vectors, own[few]).min()) >= FLOAT_NOISE:
            return False
        longest = [int(self._counts.argmax())]
        moved, size = self._cut_vectors(changes, longest), self.theirs.shape[1]
        return moved is not None and float(1 - row_cosines(moved, own[longest, :size]).min()) < FLOAT_NOISE

    def _few_for(self, setup: Setup) -> list[int]:
        """The texts to screen with; padded runs are long, so they get fewer."""
        return self._few if setup.inputs.padding == "none" else self._few[:2]

    def _states(self, changes: Changes, places: Sequence[int] | None) -> list[States] | None:
        """What a run with these changes gives; None, and the reason noted, if there is no such graph."""
        try:
            return self.replay.states(self._applied(changes), places)
        except CannotBuildError as error:
            noted = self.untested.setdefault(str(error), [])
            noted += [each for each in changes if each.build and each not in noted]
            return None

    def _poolings(self, changes: Changes, pooled: Sequence[Hypothesis], most: int) -> Iterator[Changes]:
        others = [each for each in pooled if each.cause != "dimensions" and all(each.fits(one) for one in changes)]
        return combinations(others, most)

    def _try(self, changes: Changes, pooled: Sequence[Hypothesis], most: int) -> None:
        """Run a graph on all texts, and try every pooling with it."""
        states = self._states(changes, None)
        if states is None:
            return
        cuts = _cuts(pooled)
        for more in self._poolings(changes, pooled, most):
            vectors = self.replay.vectors(states, self._applied((*changes, *more)).pooled)
            if vectors is None:
                known = [each for noted in self.untested.values() for each in noted]
                reason = "the layers after the pooling are inside the graph"
                self.untested.setdefault(reason, []).extend(each for each in more if each not in known)
                continue
            all_changes = (*changes, *more)
            if len(all_changes) == 1 and self._is_ours(vectors):
                self.unseen.append(all_changes[0])
                continue
            for cut in ((), *((each,) for each in cuts)):
                dimensions = cut[0].pooled["dimensions"] if cut else None
                made = candidate(
                    (*all_changes, *cut), vectors, self.theirs, self.scale, dimensions, everything=self.everything
                )
                self.candidates += [made] if made else []

    def _is_ours(self, vectors: FloatArray) -> bool:
        ours = self._own
        assert ours is not None
        return vectors.shape == ours.shape and bool(1 - row_cosines(vectors, ours).min() < _UNSEEN)

    # ---- two causes

    def _follow(self, runs: Sequence[Hypothesis], pooled: Sequence[Hypothesis]) -> None:
        """Look for a second cause beside what already makes some texts' vectors."""
        for partial in self._partial():
            kept = tuple(change for change in partial.changes if change.reruns or change.pooled)
            self._lengths_of(kept, partial, pooled)
            if self._is_explained() or len(kept) > 1:
                continue
            for each in runs:
                if all(each.fits(change) for change in kept) and self._helps((*kept, each), partial):
                    self._try(tuple(x for x in (*kept, each) if x.reruns), [*_pooled(kept), *_cuts(pooled)], most=1)

    def _partial(self) -> list[Candidate]:
        """The candidates that fit some rows and not others, the best first, one for each set of rows."""
        partial = [each for each in self.candidates if each.exact.any() and not each.exact.all()]
        partial.sort(key=lambda each: (-int(each.exact.sum()), len(each.changes)))
        return partial[:_PARTIAL]

    def _helps(self, changes: Changes, partial: Candidate) -> bool:
        """Whether one more change makes the shortest text that did not fit."""
        counts = np.where(partial.exact, self._counts.max() + 1, self._counts)
        place = int(counts.argmin())
        vectors = self._cut_vectors(changes, [place])
        return vectors is not None and bool(row_cosines(vectors, self.theirs[place : place + 1])[0] >= ACCEPTED)

    def _pairs(self, runs: Sequence[Hypothesis], pooled: Sequence[Hypothesis]) -> None:
        """Pairs of changes that need runs. Pairs with a pooling have been tried beside each run."""
        padded = [each for each in runs if each.inputs.get("padding", "none") != "none"]
        others = [each for each in runs if each not in padded]
        free = [each for each in others if not set(each.inputs) & {"max_length", "side"}]
        pairs = [pair for pair in pairs_of(free, 2) if pair[0].fits(pair[1])]
        # Those of one graph stand together: a large model's graphs are not all open at once.
        for pair in sorted(pairs, key=lambda pair: self._applied(pair).build.key):
            if not self._is_explained():
                self._screen(pair, _cuts(pooled), most=0)
        longest = int(self._counts.argmax())
        if not self._is_explained():
            length = self._best_length((), longest, self.lengths.start, int(self._counts[longest]))
            others.append(truncated(self.setup, length))
        possible = [] if self._is_explained() else [each for each in others if self._fits_alone(each)]
        for first, second in product(possible, padded):
            if first.fits(second) and not self._is_explained():
                self._screen((first, second), _cuts(pooled), most=0)

    def _fits_alone(self, change: Hypothesis) -> bool:
        """Whether the text that is longest with this change fits with it alone, as it must if padding is the other."""
        tokens = self.replay.tokenize(self._applied((change,)).inputs)
        place = int(np.argmax([len(text.ids) for text in tokens]))
        vectors = self._cut_vectors((change,), [place])
        return vectors is not None and matches(vectors, self.everything)

    def _cut_vectors(self, changes: Changes, places: Sequence[int]) -> FloatArray | None:
        """The vectors [N, D] of some texts with these changes, cut to the length of theirs; None if they have none."""
        states = self._states(tuple(each for each in changes if each.reruns), places)
        vectors = None if states is None else self.replay.vectors(states, self._applied(changes).pooled)
        return None if vectors is None else _cut(vectors, self.theirs.shape[1])

    # ---- number formats

    def round_off(self, hypotheses: Sequence[Hypothesis]) -> tuple[Candidate, Agreement] | None:
        """The change whose vectors move as theirs once numbers are rounded: beside nothing, a pooling, a close change.

        The candidates get the rounded vectors, too: some formats are given back exactly.
        """
        formats = number_formats()
        pooled = [each for each in _pooled(hypotheses) if each.cause != "dimensions"]
        bases: list[Changes] = [(), *((each,) for each in pooled), *self._close()]
        cuts = tuple(_cuts(hypotheses))  # which their length shows
        found = [made for base in bases for each in formats if (made := self._beside(base, each, cuts)) is not None]
        chosen = likeliest(found)
        return chosen if chosen and chosen[1].holds else None

    def _close(self) -> list[Changes]:
        """The closest single changes that need another run of the model's own graph."""
        tried = sorted((*self.candidates, *self.rejected), key=lambda each: each.error)
        fitting: list[Changes] = [each.changes for each in tried if len(each.changes) == 1 and each.changes[0].inputs]
        return [each for each in fitting if not each[0].build][:_PARTIAL]

    def _beside(self, base: Changes, rounding: Hypothesis, cuts: Changes) -> tuple[Candidate, Agreement] | None:
        """A format beside another change, if a few texts and then all of them agree on average.

        A change that moves our vectors no more than rounding does is none: it would round otherwise, nothing else.
        """
        everywhere = [*range(len(self.theirs))]
        few = self._moves(base, rounding, self._few_for(self._applied(base)))
        moves = few and self._moves(base, rounding, everywhere)
        if not moves:
            return None
        exact, moved, agreed = moves
        own = self._cut_vectors((), everywhere)
        if base and own is not None and float(1 - row_cosines(exact, own).min()) < FLOAT_NOISE:
            return None
        made = candidate((*base, rounding, *cuts), moved, self.theirs, self.scale, None, everything=self.everything)
        self.candidates += [made] if made else []
        return (made, agreed) if made else None

    def _moves(
        self, base: Changes, rounding: Hypothesis, places: Sequence[int]
    ) -> tuple[FloatArray, FloatArray, Agreement] | None:
        """Exact and rounded vectors of some texts, and how their moves agree; None if chance may give that."""
        exact, moved = (self._cut_vectors(changes, places) for changes in (base, (*base, rounding)))
        if exact is None or moved is None:
            return None
        agreed = agreement(exact, moved, self.theirs[places])
        return (exact, moved, agreed) if agreed.likely else None

    # ---- lengths

    def _lengths_of(self, kept: Changes, partial: Candidate, pooled: Sequence[Hypothesis]) -> None:
        """Where short texts fit and longer ones do not, find the limit that makes the shortest of the latter fit."""
        if any("max_length" in change.inputs for change in kept):
            return
        whole = truncated(self.setup, self.lengths.stop - 1).applied(self._applied(kept))
        counts = np.array([len(text.ids) for text in self.replay.tokenize(whole.inputs)])
        exact = partial.exact
        if counts[exact].max() >= counts[~exact].min():
            return
        place = int(np.where(exact, counts.max() + 1, counts).argmin())
        for sides in ((), *((each,) for each in self._other_sides(kept))):
            changes = (*kept, *sides)
            length = self._best_length(changes, place, int(counts[exact].max()), int(counts[place]))
            reruns = (*(each for each in changes if each.reruns), truncated(self.setup, length))
            if length != self.setup.inputs.max_length and not self._is_explained():
                self._try(reruns, [*_pooled(kept), *_cuts(pooled)], most=1)

    def _other_sides(self, kept: Changes) -> list[Hypothesis]:
        return [] if len(kept) > 1 or any("side" in each.inputs for each in kept) else [other_side(self.setup)]

    def _best_length(self, changes: Changes, place: int, low: int, high: int) -> int:
        """The limit from `low` to below `high` tokens at which one text comes closest to theirs."""
        errors: dict[int, float] = {}

        def measure(lengths: Iterable[int]) -> bool:
            """Measure some limits; whether one of them explains the text."""
            for length in lengths:
                if length in errors or not low <= length < high or length not in self.lengths:
                    continue
                vectors = self._cut_vectors((*changes, truncated(self.setup, length)), [place])
                theirs = self.theirs[place : place + 1]
                errors[length] = 2.0 if vectors is None else float(1 - row_cosines(vectors, theirs).min())
            return bool(errors) and min(errors.values()) < FLOAT_NOISE

        step = max(1, (high - low) // _STEPS)
        found = measure(LENGTHS) or measure(range(low, high, step))
        while not found and step > 1 and errors:
            step = (step + 1) // 2
            nearest = sorted(errors, key=lambda length: errors[length])[:2]
            found = measure(length + move for length in nearest for move in (-step, step))
        return min(errors, key=lambda length: errors[length], default=self.setup.inputs.max_length)


def likeliest(found: Sequence[tuple[Candidate, Agreement]]) -> tuple[Candidate, Agreement] | None:
    """The one that agrees most; of those that agree alike, the one with the fewest changes."""
    most = max((agreed.mean for _, agreed in found), default=0.0)
    alike = [each for each in found if each[1].mean > most - _ALIKE]
    return max(alike, key=lambda each: (-len(each[0].changes), each[1].mean), default=None)


def _pooled(changes: Sequence[Hypothesis]) -> list[Hypothesis]:
    return [each for each in changes if not each.reruns]


def _cuts(pooled: Sequence[Hypothesis]) -> list[Hypothesis]:
    return [each for each in pooled if each.cause == "dimensions"]


def _cut(vectors: FloatArray, size: int) -> FloatArray | None:
    """Vectors cut to a length; None if they are shorter, or not finite."""
    return vectors[:, :size] if vectors.shape[1] >= size and np.isfinite(vectors).all() else None


def _same(a: Sequence[TokenIds], b: Sequence[TokenIds]) -> bool:
    return all(one.key == other.key for one, other in zip(a, b, strict=True))
