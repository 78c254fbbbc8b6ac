"""Tokens that the model's table of embeddings has no row for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onnxembed.counting import counted
from onnxembed.errors import ModelFilesError
from onnxembed.facts.facts import Facts
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.facts.token_ids import ids_of
from onnxembed.warning import warn


def check(facts: Facts, state: Mapping[str, Any], source: Path) -> Iterator[str]:
    """Compare the ids of a tokenizer.json's `state` with config.json's vocab_size; yields what a user must know.

    Tokens that were added without resizing the model are published (embeddinggemma's <image_soft_token>): texts
    that quote one cannot be embedded, by the reference either, and a warning names them. Any other token without a
    row raises ModelFilesError: such a vocabulary is another model's.
    """
    rows = facts.config.get("vocab_size")
    if MODEL_TYPES[facts.model_type].static or type(rows) is not int:
        return
    own, added = ids_of(state, source)
    if beyond := [token for token, number in own.items() if number >= rows and token not in added]:
        raise ModelFilesError(
            f"{source} has {counted(len(beyond), 'token')} without a row in the table of {rows} "
            f"(config.json: vocab_size), such as {beyond[0]!r} with id {own[beyond[0]]}: "
            "it is another model's vocabulary"
        )
    beyond = sorted((token for token, number in added.items() if number >= rows), key=added.__getitem__)
    if beyond:
        named = ", ".join(f"{token!r} ({added[token]})" for token in beyond[:5]) + (", ..." if beyond[5:] else "")
        has = "has" if len(beyond) == 1 else "have"
        tokens = counted(len(beyond), "added token")
        warn(f"{tokens} {has} no row in the table of {rows}; a text with one is an error: {named}")
        yield f"added tokens without a row in the table of {rows}: {named}"
