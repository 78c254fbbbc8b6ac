"""Texts that tell wrong vectors from right ones: each catches a cause that others would hide.

A missing end token shows most in short texts, wrong truncation only in long ones, a mean over padding only
beside a longer text, lost lower-casing only in capitals, a wrong script only in texts of that script.
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


def probe_texts(max_length: int) -> list[str]:
    """The probes, and two texts longer than `max_length` tokens (at most 4096 words, to stay quick)."""
    words = min(max_length, 4096)
    long = " ".join(f"word{i % 97} and" for i in range(words))
    return [*PROBES, long, long[: len(long) * 3 // 4]]
