"""Checks of arguments that several methods take."""

from __future__ import annotations

import numpy as np

from onnxembed.errors import UsageError

# What columns of data frames hold where a text is missing, by the names of the types of None, NaN, pandas.NA and NaT.
_MISSING = ("NoneType", "float", "NAType", "NaTType")

MOST_CHARACTERS = 10_000_000
"""The most characters of a text. A tokenizer reads all of a text before it is cut: a text of 100 million characters,
one word after another, took 17 GB, and the process was killed."""


def check_text(text: object, where: str) -> str:
    """The text itself; UsageError, which names `where` the text stands, if no tokenizer takes it."""
    if not isinstance(text, str):
        kind = type(text).__name__
        cure = ": fill the gaps first, as .fillna('') does" if kind in _MISSING else ""
        raise UsageError(f"{where} is {kind}, not str{cure}")
    if len(text) > MOST_CHARACTERS:
        raise UsageError(
            f"{where} has {len(text):,} characters, and at most {MOST_CHARACTERS:,} are tokenized at once; the model "
            "reads the first tokens alone, so cut it, or split it into texts"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{where} is not Unicode: half a surrogate pair at character {error.start}") from None
    return text


def whole_number(name: str, value: int, limit: int | None = None) -> int:
    """The value as an int; UsageError, which names the argument, unless it is a whole number from 1 to `limit`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < 1 or (limit is not None and value > limit):
        allowed = "a positive whole number" if limit is None else f"a whole number from 1 to this model's {limit}"
        raise UsageError(f"{name} is {value!r}, not {allowed}")
    return int(value)
