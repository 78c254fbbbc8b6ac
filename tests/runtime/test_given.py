"""What callers give as texts and pairs: containers of every kind, and what is refused with its cure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from onnxembed.errors import UsageError
from onnxembed.runtime.given import given_pairs, given_texts


class Scalar:
    """A scalar of Arrow: it holds a Python object, and is none."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def as_py(self) -> Any:
        return self._value


class Frame:
    """A data frame: iterating over it gives the names of its columns."""

    columns = ("id", "text")
    shape = (3, 2)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


class ArrowTable:
    """A table of Arrow: its `columns` are the arrays, and their names stand beside them."""

    columns = (("1",), ("the",))
    column_names = ("id", "text")

    def __iter__(self) -> Iterator[Any]:
        return iter(self.columns)


def texts(given: Any) -> list[str]:
    return list(given_texts(given).items)


@pytest.mark.parametrize("one", ["the", np.str_("the"), np.array("the"), Scalar("the")])
def test_one_text_by_itself(one: Any) -> None:
    given = given_texts(one)
    assert (given.single, given.total, list(given.items)) == (True, 1, ["the"])


@pytest.mark.parametrize(
    "many",
    [
        ["the", "a"],
        ("the", "a"),
        {"the": 1, "a": 2}.keys(),
        np.array(["the", "a"]),
        np.array(["the", "a"], object),
        [Scalar("the"), Scalar("a")],
    ],
)
def test_many_texts_in_their_order(many: Any) -> None:
    given = given_texts(many)
    assert (given.single, given.total, list(given.items)) == (False, 2, ["the", "a"])


def test_a_generator_does_not_say_how_many() -> None:
    given = given_texts(text for text in ("the",))
    assert (given.single, given.total) == (False, None)


@pytest.mark.parametrize(
    ("wrong", "cure"),
    [
        (Frame(), r"^texts is Frame, .*: give one of its columns, texts\['id'\]; texts\['text'\]$"),
        (ArrowTable(), r"^texts is ArrowTable, .*: give one of its columns, texts\['id'\]; texts\['text'\]$"),
        ({"b", "a"}, r"^texts is set, .*, and a set has no order: give sorted\(texts\)$"),
        (frozenset("a"), "and a set has no order"),
        ({"a": "the"}, r"^texts is dict, .*: give its values, texts.values\(\), or its keys, texts.keys\(\)$"),
        (b"the", r"^texts is bytes, .*: decode it first, texts.decode\(\)$"),
        (memoryview(b"the"), "decode it first"),
        (np.array([["the", "a"]]), r"^texts is ndarray, .* of shape \(1, 2\): give one axis, such as texts\[:, 0\]$"),
        (3, "^texts is int, not a str or an iterable of str$"),
        (np.array(3), "^texts is int, not a str or an iterable of str$"),
        (Scalar(None), "^texts is NoneType, not a str or an iterable of str$"),
    ],
)
def test_what_holds_no_texts_in_a_known_order_is_refused_at_once(wrong: Any, cure: str) -> None:
    with pytest.raises(UsageError, match=cure):
        given_texts(wrong)


@pytest.mark.parametrize("missing", [None, float("nan"), Scalar(None)])
def test_a_missing_text_is_named_with_its_cure(missing: Any) -> None:
    with pytest.raises(UsageError, match=r"^texts\[1\] is \w+, not str: fill the gaps first, as .fillna\(''\) does$"):
        texts(["the", missing])


def test_columns_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"id": ["1", "2"], "text": ["the", "a"]}, index=[7, 3])
    for column in (frame["text"], frame.text.astype("category"), frame.text.array, frame.text.to_numpy()):
        assert texts(column) == ["the", "a"]
    assert texts(frame.text.astype("string")) == ["the", "a"]
    assert texts(pandas.Index(["the", "a"])) == ["the", "a"]
    for wrong in (frame, frame[["text"]]):
        with pytest.raises(UsageError, match=r"texts\['text'\]"):
            texts(wrong)
    with pytest.raises(UsageError, match="fill the gaps first"):
        texts(pandas.Series(["the", pandas.NA], dtype="string"))


def test_columns_of_polars() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"id": ["1", "2"], "text": ["the", "a"]})
    assert texts(frame["text"]) == ["the", "a"]
    assert given_texts(frame["text"][0]).single
    with pytest.raises(UsageError, match=r"texts\['text'\]"):
        texts(frame)


def test_arrays_of_arrow() -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"id": ["1", "2"], "text": ["the", "a"]})
    for column in (table["text"], table["text"].combine_chunks(), table["text"].dictionary_encode()):
        assert texts(column) == ["the", "a"]
    assert given_texts(table["text"][0]).single
    for wrong in (table, table.to_batches()[0]):
        with pytest.raises(UsageError, match=r"texts\['text'\]"):
            texts(wrong)


@pytest.mark.parametrize("one", [("q", "d"), ["q", "d"]])
def test_one_pair_by_itself(one: Any) -> None:
    given = given_pairs(one)
    assert (given.single, given.total, list(given.items)) == (True, 1, [("q", "d")])


@pytest.mark.parametrize(
    "many", [[("q", "d"), ["q", "e"]], np.array([["q", "d"], ["q", "e"]]), [Scalar(["q", "d"]), ("q", Scalar("e"))]]
)
def test_many_pairs(many: Any) -> None:
    given = given_pairs(many)
    assert (given.single, given.total, list(given.items)) == (False, 2, [("q", "d"), ("q", "e")])


def test_a_frame_is_no_pairs() -> None:
    with pytest.raises(UsageError, match=r"^pairs is Frame, not a list or another iterable of pairs: give one of its"):
        given_pairs(Frame())
