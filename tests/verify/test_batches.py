"""Batches in which vectors must agree: how they are padded, and that few slots batch every text with others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxembed.manifest import Manifest, read_manifest
from onnxembed.tokenizer.texts import Tokens
from onnxembed.verify.batches import Batch, all_ways, among_others, distinct, pad_on_side


@pytest.fixture
def manifest(artifact: Path) -> Manifest:
    manifest = read_manifest(artifact)
    tokenization = replace(manifest.tokenization, pad_token_id=replace(manifest.tokenization.pad_token_id, value=9))
    return replace(manifest, tokenization=tokenization)


def tokens(ids: Sequence[int], type_ids: Sequence[int] | None = None) -> Tokens:
    return Tokens(np.array(ids, np.int64), np.array(type_ids or [0] * len(ids), np.int64), truncated=False)


def test_batches_are_padded_on_either_side(manifest: Manifest) -> None:
    batch = [tokens([1, 2, 3], [0, 1, 1]), tokens([4]), tokens([])]
    right, left = (pad_on_side(batch, manifest, side) for side in ("right", "left"))
    assert right["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9], [9, 9, 9]]
    assert right["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert right["token_type_ids"].tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert left["input_ids"].tolist() == [[1, 2, 3], [9, 9, 4], [9, 9, 9]]
    assert left["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1], [0, 0, 0]]
    assert left["token_type_ids"].tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 0]]


def test_an_empty_text_is_one_slot_of_padding(manifest: Manifest) -> None:
    assert pad_on_side([tokens([])], manifest, "left")["input_ids"].tolist() == [[9]]


def test_segments_are_left_out_where_the_graph_takes_none(manifest: Manifest) -> None:
    without = replace(manifest, model=replace(manifest.model, inputs=("input_ids", "attention_mask")))
    assert pad_on_side([tokens([1])], without, "right").keys() == {"input_ids", "attention_mask"}


def test_all_ways_runs_every_text(manifest: Manifest) -> None:
    items = [tokens(range(1 + number % 5)) for number in range(20)]
    runs = list(all_ways(items, manifest))
    ways = ("alone", "together", "padded right", "padded left")
    assert tuple(dict.fromkeys(run.way for run in runs)) == ways
    for way in ways:
        assert [place for run in runs if run.way == way for place in run.places] == [*range(20)]
    assert [run.way for run in all_ways(items, manifest, ("right",))][-1] == "padded right"


def test_few_slots_show_every_text_among_others(manifest: Manifest) -> None:
    lengths = [9, 2, 2, 7, 3, 3, 3, 12, 5, 1]
    items = [tokens([*range(length)]) for length in lengths]
    alike, *batches = among_others(items, manifest)
    assert (alike.way, [*alike.places]) == ("together", [4, 5, 6])
    assert mask(alike).all()
    assert {run.way for run in batches} == {"padded right"}
    assert sorted(place for run in batches for place in run.places) == [*range(10)]
    assert [lengths[place] for run in batches for place in run.places] == sorted(lengths)
    for run in batches:
        assert mask(run).sum(axis=1).tolist() == [lengths[place] for place in run.places]
        assert not mask(run).all()


def test_texts_of_different_lengths_are_always_padded(manifest: Manifest) -> None:
    assert {run.way for run in among_others([tokens([1]), tokens([1, 2])], manifest)} == {"padded right"}


def test_texts_that_the_model_cannot_tell_apart_are_run_once() -> None:
    items = [tokens([1]), tokens([2]), tokens([1]), tokens([1, 1]), tokens([1], [1])]
    texts, distinct_tokens = distinct(["A", "b", "a", "a a", "c"], items)
    assert texts == ["a", "b", "a a", "c"]
    assert [item.ids.tolist() for item in distinct_tokens] == [[1], [2], [1, 1], [1]]


def mask(run: Batch) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    assert run.feeds is not None
    return run.feeds["attention_mask"]
