"""Texts that tell wrong vectors from right ones: each reveals a mistake that the others would hide.

A missing end token shows most in short texts, wrong truncation only in long ones, a mean over padding only next to
a longer text, missing lower-casing only in capitals, mistakes about a script only in texts of that script.
"""

from __future__ import annotations

SENTENCE = "The quick brown fox jumps over the lazy dog, and 3 of its 17 friends watched from the riverbank. "

PROBES: tuple[str, ...] = (
    "a",
    "hello",
    "Hello World",
    "hello world",
    "HELLO WORLD",
    "hello world   ",
    "  hello\tworld\n",
    "",
    "What is the capital of France?",
    "Straße, naïve café, coöperate, Ångström",
    "東京は日本の首都です。",
    "机器学习是人工智能的一个分支。",
    "Москва слезам не верит.",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "emoji 🙂🚀👩‍👩‍👧‍👦 and signs ©™½",
    "def f(x: int) -> str:\n    return f'{x!r}' * 2  # code",
    "https://example.org/a/b?c=d&e=%20f#g",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    SENTENCE,
    SENTENCE * 3,
    SENTENCE * 6,
    SENTENCE * 12,
)

BRIEF = tuple(text for text in PROBES if len(text) <= 100)
"""The short ones, for checks that must be quick with a large model too."""


def probe_texts(max_length: int) -> list[str]:
    """The probes and two longer texts, which exceed a limit of up to 512 tokens, and most local windows.

    They do not exceed every limit: a text of 8,192 tokens takes a large model minutes each time it is run.
    """
    return [*PROBES, overlong_text(min(max_length, 512)), text_past_windows(max_length)]


def overlong_text(max_length: int) -> str:
    """A text of more than `max_length` tokens."""
    return " ".join(f"word{i % 97} and" for i in range(max_length))


def text_past_windows(max_length: int) -> str:
    """A text that is longer than the local windows of every published model with a high limit (at most 512 tokens).

    A lower limit cuts it. It begins otherwise than `overlong_text` does.
    """
    return " ".join(f"past {i % 89} word" for i in range(min(max_length, 176)))


RECORDED: tuple[str, ...] = (
    "a",
    SENTENCE,
    "Hello World",
    "hello world",
    "",
    "東京は日本の首都です。",
    "Straße, naïve café, coöperate, Ångström",
    "Москва слезам не верит.",
    "مرحبا بالعالم",
    "def f(x: int) -> str:\n    return f'{x!r}' * 2  # code",
    "नमस्ते दुनिया",
    "emoji 🙂🚀👩‍👩‍👧‍👦 and signs ©™½",
    "สวัสดีชาวโลก",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    SENTENCE * 3,
)
"""The probes whose outputs are recorded, the most telling ones first: vectors of many numbers leave room for fewer."""


def recorded_texts(max_length: int) -> list[str]:
    """RECORDED, with the text past all windows in second place."""
    return [RECORDED[0], text_past_windows(max_length), *RECORDED[1:]]


QUERY = "What is the capital of France?"

PAIRS: tuple[tuple[str, str], ...] = (
    *((QUERY, text) for text in PROBES),
    *((text, "Paris is the capital of France.") for text in PROBES[::4]),
    ("", ""),
    (PROBES[-1], PROBES[-1]),
    ("{query} of {document}", "{query} {instruction}"),
)
"""Pairs that are empty, alike, or long on either side; and placeholders of a template, which are text in a text."""

BRIEF_PAIRS = tuple(pair for pair in PAIRS if max(map(len, pair)) <= 100)
"""The short ones, for a check that must not take long on a large model."""


def probe_pairs(max_length: int) -> list[tuple[str, str]]:
    """PAIRS, and pairs longer than a limit of up to 512 tokens: in their document, their query, and both."""
    long, past = overlong_text(min(max_length, 512)), text_past_windows(max_length)
    return [*PAIRS, (QUERY, long), (long, "Paris"), (long, long), (QUERY, past)]


def recorded_pairs(max_length: int) -> list[tuple[str, str]]:
    """The query with each of the recorded texts."""
    return [(QUERY, text) for text in recorded_texts(max_length)]
