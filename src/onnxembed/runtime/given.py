"""What callers give: one text or many, one pair or many, in whatever holds them in an order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from onnxembed.arguments import check_text
from onnxembed.errors import UsageError
from onnxembed.tokenizer.pairs import Pair

Item = TypeVar("Item")


class Given(NamedTuple, Generic[Item]):
    """Texts or pairs, to be read once; each is checked when it is read."""

    items: Iterator[Item]
    single: bool
    """Whether it was one text or pair by itself, not a collection of them."""
    total: int | None
    """How many there are; None if only reading them can tell."""


def given_texts(texts: object, name: str = "texts") -> Given[str]:
    """One text, or the texts of a list, a generator, a column of a data frame or an Arrow array.

    Raises UsageError: at once for an object that holds no texts, or none in a known order; later for an element that
    is not a text.
    """
    texts = plain(texts)
    if isinstance(texts, str):
        return Given(iter((check_text(texts, name),)), single=True, total=1)
    values = iterate(texts, name, "a str or an iterable of str")
    items = (check_text(plain(text), f"{name}[{position}]") for position, text in enumerate(values))
    return Given(items, single=False, total=length(texts))


def given_pairs(pairs: object, name: str = "pairs") -> Given[Pair]:
    """One pair of texts, or the pairs of a list, a generator or an array [N, 2]. Raises UsageError as `given_texts`."""
    if isinstance(pairs, tuple | list) and len(pairs) == 2 and all(isinstance(text, str) for text in pairs):
        return Given(iter((_pair(pairs, name),)), single=True, total=1)
    values = iterate(pairs, name, "a list or another iterable of pairs", dimensions=2)
    items = (_pair(pair, f"{name}[{position}]") for position, pair in enumerate(values))
    return Given(items, single=False, total=length(pairs))


def iterate(values: object, name: str, expected: str, *, dimensions: int = 1) -> Iterator[object]:
    """The values one by one; UsageError for an object whose iteration does not give what the caller means."""
    cure = _cure(values, name, dimensions)
    if not cure:
        with suppress(TypeError):
            return iter(values)  # type: ignore[call-overload, no-any-return]
    raise UsageError(f"{name} is {type(values).__name__}, not {expected}{cure}")


def plain(value: object) -> object:
    """The Python object inside a scalar of Arrow or an array without axes; every other object as it is."""
    if isinstance(value, str):
        return value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return value.item()
    convert = getattr(value, "as_py", None)
    return convert() if callable(convert) else value


def _cure(values: object, name: str, dimensions: int) -> str:
    """What to give instead of an object that iterates over something else, or in no order; "" for any other object."""
    if isinstance(values, str):  # its letters
        return f"; a list of one is [{name}]"
    if isinstance(values, bytes | bytearray | memoryview):
        return f": decode it first, {name}.decode()"
    if isinstance(values, Mapping):
        return f": give its values, {name}.values(), or its keys, {name}.keys()"
    if isinstance(values, set | frozenset):
        return f", and a set has no order: give sorted({name})"
    columns = getattr(values, "column_names", None) or getattr(values, "columns", None)
    if columns is not None and not callable(columns):
        names = [str(column) for column in columns]
        chosen = "; ".join(f"{name}[{column!r}]" for column in names[:3])
        return f": give one of its columns, {chosen or 'and it has none'}"
    shape = getattr(values, "shape", ())
    if len(shape) > dimensions:
        return f" of shape {tuple(shape)}: give one axis, such as {name}[:, 0]"
    return ""


def _pair(pair: object, where: str) -> Pair:
    pair = plain(pair)
    texts = list(pair) if isinstance(pair, tuple | list | np.ndarray) else None
    if texts is None or len(texts) != 2:
        given = type(pair).__name__ if texts is None else f"{type(pair).__name__} of {len(texts)}"
        raise UsageError(f"{where} is {given}, not a pair of a query and a document")
    query, document = texts
    return check_text(plain(query), f"{where}[0]"), check_text(plain(document), f"{where}[1]")


def length(values: object) -> int | None:
    """How many values there are; None if only reading them can tell."""
    with suppress(TypeError):
        return len(values)  # type: ignore[arg-type]
    return None
