"""Markers before queries and documents ([unused0], [Q]) made single tokens, as in sentence-transformers.

Such models were trained with the id of the marker inserted before a text. A tokenizer would split the marker, so it is
registered as a special token: a text with the marker before it then gives the same ids.
Reference: sentence-transformers 6.2, MultiVectorEncoder._register_prefix_tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tokenizers import AddedToken

from onnxembed.facts.facts import Facts
from onnxembed.tokenizer.texts import open_tokenizer


def register(facts: Facts, state: dict[str, Any]) -> Iterator[str]:
    """Register the markers that the vocabulary has in a tokenizer.json's `state`; yields a description of each."""
    for marker in facts.multi_vector.markers.values() if facts.multi_vector else ():
        tokenizer = open_tokenizer(facts.transformer_folder / "tokenizer.json", json.dumps(state))
        token = next((text for text in (marker, *marker.split()[:1]) if tokenizer.token_to_id(text) is not None), None)
        if token is None or tokenizer.encode(token, add_special_tokens=False).tokens == [token]:
            continue
        tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True)])
        state["added_tokens"] = json.loads(tokenizer.to_str())["added_tokens"]
        yield f"{token!r} made one token, the marker of a multi-vector model"
