"""The answer: a verdict, the evidence for it, what to change, and what was ruled out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnxembed.explain.fixes import FIXES
from onnxembed.explain.setup import Hypothesis

# The hypotheses and rows that are shown in words; JSON has all of them.
_SHOWN = 8


@dataclass(frozen=True)
class Cause:
    """One thing that the other system does otherwise: in words, and what to change in each system."""

    name: str
    theirs: str
    ours: str
    fixes: dict[str, str]


@dataclass(frozen=True)
class Row:
    """One text: its number of tokens, and the cosine of the two vectors before and after the explanation.

    Of scores, the differences stand in place of the cosines, relative to scores above 1.
    """

    index: int
    tokens: int
    before: float | None
    """None for vectors of another dimension, which have no cosine with ours."""
    after: float
    text: str = ""
    """The text, or the pair."""
    norms: tuple[float, float] | None = None
    """The length of our vector and of theirs."""
    pieces: tuple[str, ...] = ()
    """Its first tokens, as we make them."""


@dataclass(frozen=True)
class Tried:
    """A hypothesis that was tried, and the smallest cosine that it reached (of scores, the largest difference)."""

    changes: str
    reached: float
    causes: tuple[str, ...] = ()
    """The names of the causes."""


@dataclass(frozen=True)
class Report:
    """Why two systems' vectors or scores differ."""

    verdict: str
    explained: bool
    """Whether the verdict accounts for every row. Otherwise it only names the best partial match."""
    band: bool
    """Whether the causes are not proved by giving every vector back, but by the direction in which rounding moves them.

    `explained` is False then.
    """
    same: bool
    """Whether there is no difference beyond rounding."""
    causes: tuple[Cause, ...]
    measure: str
    """What `before`, `after` and `reached` are: "cosine" or "difference"."""
    rows: tuple[Row, ...]
    alternatives: tuple[Tried, ...]
    """Explanations that these texts cannot tell from the verdict."""
    runner_up: Tried | None
    ruled_out: tuple[Tried, ...]
    """Single changes that do not explain the difference, the closest first."""
    unseen: tuple[str, ...]
    """Single changes that make no difference to these texts, so that nothing can be said about them."""
    untested: tuple[str, ...]
    """Single changes that cannot be tried with this graph."""
    notes: tuple[str, ...]

    @property
    def things(self) -> str:
        """What was compared: "vectors" or "scores"."""
        return "vectors" if self.measure == "cosine" else "scores"

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    def lines(self) -> Iterator[str]:
        """The report in words, line by line."""
        yield self.verdict
        yield from (f"note: {note}" for note in self.notes)
        yield from self._evidence()
        for other in self.alternatives:
            yield f"these texts cannot tell it from: {other.changes}"
        for cause in self.causes:
            yield ""
            yield f"to change ({cause.name}):"
            yield from (f"  {system:<25} {fix}" for system, fix in cause.fixes.items())
        if self.runner_up:
            yield ""
            yield f"runner-up: {self.runner_up.changes} ({self.measure} {self.runner_up.reached:.6f})"
        if self.ruled_out and not self.same:
            yield f"ruled out ({self.measure} reached):"
            yield from (f"  {tried.reached:>10.6f}  {tried.changes}" for tried in self.ruled_out[:_SHOWN])
        for words, changes in (("not visible in these texts", self.unseen), ("not tried", self.untested)):
            if changes and not self.same:
                yield f"{words}: {'; '.join(changes)}"

    def _evidence(self) -> Iterator[str]:
        yield ""
        yield f"{'text':>6} {'tokens':>7} {'before':>10} {'after':>10}   ({self.measure})"
        worst = sorted(self.rows, key=lambda row: row.before or 0.0, reverse=self.measure != "cosine")
        for row in worst[:_SHOWN]:
            yield f"{row.index:>6} {row.tokens:>7} {in_digits(row.before):>10} {row.after:>10.6f}"
        if len(worst) > _SHOWN:
            yield f"  and {len(worst) - _SHOWN} more, which differ less"


def in_digits(value: float | None) -> str:
    """A cosine or a difference with six digits; a dash where there is none."""
    return "-" if value is None else f"{value:.6f}"


def causes_of(changes: Sequence[Hypothesis], system: str | None = None) -> tuple[Cause, ...]:
    """The causes that changes stand for, with their fixes: those of one system if it is known and has some."""
    return tuple(Cause(change.cause, change.theirs, change.ours, _fixes(change, system)) for change in changes)


def _fixes(change: Hypothesis, system: str | None) -> dict[str, str]:
    known = FIXES[change.cause]
    chosen = {name: fix for name, fix in known.items() if name in (system, "all systems")} or known
    return {name: fix.format_map(change.words) for name, fix in chosen.items()}


def untested_lines(untested: Mapping[str, Sequence[Hypothesis]]) -> Iterator[str]:
    """One line for each reason, with the changes that could not be tried for it."""
    for reason, changes in untested.items():
        if changes:
            yield f"{reason}: {'; '.join(dict.fromkeys(change.theirs for change in changes))}"


def sentence(changes: Sequence[Hypothesis], things: str) -> str:
    """The verdict about changes, a sentence for each: "Their vectors use A; ours use B."."""
    return " ".join(f"Their {things} {change.theirs}; ours {change.ours}." for change in changes)
