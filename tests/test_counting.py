"""Numbers of things in messages."""

from __future__ import annotations

import pytest

from onnxembed.counting import counted


@pytest.mark.parametrize(
    ("number", "thing", "words"),
    [
        (1, "text", "1 text"),
        (0, "text", "0 texts"),
        (1024, "vector of 8 numbers", "1,024 vectors of 8 numbers"),
        (1, "array of vectors of tokens", "1 array of vectors of tokens"),
    ],
)
def test_one_thing_is_singular(number: int, thing: str, words: str) -> None:
    assert counted(number, thing) == words
