"""Texts to calibrate on and texts to measure with: alternate lines of a file, either ours or the caller's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxembed.arrays import Feeds
from onnxembed.counting import counted
from onnxembed.errors import UsageError
from onnxembed.proof.probes import PROBES
from onnxembed.tokenizer.pairs import Pair
from onnxembed.tokenizer.texts import TextTokenizer, Tokens

TEXTS = Path(__file__).with_name("texts.txt")
"""Our own calibration texts, one per line. They decide how int8 graphs are rounded, so no letter of them may change."""

FEWEST = 16
"""Calibration needs at least this many lines: with fewer, a channel's largest value is a matter of luck."""

LONGEST = 512
"""Tokens of a text that are used; more would add nothing new, and cost much."""

OTHERS = 2
"""A query is paired with this many texts that are not its own."""


@dataclass(frozen=True)
class Samples:
    """Inputs of one text or pair each.

    Attributes:
        calibration: texts that decide how values are rounded.
        held_back: texts that measure the finished graph.
        what: "texts" or "pairs", for messages.
    """

    calibration: Sequence[Feeds]
    held_back: Sequence[Feeds]
    what: str = "texts"


def read_texts(path: Path | None) -> list[str]:
    """The non-empty lines of a UTF-8 file, of TEXTS when `path` is None.

    Raises UsageError for a file that cannot be read, or has fewer than FEWEST lines.
    """
    try:
        lines = [line for line in (path or TEXTS).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--calibration: cannot read {path} ({error})") from error
    if len(lines) < FEWEST:
        raise UsageError(
            f"--calibration: {path} has {counted(len(lines), 'text')}, one per line; at least {FEWEST} are needed"
        )
    return lines


def tokenized(texts: Sequence[str], tokenizer: TextTokenizer) -> Samples:
    """The texts as inputs, every second one held back. The probes, chosen to be unusual, only calibrate."""
    calibration, held_back = [*texts[::2], *PROBES], texts[1::2]
    return Samples(
        calibration=[_feeds(tokens) for tokens in tokenizer.tokenize(calibration)],
        held_back=[_feeds(tokens) for tokens in tokenizer.tokenize(held_back)],
    )


def tokenized_pairs(texts: Sequence[str], tokenizer: TextTokenizer) -> Samples:
    """Pairs of the texts as inputs; those of every second text are held back."""
    calibration: list[Any] = pairs([*texts[::2], *PROBES])
    held_back: list[Any] = pairs(texts[1::2])
    return Samples(
        calibration=[_feeds(tokens) for tokens in tokenizer.tokenize(calibration)],
        held_back=[_feeds(tokens) for tokens in tokenizer.tokenize(held_back)],
        what="pairs",
    )


def pairs(texts: Sequence[str]) -> list[Pair]:
    """Each text's beginning as a query, with the rest of that text as a document, and with the next texts."""
    found = []
    for place, text in enumerate(texts):
        query, rest = text[: len(text) // 3 + 1], text[len(text) // 3 + 1 :]
        others = [texts[(place + step) % len(texts)] for step in range(1, OTHERS + 1)]
        found += [(query, document) for document in (rest, *others)]
    return found


def _feeds(tokens: Tokens) -> Feeds:
    # A tokenizer without special tokens gives no ids for an empty text; the graph needs a slot all the same.
    ids = tokens.ids[:LONGEST] if len(tokens) else np.zeros(1, np.int64)
    mask = np.ones_like(ids) if len(tokens) else np.zeros(1, np.int64)
    types = tokens.type_ids[:LONGEST] if len(tokens) else np.zeros(1, np.int64)
    return {"input_ids": ids[None], "attention_mask": mask[None], "token_type_ids": types[None]}
