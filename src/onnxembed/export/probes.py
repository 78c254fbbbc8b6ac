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
    long = overlong_text(min(max_length, 512))
    return [*PROBES, long, long[: len(long) * 3 // 4]]


def overlong_text(max_length: int) -> str:
    """A text of more than `max_length` tokens."""
    return " ".join(f"word{i % 97} and" for i in range(max_length))
