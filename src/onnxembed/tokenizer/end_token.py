"""The token that every text must end with, added if tokenizer.json's own post-processor leaves it out.

Models that take a text's vector from its last token were trained with an end token there. Their tokenizer's class
added it in code, so tokenizer.json alone may lack it.
"""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer

from onnxembed.errors import ModelFilesError
from onnxembed.foreign_errors import foreign_errors

PROBE = "Hello world"

NO_VOCABULARY = {"type": "WordLevel", "vocab": {}, "unk_token": ""}


def append_end_token(state: dict[str, Any], token: str) -> bool:
    """Make the post-processor of a tokenizer.json end every text with `token`; returns whether it had to be changed.

    Truncation leaves room for the token, because the post-processor adds it, as BERT's adds [SEP].
    Raises ModelFilesError if the vocabulary lacks the token, or a text still does not end with it.
    """
    tokenizer = _tokenizer(state)
    number = tokenizer.token_to_id(token)
    if number is None:
        raise ModelFilesError(f"texts must end with {token}, which tokenizer.json's vocabulary does not have")
    if _last(tokenizer) == number:
        return False
    state["post_processor"] = _ending(state.get("post_processor"), token, number)
    # Parsed without the vocabulary, which was parsed above: a large one takes seconds.
    tokenizer.post_processor = _tokenizer({**state, "added_tokens": [], "model": NO_VOCABULARY}).post_processor
    if (last := _last(tokenizer)) != number:
        raise ModelFilesError(f"texts must end with {token} ({number}), but tokenizer.json ends them with {last}")
    return True


def _tokenizer(state: dict[str, Any]) -> Tokenizer:
    with foreign_errors("tokenizer.json cannot be read by the tokenizers library"):
        return Tokenizer.from_str(json.dumps(state))


def _last(tokenizer: Tokenizer) -> int | None:
    tokenizer.no_padding()
    tokenizer.no_truncation()
    with foreign_errors("tokenizer.json cannot tokenize a text"):
        ids: list[int] = tokenizer.encode(PROBE).ids
    return ids[-1] if ids else None


def _ending(processor: Any, token: str, number: int) -> dict[str, Any]:
    """A post-processor that does what `processor` does, then adds the token.

    A template cannot follow another, which passes its tokens on in pieces. It is extended instead.
    """
    if processor and processor["type"] == "Sequence":
        steps = processor["processors"]
    else:
        steps = [processor] if processor else []
    *others, last = steps or [None]
    if last is None or last["type"] != "TemplateProcessing":
        first, second = _piece("Sequence", "A", 0), _piece("Sequence", "B", 1)
        others, last = steps, {"single": [first], "pair": [first, second], "special_tokens": {}}
    template = {
        "type": "TemplateProcessing",
        "single": [*last["single"], _piece("SpecialToken", token, 0)],
        "pair": [*last["pair"], _piece("SpecialToken", token, 1)],
        "special_tokens": {**last["special_tokens"], token: {"id": token, "ids": [number], "tokens": [token]}},
    }
    return {"type": "Sequence", "processors": [*others, template]} if others else template


def _piece(kind: str, name: str, type_id: int) -> dict[str, Any]:
    return {kind: {"id": name, "type_id": type_id}}
