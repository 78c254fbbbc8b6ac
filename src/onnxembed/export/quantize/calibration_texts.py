"""Texts to calibrate on and texts to measure with: every other line of a file, of ours or of the caller's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxembed.errors import UsageError
from onnxembed.export.probes import PROBES
from onnxembed.tokenizer.texts import TextTokenizer, Tokens

Feeds = Mapping[str, NDArray[np.int64]]

TEXTS = Path(__file__).with_name("texts.txt")
FEWEST = 16
"""Calibration takes at least this many lines: with fewer, a channel's largest value is a matter of luck."""

LONGEST = 512
"""Tokens of a text that are looked at; more tell nothing new, and cost much."""


@dataclass(frozen=True)
class Samples:
    """Inputs of one text each: those that decide the rounding, and those held back to measure it."""

    calibration: Sequence[Feeds]
    held_back: Sequence[Feeds]


def read_texts(path: Path | None) -> list[str]:
    """The lines of a UTF-8 file that are not empty; ours when None. Raises UsageError for a file with too few."""
    try:
        lines = [line for line in (path or TEXTS).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--calibration: cannot read {path} ({error})") from error
    if len(lines) < FEWEST:
        raise UsageError(f"--calibration: {path} has {len(lines)} texts, one a line; {FEWEST} are the fewest")
    return lines


def tokenized(texts: Sequence[str], tokenizer: TextTokenizer) -> Samples:
    """The texts as inputs, every other one held back; the probes, which stand for the odd ones, are not."""
    calibration, held_back = [*texts[::2], *PROBES], texts[1::2]
    return Samples(*([_feeds(each) for each in tokenizer.tokenize(part)] for part in (calibration, held_back)))


def _feeds(tokens: Tokens) -> Feeds:
    # A tokenizer without special tokens makes nothing of an empty text; the graph needs a slot all the same.
    ids = tokens.ids[:LONGEST] if len(tokens) else np.zeros(1, np.int64)
    mask = np.ones_like(ids) if len(tokens) else np.zeros(1, np.int64)
    return {"input_ids": ids[None], "attention_mask": mask[None], "token_type_ids": np.zeros_like(ids)[None]}
