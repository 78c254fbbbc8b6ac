"""The texts that are sent to a live system: each kind of difference shows in some of them."""

from __future__ import annotations

_SENTENCE = "The quick brown fox jumps over the lazy dog while the old river keeps its own slow counsel. "

PROBES: tuple[str, ...] = (
    "hello",
    "the cat sat on the mat",
    "The Cat Sat On The Mat",
    "What is the capital of France?",
    "caf\N{LATIN SMALL LETTER E WITH ACUTE} au lait, s'il vous pla\N{LATIN SMALL LETTER I WITH CIRCUMFLEX}t",
    "\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3059",
    "a text that ends with white space  ",
    "good morning \N{SMILING FACE WITH SMILING EYES}",
    "how do I bake bread at home without an oven",
    *(_SENTENCE * count + str(count) for count in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)),
)
"""20 texts: one word, two that differ in case, accents, Japanese, an emoji, and 20 to 1000 words of English."""

_DOCUMENTS = (
    "Paris is the capital of France.",
    "The Quick Brown Fox",
    "bread needs flour, water, salt and time",
    _SENTENCE * 3,
    _SENTENCE * 40,
)

PAIRS: tuple[tuple[str, str], ...] = tuple(
    (query, document) for query in ("what is the capital of France?", "How do I bake Bread?") for document in _DOCUMENTS
)
"""Ten pairs of query and document for rerankers, two of them longer than most limits."""
