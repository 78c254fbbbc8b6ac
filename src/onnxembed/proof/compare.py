"""Runs an open model on a proof: token ids first, then results in several ways of running."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxembed.arrays import FloatArray
from onnxembed.errors import VerificationError
from onnxembed.manifest import Manifest
from onnxembed.proof.differences import Differences, quote
from onnxembed.proof.limits import limits_for
from onnxembed.proof.record import Part, Proof
from onnxembed.runtime.open_model import OpenModel
from onnxembed.runtime.outputs.dense import dense_readout
from onnxembed.runtime.outputs.multi_vector import MultiVectorReadout
from onnxembed.runtime.outputs.readout import Readout
from onnxembed.runtime.outputs.scores import ScoresReadout
from onnxembed.runtime.outputs.sparse import SparseEmbedding, SparseReadout
from onnxembed.runtime.streaming import Computation
from onnxembed.tokenizer.texts import Tokens

PADDED = 8
"""How many items a padded batch holds."""

WAYS = ("alone", "as scheduled", "in pairs", "padded")
"""The ways of running. As scheduled: as the backend plans them; in pairs: each item beside itself, without padding."""

WORDS = {
    "embedding": "vectors",
    "sparse": "sparse embeddings",
    "multi_vector": "vectors of tokens",
    "reranking": "logits",
}
"""What a task's results are called in messages."""


@dataclass(frozen=True)
class Figure:
    """How far a graph's results are from the proof's, for one part and one way of running."""

    part: str
    """The task, and the kind of the texts if the model treats kinds differently."""
    way: str
    items: int
    max_abs_diff: float
    min_cosine: float | None
    """None for logits, which have no direction."""
    required: Mapping[str, float]
    """The limits that apply; none if differences are only measured."""
    fault: str
    """Which limit is broken, in words; "" if none is."""


def compare(
    opened: OpenModel,
    proof: Proof,
    ways: Sequence[str] = ("as scheduled",),
    *,
    as_precision: str | None = None,
    tokens: bool = True,
) -> Iterator[Figure]:
    """How far an open model is from its proof, one part and one way after another.

    `as_precision` names the precision whose limits hold, if it is not the graph's; `tokens` says whether the model's
    tokenizer is compared, too. Items beyond the `max_length` that the model was opened with are left out, and so is a
    part that has no others: see `left_out`.

    Raises VerificationError for token ids that differ, for results of another shape, and for numbers that are not
    finite.
    """
    with opened.backend.one_session():
        for whole in proof.parts:
            part = fitting(whole, opened.max_length)
            if not part.items:
                continue
            if tokens:
                check_tokens(opened, part)
            measured = proof.measured.get(opened.variant, {}).get(part.name)
            limits = limits_for(opened.manifest, opened.variant, part.task, measured, as_precision)
            for way in ways:
                differences = Differences(opened.precision, WORDS[part.task], limits)
                differences.add(way, *_compared(opened, part, way))
                applied = differences.limits
                yield Figure(
                    part.name,
                    way,
                    len(part.items),
                    differences.max_abs_diff,
                    None if part.task == "reranking" else differences.min_cosine,
                    applied.recorded() if applied else {},
                    differences.fault,
                )


def _compared(opened: OpenModel, part: Part, way: str) -> tuple[list[Any], list[FloatArray], list[FloatArray]]:
    """The items, with what the model gives for them and what it should give, as often as the way runs them."""
    copies = 2 if way == "in pairs" else 1
    places = [place for place in range(len(part.items)) for _ in range(copies)]
    results = RUNNERS[way](computation(opened, part), [part.tokens[place] for place in places])
    ours = [
        _kept(rows_of(opened.manifest, part, each), part, place) for place, each in zip(places, results, strict=True)
    ]
    return [part.items[place] for place in places], ours, [part.outputs[place] for place in places]


def left_out(proof: Proof, max_length: int) -> str:
    """The names of the parts whose items are all longer than the limit, for a message; empty if there are none.

    No limit leaves out a part of vectors of texts without a prompt, for one of the texts is empty.
    """
    return ", ".join(part.name for part in proof.parts if not fitting(part, max_length).items)


def fitting(part: Part, max_length: int) -> Part:
    """The items that are not longer than the limit."""
    fits = [place for place, tokens in enumerate(part.tokens) if len(tokens) <= max_length]
    if len(fits) == len(part.items):
        return part

    def chosen(values: Sequence[Any]) -> list[Any]:
        return [values[place] for place in fits]

    return Part(part.task, part.kind, *map(chosen, (part.items, part.tokens, part.outputs, part.places, part.rows)))


def check_tokens(opened: OpenModel, part: Part) -> None:
    """Raise VerificationError unless the model's tokenizer gives the recorded ids and segments."""
    for item, theirs, ours in zip(part.items, part.tokens, tokenize(opened, part), strict=True):
        for what, have, recorded in (
            ("token ids", ours.ids, theirs.ids),
            ("segments", ours.type_ids, theirs.type_ids),
        ):
            if not np.array_equal(have, recorded):
                raise VerificationError(
                    f"{what} are not those of the proof: {quote(item)} has {have[:8].tolist()}... "
                    f"({len(have)} tokens), not {recorded[:8].tolist()}... ({len(recorded)})"
                )


def tokenize(opened: OpenModel, part: Part) -> list[Tokens]:
    """The tokens of a part's items, cut as those of its kind are."""
    section = opened.manifest.multi_vector
    limit = None
    if part.task == "multi_vector" and section is not None:
        limit = (section.query_length if part.kind == "query" else section.document_length).value
    return opened.tokenizer_for(limit).tokenize(list(part.items))  # type: ignore[arg-type]  # or pairs


def computation(opened: OpenModel, part: Part) -> Computation[Any]:
    """What computes a part's task, as the public classes do."""
    return opened.computation(_readout(opened, part))


def _readout(opened: OpenModel, part: Part) -> Readout[Any]:
    manifest = opened.manifest
    if part.task == "embedding":
        return dense_readout(opened.folder, manifest.require_embedding())
    if part.task == "sparse":
        return SparseReadout(manifest.require_sparse())
    if part.task == "multi_vector":
        return MultiVectorReadout(manifest.require_multi_vector(), part.kind or "document")
    return ScoresReadout(manifest.require_reranking(), raw=True)


def rows_of(manifest: Manifest, part: Part, result: Any) -> FloatArray:
    """One item's result as rows: [1, D], [T, D], [1, V] or [labels, 1]."""
    if isinstance(result, SparseEmbedding):
        row = np.zeros((1, manifest.require_sparse().dimension), np.float32)
        row[0, result.indices] = result.values
        return row
    array: FloatArray = np.asarray(result, np.float32)
    if part.task == "reranking":
        return array.reshape(-1, 1)
    return array if part.task == "multi_vector" else array[None]


def _kept(rows: FloatArray, part: Part, place: int) -> FloatArray:
    """The rows that the proof has; all of them, for the message, if there are not as many as there should be."""
    return rows[part.places[place]] if len(rows) == part.rows[place] else rows


def alone(computing: Computation[Any], tokens: Sequence[Tokens]) -> list[Any]:
    """Each item in a run of its own, on this thread."""
    return [_items(computing.results([each]))[0] for each in tokens]


def scheduled(computing: Computation[Any], tokens: Sequence[Tokens]) -> list[Any]:
    """All items in the runs that the backend plans, on its threads."""
    runs = computing.backend.plan([len(each) for each in tokens])
    futures = computing.backend.start(computing.results, [[tokens[place] for place in run] for run in runs])
    results: list[Any] = [None] * len(tokens)
    for run, future in zip(runs, futures, strict=True):
        for place, result in zip(run, _items(future.result()), strict=True):
            results[place] = result
    return results


def padded(computing: Computation[Any], tokens: Sequence[Tokens]) -> list[Any]:
    """The items in batches as they come, padded to the longest."""
    batches = [list(tokens[start : start + PADDED]) for start in range(0, len(tokens), PADDED)]
    return [result for batch in batches for result in _items(computing.results(batch))]


RUNNERS: Mapping[str, Callable[[Computation[Any], Sequence[Tokens]], list[Any]]] = {
    "alone": alone,
    "as scheduled": scheduled,
    "in pairs": scheduled,
    "padded": padded,
}
"""What runs items in each of the ways."""


def _items(results: list[Any]) -> list[Any]:
    """The results of runs, item by item."""
    return [item for result in results for item in result]
