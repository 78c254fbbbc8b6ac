"""Texts to calibrate on and texts to measure with: alternate lines of a file, either ours or the caller's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxembed.arrays import Feeds
from onnxembed.errors import UsageError
from onnxembed.export.probes import PROBES
from onnxembed.tokenizer.texts import TextTokenizer, Tokens

TEXTS = Path(__file__).with_name("texts.txt")
"""Our own calibration texts, one per line. They decide how int8 graphs are rounded, so no letter of them may change."""

FEWEST = 16
"""Calibration needs at least this many lines: with fewer, a channel's largest value is a matter of luck."""

LONGEST = 512
"""Tokens of a text that are used; more would add nothing new, and cost much."""


@dataclass(frozen=True)
class Samples:
    """Inputs of one text each.

    Attributes:
        calibration: texts that decide how values are rounded.
        held_back: texts that measure the finished graph.
    """

    calibration: Sequence[Feeds]
    held_back: Sequence[Feeds]


def read_texts(path: Path | None) -> list[str]:
    """The non-empty lines of a UTF-8 file, of TEXTS when `path` is None.

    Raises UsageError for a file that cannot be read, or has fewer than FEWEST lines.
    """
    try:
        lines = [line for line in (path or TEXTS).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--calibration: cannot read {path} ({error})") from error
    if len(lines) < FEWEST:
        raise UsageError(f"--calibration: {path} has {len(lines)} texts, one per line; at least {FEWEST} are needed")
    return lines


def tokenized(texts: Sequence[str], tokenizer: TextTokenizer) -> Samples:
    """The texts as inputs, every second one held back. The probes, chosen to be unusual, only calibrate."""
    calibration, held_back = [*texts[::2], *PROBES], texts[1::2]
    return Samples(
        calibration=[_feeds(tokens) for tokens in tokenizer.tokenize(calibration)],
        held_back=[_feeds(tokens) for tokens in tokenizer.tokenize(held_back)],
    )


def _feeds(tokens: Tokens) -> Feeds:
    # A tokenizer without special tokens gives no ids for an empty text; the graph needs a slot all the same.
    ids = tokens.ids[:LONGEST] if len(tokens) else np.zeros(1, np.int64)
    mask = np.ones_like(ids) if len(tokens) else np.zeros(1, np.int64)
    return {"input_ids": ids[None], "attention_mask": mask[None], "token_type_ids": np.zeros_like(ids)[None]}
