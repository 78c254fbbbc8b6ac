"""The ids of tokens in a model's tokenizer, by their text or by their role."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from onnxembed.errors import ModelFilesError
from onnxembed.facts.facts import Facts
from onnxembed.json_file import read_json
from onnxembed.tokenizer.texts import open_tokenizer

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""The keys of tokenizer_config.json that give a token a role."""


class TokenIds:
    """Looks tokens up in a tokenizer; `special_tokens` are those with a role ("cls_token"), by role."""

    def __init__(self, tokenizer: Tokenizer, special_tokens: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._special = {role: _content(token) for role, token in special_tokens.items()}

    @classmethod
    def of_folder(cls, folder: Path) -> TokenIds:
        """The tokenizer files of an artifact's folder, as `write_tokenizer` left them."""
        return cls(open_tokenizer(folder / "tokenizer.json"), read_json(folder / "special_tokens_map.json"))

    def token(self, text: str) -> int:
        """The id of a token; ModelFilesError if the tokenizer lacks it."""
        token_id = self._tokenizer.token_to_id(text)
        if token_id is None:
            raise ModelFilesError(f"tokenizer.json has no token {text!r}, which the model's files ask for")
        return int(token_id)

    def special(self, *keys: str) -> int:
        """The id of the first of these special tokens (`cls_token`, ...) that the tokenizer has."""
        for key in keys:
            if key in self._special:
                return self.token(self._special[key])
        raise ModelFilesError(
            f"tokenizer_config.json names no {' and no '.join(keys)}, which the model's files ask for"
        )

    def known(self, words: Iterable[str]) -> tuple[int, ...]:
        """The ids of those words that are tokens by themselves, in ascending order.

        A word with the id of the unknown token is none, unless it is that token: what is meant by its id are words that
        the vocabulary lacks. Reference: sentence-transformers 6.2, MultiVectorMask.resolve_with_tokenizer.
        """
        unknown = self._special.get("unk_token")
        unknown_id = None if unknown is None else self._tokenizer.token_to_id(unknown)
        found = {word: self._tokenizer.token_to_id(word) for word in words}
        known = {word: number for word, number in found.items() if number is not None}
        return tuple(sorted({number for word, number in known.items() if number != unknown_id or word == unknown}))


def special_tokens(facts: Facts, of_class: Mapping[str, str]) -> dict[str, Any]:
    """The tokens with a role, by role: those of special_tokens_map.json, else those of tokenizer_config.json.

    `of_class` are the tokens of a converted tokenizer's class, which its files need not name.
    """
    path = facts.transformer_folder / "special_tokens_map.json"
    if path.is_file():
        return dict(read_json(path))
    config = facts.tokenizer_config
    tokens = {**of_class, **{name: config[name] for name in ROLES if config.get(name) is not None}}
    return {name: _content(token) for name, token in tokens.items()}


def _content(token: Any) -> Any:
    """A token's text: files give it as it is, or with how it is matched."""
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str):
        raise ModelFilesError(f"the special tokens of the model's files have {token!r}, which is not a token")
    return text
