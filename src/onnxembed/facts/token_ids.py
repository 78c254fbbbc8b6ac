"""The ids of tokens by name, from the files of a tokenizer. Standard library only."""

from __future__ import annotations

from onnxembed.errors import ModelFilesError
from onnxembed.facts.facts import Facts
from onnxembed.facts.json_file import read_json


def vocabulary(facts: Facts) -> dict[str, int]:
    """The id of every token: from tokenizer.json, or from vocab.json if the checkpoint has only that."""
    tokenizer, vocab = (facts.transformer_folder / name for name in ("tokenizer.json", "vocab.json"))
    if not tokenizer.is_file():
        return dict(read_json(vocab))
    state = read_json(tokenizer)
    try:
        tokens = state["model"]["vocab"]
        ids = dict(tokens) if isinstance(tokens, dict) else {token: number for number, (token, _) in enumerate(tokens)}
        return ids | {token["content"]: token["id"] for token in state.get("added_tokens") or ()}
    except (LookupError, TypeError, ValueError) as error:
        raise ModelFilesError(f"{tokenizer} has no readable vocabulary ({error!r})") from error
