"""Tokens that the files beside tokenizer.json, or its class, declare, registered as transformers 5 registers them.

Reference: transformers 5.23, TokenizersBackend.__init__.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tokenizers import AddedToken, Tokenizer

from onnxembed.facts.facts import Facts
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.facts.tokenizer_class import rebuilding_class
from onnxembed.foreign_errors import foreign_errors
from onnxembed.json_file import read_optional_json
from onnxembed.tokenizer.special_tokens import MATCHING, OF_CLASS, read_special_tokens


def register(facts: Facts, name: str | None, state: dict[str, Any]) -> Iterator[str]:
    """Register declared tokens in a tokenizer.json's `state`, which the class `name` reads; yields a description.

    Raises ModelFilesError for a token that would get another id than the files declare for it.
    """
    if MODEL_TYPES[facts.model_type].static:  # whose references read tokenizer.json alone
        return
    of_class = OF_CLASS.get(name or "", {})
    special = read_special_tokens(facts.transformer_folder, facts.tokenizer_config, of_class)
    known = {entry["content"]: entry for entry in state.get("added_tokens") or ()}
    missing = [
        str(token)
        for token in (*special.declared.values(), *special.named.values(), *special.extra)
        if str(token) not in known or (isinstance(token, AddedToken) and _differs(token, known[str(token)]))
    ]
    if not missing:
        return
    file = facts.transformer_folder / "tokenizer.json"
    with foreign_errors(f"{file} is not a tokenizer that the tokenizers library can read"):
        tokenizer = Tokenizer.from_str(json.dumps(state))
        special.add_to(tokenizer)
        added = json.loads(tokenizer.to_str())["added_tokens"]
    if added != state.get("added_tokens"):
        state["added_tokens"] = added
        names = ", ".join(dict.fromkeys(map(repr, missing)))
        yield f"{names} registered as the files beside tokenizer.json, or its class, declare"


def special_texts(facts: Facts) -> tuple[str, ...]:
    """The special tokens that the files, or the tokenizer's class, name: transformers' `all_special_tokens`."""
    state = read_optional_json(facts.transformer_folder / "tokenizer.json")
    of_class = OF_CLASS.get(rebuilding_class(facts, state) or "", {})
    special = read_special_tokens(facts.transformer_folder, facts.tokenizer_config, of_class)
    return tuple(dict.fromkeys(map(str, (*special.named.values(), *special.extra))))


def _differs(token: AddedToken, entry: dict[str, Any]) -> bool:
    return any(getattr(token, flag) != entry.get(flag) for flag in MATCHING)
