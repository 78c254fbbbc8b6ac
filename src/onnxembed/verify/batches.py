"""The batches in which a text must get the same vector: alone, with all others, and padded on either side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from onnxembed.arrays import IntArray
from onnxembed.manifest import Manifest
from onnxembed.progress import Progress
from onnxembed.tokenizer.pairs import Pair
from onnxembed.tokenizer.texts import Tokens, pad

Item = TypeVar("Item", str, Pair)

BATCH_SIZE = 8
"""How many items a padded batch holds."""


@dataclass(frozen=True)
class Batch:
    """Items to run at once."""

    way: str
    """What is special about this batch, for messages: "alone", "together", "padded right" or "padded left"."""
    places: Sequence[int]
    """Where the items stand among all of them."""
    feeds: dict[str, IntArray] | None = None
    """Their token ids as the graph takes them; None to run the items themselves."""

    def of(self, items: Sequence[Item]) -> list[Item]:
        """The batch's own among all items."""
        return [items[place] for place in self.places]


def all_ways(tokens: Sequence[Tokens], manifest: Manifest, sides: Sequence[str] = ("right", "left")) -> Iterator[Batch]:
    """Each item alone, all of them together, and all of them in batches padded on each side."""
    places = range(len(tokens))
    yield from (Batch("alone", [place]) for place in places)
    yield Batch("together", places)
    yield from _padded_batches(tokens, manifest, places, sides)


def among_others(tokens: Sequence[Tokens], manifest: Manifest, sides: Sequence[str] = ("right",)) -> Iterator[Batch]:
    """A few batches that show every item among others.

    Items of the most common length share a batch without padding. All items then run in padded batches, sorted by
    length: every row but the longest is padded, and only by a little.
    """
    lengths = [len(item_tokens) for item_tokens in tokens]
    common = max(lengths, key=lambda length: (lengths.count(length), -length))
    alike = [place for place, length in enumerate(lengths) if length == common]
    if len(alike) > 1:
        yield Batch("together", alike, pad_on_side([tokens[place] for place in alike], manifest, "right"))
    yield from _padded_batches(tokens, manifest, sorted(range(len(tokens)), key=lengths.__getitem__), sides)


def _padded_batches(
    tokens: Sequence[Tokens], manifest: Manifest, order: Sequence[int], sides: Sequence[str]
) -> Iterator[Batch]:
    for side in sides:
        for start in range(0, len(order), BATCH_SIZE):
            places = order[start : start + BATCH_SIZE]
            feeds = pad_on_side([tokens[place] for place in places], manifest, side)
            yield Batch(f"padded {side}", places, feeds)


def pad_on_side(tokens: Sequence[Tokens], manifest: Manifest, side: str) -> dict[str, IntArray]:
    """The feeds of a batch, int64 [B, T] each; every row is padded to the longest on `side`, "right" or "left"."""
    feeds = pad(tokens, manifest.tokenization.pad_token_id.value)
    if side == "left":
        slots = feeds["input_ids"].shape[1]
        for array in feeds.values():
            for row, item_tokens in zip(array, tokens, strict=True):
                row[:] = np.roll(row, slots - len(item_tokens))
    if "token_type_ids" not in manifest.model.inputs:
        del feeds["token_type_ids"]  # the reference would not accept it either
    return feeds


def with_tokens(items: Sequence[Item], tokens: Sequence[Tokens]) -> tuple[list[Item], list[Tokens]]:
    """The items that have tokens, and their tokens: a reference cannot run the others alone."""
    kept = [(item, item_tokens) for item, item_tokens in zip(items, tokens, strict=True) if len(item_tokens)]
    return [item for item, _ in kept], [item_tokens for _, item_tokens in kept]


def distinct(items: Sequence[Item], tokens: Sequence[Tokens]) -> tuple[list[Item], list[Tokens]]:
    """The items, and their tokens, without those that the model cannot tell from another."""
    places = {
        (item_tokens.ids.tobytes(), item_tokens.type_ids.tobytes()): place for place, item_tokens in enumerate(tokens)
    }
    return [items[place] for place in places.values()], [tokens[place] for place in places.values()]


def report_batches(batches: Sequence[Batch], progress: Progress, stage: str) -> Iterator[Batch]:
    """The batches; `progress` is told of each as it begins."""
    for done, batch in enumerate(batches):
        progress(stage, done, len(batches))
        yield batch
