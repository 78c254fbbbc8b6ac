"""What a tokenizer is built from: the folder's vocabulary, tokenizer_config.json and special tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import PostProcessor

from onnxembed.errors import ModelFilesError
from onnxembed.json_file import JsonObject
from onnxembed.tokenizer.special_tokens import SpecialTokens


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
class Contents:
    """What a vocabulary contains, from older files or from tokenizer.json; each class builds its tokenizer of it.

    `vocab`: the id of each token, or, of a Unigram, the tokens with their scores. `charsmap`: the normalization table
    of a sentencepiece file. `unk_id`: the unknown token of a Unigram, for classes that do not set it themselves.
    """

    vocab: dict[str, int] | list[tuple[str, float]]
    merges: list[tuple[str, str]] = field(default_factory=list)
    charsmap: bytes | None = None
    unk_id: int = 1

    @property
    def ids(self) -> dict[str, int]:
        """The id of each token."""
        return self.vocab if isinstance(self.vocab, dict) else {token: i for i, (token, _) in enumerate(self.vocab)}

    @property
    def scores(self) -> list[tuple[str, float]]:
        """The tokens of a Unigram with their scores."""
        return self.vocab if isinstance(self.vocab, list) else [(token, 0.0) for token in self.vocab]


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary before its special tokens; `marked` are those that the vocabulary's own file marks as such."""

    contents: Contents
    marked: tuple[AddedToken, ...] = ()
    left_out: str = ""


@dataclass(frozen=True)
class TokenizerClass:
    """How one tokenizer class of transformers reads a checkpoint.

    `model`: the kind of its vocabulary. `files`: the files of the vocabulary, all required. `read`: reads
    the vocabulary. `build`: how a text is prepared for it and cut by it, as transformers' class does, also with the
    vocabulary of a tokenizer.json. `post_processor`: what goes around every text.
    """

    model: str
    files: tuple[str, ...]
    read: Callable[[CheckpointVocabulary], Vocabulary]
    build: Callable[[CheckpointVocabulary, Contents], Tokenizer]
    post_processor: Callable[[CheckpointVocabulary, Tokenizer], PostProcessor]
