"""Texts -> token ids, without padding. tokenizer.json holds everything but the length limit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxembed.arrays import IntArray
from onnxembed.errors import UsageError
from onnxembed.foreign_errors import foreign_errors
from onnxembed.manifest import TOKENIZER_FILE, Tokenization, TruncationSide

# Encodings hold strings and offsets for every token; a small batch keeps long texts from piling them up.
BATCH = 64


@dataclass(frozen=True)
class Tokens:
    """One tokenized text, special tokens included."""

    ids: IntArray  # [T]
    type_ids: IntArray  # [T]
    truncated: bool
    tokens: tuple[str | None, ...] = ()
    """The token of each id, where a public `tokenize` gave them; None for an id that the tokenizer does not use."""

    def __len__(self) -> int:
        return len(self.ids)


def pad(texts: Sequence[Tokens], pad_token_id: int) -> dict[str, IntArray]:
    """The graph inputs for a batch of texts, int64 [B, T] each, padded on the right."""
    # Without special tokens an empty text has no ids, but the graph needs at least one slot.
    shape = (len(texts), max(1, *map(len, texts)))
    inputs = {
        "input_ids": np.full(shape, pad_token_id, np.int64),
        "attention_mask": np.zeros(shape, np.int64),
        "token_type_ids": np.zeros(shape, np.int64),
    }
    for row, tokens in enumerate(texts):
        inputs["input_ids"][row, : len(tokens)] = tokens.ids
        inputs["attention_mask"][row, : len(tokens)] = 1
        inputs["token_type_ids"][row, : len(tokens)] = tokens.type_ids
    return inputs


PROBE = "a 東 🙂 [x]"
"""A text with words and signs that hardly any vocabulary has all of."""


def open_tokenizer(source: Path, content: str | None = None) -> Any:
    """The tokenizers library's tokenizer from the file `source`, or from `content`, which is said to be its text.

    Raises ModelFilesError for what is no tokenizer, and for one whose parts contradict each other, so that it cannot
    tokenize a text.
    """
    from tokenizers import Tokenizer

    with foreign_errors(f"{source} is not a tokenizer that the tokenizers library can use"):
        tokenizer = Tokenizer.from_file(str(source)) if content is None else Tokenizer.from_str(content)
        for text in ("", PROBE):
            tokenizer.encode(text)
    return tokenizer


class TextTokenizer:
    """The tokenizer of an artifact, cutting texts to `max_length` tokens. Usable from many threads.

    `changed` is the text of a tokenizer.json to use instead of the folder's file.
    """

    at_once = BATCH
    """Texts per call of the tokenizers library. The library starts a thread for each core, and only the number of texts
    limits how many of them are busy."""

    def __init__(self, folder: Path, tokenization: Tokenization, max_length: int, changed: str | None = None) -> None:
        self._file = folder / TOKENIZER_FILE
        self._tokenizer = open_tokenizer(self._file, changed)
        specials = self._tokenizer.num_special_tokens_to_add(False)
        if max_length <= specials:
            raise UsageError(f"max_length is {max_length}, but {specials} special tokens are added to every text")
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length, direction=tokenization.truncation_side.value)
        self._tokenization = tokenization

    def whole(self) -> Any:
        """A copy of the library's tokenizer, which never cuts a text; other threads may be using the original."""
        from tokenizers import Tokenizer

        copy = Tokenizer.from_str(self._tokenizer.to_str())
        copy.no_truncation()
        return copy

    def shortened(self, folder: Path, max_length: int, side: TruncationSide | None = None) -> TextTokenizer:
        """The same tokenizer of the artifact in `folder`, cutting texts to another length, or on another side."""
        decided = self._tokenization.truncation_side
        chosen = replace(self._tokenization, truncation_side=replace(decided, value=side or decided.value))
        shorter = TextTokenizer(folder, chosen, max_length, self._tokenizer.to_str())
        shorter.at_once = self.at_once
        return shorter

    def tokens(self, ids: Iterable[int]) -> list[str | None]:
        """The token that each id stands for; None for an id that the tokenizer does not use."""
        return [self._tokenizer.id_to_token(int(token_id)) for token_id in ids]

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids of each text, in order; ModelFilesError for a text that the tokenizer cannot take."""
        try:
            return [
                Tokens(
                    ids=np.array(encoding.ids, np.int64),
                    type_ids=np.array(encoding.type_ids, np.int64),
                    truncated=bool(encoding.overflowing),
                )
                for start in range(0, len(texts), self.at_once)
                for encoding in self._tokenizer.encode_batch_fast(texts[start : start + self.at_once])
            ]
        except BaseException:  # entering the block below takes time, and every text comes by here
            with foreign_errors(f"{self._file} cannot tokenize these texts"):
                raise

    def spans(self, texts: Sequence[str]) -> list[tuple[tuple[str, ...], IntArray]]:
        """The tokens of each text, and the places [T, 2] in the text where each begins and ends."""
        with foreign_errors(f"{self._file} cannot tokenize these texts"):
            return [
                (tuple(encoding.tokens), np.array(encoding.offsets, np.int64).reshape(-1, 2))
                for start in range(0, len(texts), self.at_once)
                for encoding in self._tokenizer.encode_batch(texts[start : start + self.at_once])
            ]
