"""The special and added tokens that a checkpoint's files declare: their texts, how they match, their ids.

They come from tokenizer_config.json, in special_tokens_map.json and added_tokens.json of older checkpoints, and from
the defaults of the tokenizer's class, read in the same order as in transformers 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from onnxembed.errors import ModelFilesError
from onnxembed.json_file import JsonObject, read_json
from onnxembed.tokenizer.token_ids import ROLES

MATCHING = ("single_word", "lstrip", "rstrip", "normalized", "special")
EXTRA = ("extra_special_tokens", "additional_special_tokens")  # the name of transformers 5, and the older one

Token = str | AddedToken  # a text alone is special and found before normalization


MASK = AddedToken("<mask>", lstrip=True, special=True)  # includes the space before it
BRACKETS: dict[str, Token] = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
ANGLES: dict[str, Token] = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
GEMMA = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
ALBERT = {**BRACKETS, "bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "<unk>", "pad_token": "<pad>"}
DEBERTA = {**BRACKETS, "bos_token": "[CLS]", "eos_token": "[SEP]"}
END_OF_TEXT = "<|endoftext|>"
GPT2 = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
QWEN2 = dict.fromkeys(("eos_token", "unk_token", "pad_token"), END_OF_TEXT)
CAMEMBERT: dict[str, Token] = {**ANGLES, "mask_token": MASK}
MPNET: dict[str, Token] = {**ANGLES, "unk_token": "[UNK]", "mask_token": MASK}

OF_CLASS: Mapping[str, Mapping[str, Token]] = {
    "AlbertTokenizer": ALBERT,
    "BertTokenizer": BRACKETS,
    "CamembertTokenizer": CAMEMBERT,
    "DebertaV2Tokenizer": DEBERTA,
    "DistilBertTokenizer": BRACKETS,
    "ElectraTokenizer": BRACKETS,
    "GPT2Tokenizer": GPT2,
    "GemmaTokenizer": GEMMA,
    "LlamaTokenizer": LLAMA,
    "MPNetTokenizer": MPNET,
    "Qwen2Tokenizer": QWEN2,
    "RobertaTokenizer": ANGLES,
    "XLMRobertaTokenizer": ANGLES,
}
"""The tokens that a class of transformers has for roles that no file names."""


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens with a role ("cls_token") by role; those with an id in the files by id; those with neither."""

    folder: Path
    named: Mapping[str, Token]
    declared: Mapping[int, AddedToken]
    extra: tuple[Token, ...]

    def content(self, role: str) -> str:
        """The text of the token with a role that the class requires."""
        if role not in self.named:
            raise ModelFilesError(f"{self.folder / 'tokenizer_config.json'}: {role} is null, but texts need one")
        return str(self.named[role])

    def add_to(self, tokenizer: Tokenizer, of_vocabulary: Iterable[AddedToken] = ()) -> None:
        """Add the tokens to the tokenizer, which then never splits them.

        `of_vocabulary` are tokens that the vocabulary's own file marks. Raises ModelFilesError for a token that
        would get another id than the files declare for it.
        """
        tokens: list[Token] = [self.declared[index] for index in sorted(self.declared)]
        declared, named = {str(token) for token in tokens}, {str(token) for token in self.named.values()}
        for token in (*self.named.values(), *of_vocabulary, *self.extra):
            # A text alone and the same text with flags are two tokens here; the later one decides.
            if str(token) not in declared and token not in tokens:
                tokens.append(token)
        tokenizer.add_tokens([_special(token, str(token) in named) for token in tokens])
        for index, token in self.declared.items():
            if (given := tokenizer.token_to_id(token.content)) != index:
                raise ModelFilesError(
                    f"{self.folder} declares the token {token.content!r} with the id {index}, "
                    f"but after its vocabulary comes {given}"
                )


def read_special_tokens(folder: Path, config: JsonObject, defaults: Mapping[str, Token]) -> SpecialTokens:
    """The tokens that the files of `folder` name; `defaults` are the class's, for roles that they do not name.

    A default with flags decides how the token of its role is matched, even if the files give only a text for it.
    added_tokens_decoder of tokenizer_config.json (`config`), if present, replaces the older files.
    """
    settings: dict[str, Any] = dict(config)
    declared: dict[int, AddedToken] = {}
    if "added_tokens_decoder" in config:
        file = folder / "tokenizer_config.json"
        for index, entry in _object(file, "added_tokens_decoder", config["added_tokens_decoder"]).items():
            if not index.isdecimal():
                raise ModelFilesError(f"{file}: added_tokens_decoder has {index!r}, which is not an id")
            token = _token(file, f"added_tokens_decoder {index}", _object(file, "added_tokens_decoder", entry))
            declared[int(index)] = _special(token, False)
    else:
        file = folder / "special_tokens_map.json"
        settings |= read_json(file) if file.is_file() else {}
    by_content = {str(token): token for token in declared.values()}
    named: dict[str, Token] = {}
    more = settings.get("model_specific_special_tokens") or {}
    settings |= _object(file, "model_specific_special_tokens", more)
    own_roles = (key for key in settings if (key.endswith("_token") or key in more) and key not in ROLES)
    for role in (*ROLES, *own_roles):
        default = defaults.get(role)
        value = settings.get(role, default)
        if value is not None and (role in ROLES or isinstance(value, str | dict)):  # add_bos_token is a flag
            token = _token(file, role, value)
            token = by_content.get(str(token), token)
            if isinstance(token, str) and isinstance(default, AddedToken):
                token = AddedToken(token, lstrip=default.lstrip, special=True)
            named[role] = token
    extra = _extra(file, settings)
    if "added_tokens_decoder" not in config and (file := folder / "added_tokens.json").is_file():
        special = {str(token) for token in (*named.values(), *extra)}
        for content, index in read_json(file).items():
            if type(index) is not int:
                raise ModelFilesError(f"{file}: {content!r} has {index!r}, which is not an id")
            declared[index] = AddedToken(content, normalized=content not in special, special=content in special)
    return SpecialTokens(folder, named, declared, extra)


def _extra(file: Path, settings: JsonObject) -> tuple[Token, ...]:
    key = next((key for key in EXTRA if settings.get(key)), None)
    if key is None:
        return ()
    values = settings[key]
    if not isinstance(values, list | dict):
        raise ModelFilesError(f"{file}: {key} is {values!r}, not a list of tokens")
    return tuple(_token(file, key, value) for value in (values.values() if isinstance(values, dict) else values))


def _token(file: Path, key: str, value: Any) -> Token:
    """A token as a text alone, or with its flags."""
    if isinstance(value, AddedToken) or (isinstance(value, str) and value):
        return value
    entry = _object(file, key, value)
    content, flags = entry.get("content"), {name: entry[name] for name in MATCHING if name in entry}
    unknown = entry.keys() - {"content", "__type", *MATCHING}
    valid = isinstance(content, str) and content and all(isinstance(flag, bool) for flag in flags.values())
    if unknown or not valid:
        raise ModelFilesError(f"{file}: {key} is {value!r}, not a token")
    return AddedToken(content, **flags)


def _special(token: Token, named: bool) -> AddedToken:
    """The token as an AddedToken; one with a role is always special."""
    if isinstance(token, str):
        return AddedToken(token, special=True)
    token.special = token.special or named
    return token


def _object(file: Path, key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ModelFilesError(f"{file}: {key} is {value!r}, not a token")
    return value
