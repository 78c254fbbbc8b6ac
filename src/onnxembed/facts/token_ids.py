"""The ids of tokens by name, from the files of a tokenizer. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxembed.errors import ModelFilesError
from onnxembed.facts.facts import Facts
from onnxembed.foreign_errors import foreign_errors
from onnxembed.json_file import read_json

MAX_ID = (1 << 24) - 1
"""The largest id, some 60 times that of the largest vocabulary: the tokenizers library counts up to it, and lists what
is not there."""


def vocabulary(facts: Facts) -> dict[str, int]:
    """The id of every token: from tokenizer.json, or from vocab.json if the checkpoint has only that."""
    tokenizer, vocab = (facts.transformer_folder / name for name in ("tokenizer.json", "vocab.json"))
    if not tokenizer.is_file():
        return dict(read_json(vocab))
    own, added = ids_of(read_json(tokenizer), tokenizer)
    return own | added


def ids_of(state: Mapping[str, Any], source: Path) -> tuple[dict[str, int], dict[str, int]]:
    """The ids of the vocabulary, and of the added tokens, in the content of a tokenizer.json, from the file `source`.

    Raises ModelFilesError for content of another form, for ids that are not whole numbers from 0 to MAX_ID, and for
    two tokens of the vocabulary with one id: the tokenizers library keeps either of them, by chance.
    """
    with foreign_errors(f"{source} has no readable vocabulary"):
        tokens = state["model"]["vocab"]
        own = dict(tokens) if isinstance(tokens, dict) else {token: number for number, (token, _) in enumerate(tokens)}
        added = {token["content"]: token["id"] for token in state.get("added_tokens") or ()}
        for token, number in (own | added).items():
            if type(number) is not int or not 0 <= number <= MAX_ID:
                raise ModelFilesError(f"{source}: the id of {token!r} is {number!r}, not a number from 0 to {MAX_ID}")
        by_id: dict[int, str] = {}
        for token, number in own.items():
            if (other := by_id.setdefault(number, token)) != token:
                raise ModelFilesError(f"{source}: {other!r} and {token!r} have one id, {number}")
    return own, added
