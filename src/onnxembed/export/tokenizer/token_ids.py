"""The ids of tokens in an artifact's tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from onnxembed.errors import ModelFilesError
from onnxembed.facts.json_file import read_json


class TokenIds:
    """The tokenizer files of an artifact's folder, as `write_tokenizer` left them."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        named = read_json(folder / "special_tokens_map.json")
        self._special = {key: token["content"] if isinstance(token, dict) else token for key, token in named.items()}

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
        """The ids of those words that are tokens by themselves, in ascending order."""
        ids = (self._tokenizer.token_to_id(word) for word in words)
        return tuple(sorted(token_id for token_id in ids if token_id is not None))
