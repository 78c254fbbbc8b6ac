"""The ways of running that must all give the same: alone, together, and in batches padded on either side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from onnxembed.arrays import IntArray
from onnxembed.manifest import Manifest
from onnxembed.tokenizer.pairs import Pair
from onnxembed.tokenizer.texts import Tokens, pad
from onnxembed.verify.references.embedding import BATCH

Item = TypeVar("Item", str, Pair)


@dataclass(frozen=True)
class Run:
    """Items to run at once, by their places: as they are, or as a batch of their ids."""

    way: str
    places: Sequence[int]
    feeds: dict[str, IntArray] | None = None

    def of(self, items: Sequence[Item]) -> list[Item]:
        """The run's own of all items."""
        return [items[place] for place in self.places]


def every_way(tokens: Sequence[Tokens], manifest: Manifest, sides: Sequence[str] = ("right", "left")) -> Iterator[Run]:
    """Each item alone, all together, and all in batches padded on each side."""
    places = range(len(tokens))
    yield from (Run("alone", [place]) for place in places)
    yield Run("together", places)
    yield from _padded(tokens, manifest, places, sides)


def among_others(tokens: Sequence[Tokens], manifest: Manifest, sides: Sequence[str] = ("right",)) -> Iterator[Run]:
    """Few slots that show every item among others: those of the commonest length, without padding; and all, padded.

    Neighbours in length share a batch, so that all of it but its longest rows is padded, and by little.
    """
    lengths = [len(each) for each in tokens]
    common = max(lengths, key=lambda length: (lengths.count(length), -length))
    alike = [place for place, length in enumerate(lengths) if length == common]
    if len(alike) > 1:
        yield Run("together", alike, padded([tokens[place] for place in alike], manifest, "right"))
    yield from _padded(tokens, manifest, sorted(range(len(tokens)), key=lengths.__getitem__), sides)


def _padded(tokens: Sequence[Tokens], manifest: Manifest, order: Sequence[int], sides: Sequence[str]) -> Iterator[Run]:
    for side in sides:
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            yield Run(f"padded {side}", places, padded([tokens[place] for place in places], manifest, side))


def padded(tokens: Sequence[Tokens], manifest: Manifest, side: str) -> dict[str, IntArray]:
    """A batch, int64 [B, T] each, with every row padded to the longest on one side."""
    feeds = pad(tokens, manifest.tokenization.pad_token_id.value)
    if side == "left":
        slots = feeds["input_ids"].shape[1]
        for array in feeds.values():
            for row, each in zip(array, tokens, strict=True):
                row[:] = np.roll(row, slots - len(each))
    if "token_type_ids" not in manifest.model.inputs:
        del feeds["token_type_ids"]  # the reference would not know it either
    return feeds


def distinct(items: Sequence[Item], tokens: Sequence[Tokens]) -> tuple[list[Item], list[Tokens]]:
    """One item, and its tokens, of all that are the same to the model."""
    found = {(each.ids.tobytes(), each.type_ids.tobytes()): place for place, each in enumerate(tokens)}
    return [items[place] for place in found.values()], [tokens[place] for place in found.values()]
