"""What a tokenizer is built from: the folder's vocabulary, tokenizer_config.json and special tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import PostProcessor

from onnxembed.errors import ModelFilesError
from onnxembed.export.tokenizer.vocabularies.special_tokens import SpecialTokens, Token
from onnxembed.facts.json_file import JsonObject


@dataclass(frozen=True)
class CheckpointVocabulary:
    """One checkpoint without tokenizer.json."""

    folder: Path
    config: JsonObject
    special: SpecialTokens

    def flag(self, key: str, default: bool) -> bool:
        """An option of tokenizer_config.json; `default` where it is absent or null."""
        return default if (value := self.optional_flag(key)) is None else value

    def optional_flag(self, key: str) -> bool | None:
        """An option of tokenizer_config.json without a default; None where it is absent or null."""
        value = self.config.get(key)
        if value is not None and not isinstance(value, bool):
            raise ModelFilesError(f"{self.folder / 'tokenizer_config.json'}: {key} is {value!r}, not true or false")
        return value


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer before its special tokens; `marked` are those that the vocabulary's own file marks as such."""

    tokenizer: Tokenizer
    marked: tuple[AddedToken, ...] = ()
    left_out: str = ""


@dataclass(frozen=True)
class TokenizerClass:
    """How one tokenizer class of transformers reads a checkpoint.

    `files`: the files of the vocabulary, all required. `special`: the class's tokens for roles that no file names.
    `read`: reads the vocabulary, and how a text is prepared for it. `post_processor`: what goes around every text.
    """

    files: tuple[str, ...]
    special: Mapping[str, Token]
    read: Callable[[CheckpointVocabulary], Vocabulary]
    post_processor: Callable[[CheckpointVocabulary, Tokenizer], PostProcessor]
