"""Words that a caller in Python chooses from; the command line checks them as it reads its options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from onnxembed.errors import UsageError

Word = TypeVar("Word", bound=str | None)


def some_words(option: str, given: Word | Sequence[Word], known: Sequence[Word]) -> tuple[Word, ...]:
    """One word or several, as a tuple; UsageError for none and for one that is not `known`."""
    words: Sequence[Word] = (given,) if isinstance(given, str) else tuple(given or ())  # type: ignore[arg-type]
    if not words:
        raise UsageError(f"--{option}: name one or more of {', '.join(map(str, known))}")
    return tuple(one_word(option, word, known) for word in words)


def one_word(option: str, given: Word, known: Sequence[Word]) -> Word:
    """The word itself, or None for no choice; UsageError for a word that is not `known`."""
    if given is not None and given not in known:
        raise UsageError(f"--{option}: {given!r} is not one of {', '.join(map(str, known))}")
    return given
