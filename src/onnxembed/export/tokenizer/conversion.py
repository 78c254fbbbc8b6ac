"""Builds the tokenizer.json of checkpoints that have only older vocabulary files. Does not need transformers.

The files are read as the class of `tokenizer.vocabularies` that the checkpoint names does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.architectures import ARCHITECTURES
from onnxembed.facts.facts import Facts
from onnxembed.foreign_errors import foreign_errors
from onnxembed.tokenizer.special_tokens import OF_CLASS, read_special_tokens
from onnxembed.tokenizer.vocabularies import CLASSES
from onnxembed.tokenizer.vocabularies.tokenizer_class import CheckpointVocabulary

# Classes of transformers that have no fast form, with what cuts their texts.
SLOW = {
    "BertJapaneseTokenizer": "MeCab, Sudachi or Juman++ cuts its texts into words",
    "BertweetTokenizer": "code of its own normalizes tweets and applies its merges",
    "PhobertTokenizer": "code of its own applies its merges to words that VnCoreNLP has segmented",
}

FIX = 'save one with transformers.AutoTokenizer.from_pretrained("...").save_pretrained("...")'


@dataclass(frozen=True)
class Converted:
    """The content of a tokenizer.json, the text of each special token by role, and a description for the manifest."""

    state: dict[str, Any]
    special: Mapping[str, str]
    change: str


def convert(facts: Facts) -> Converted:
    """Build tokenizer.json from the older vocabulary files of a checkpoint; `change` says from which, and how.

    Raises ModelFilesError for files that are missing, broken, or say too little; UnsupportedError for a tokenizer
    class that is not in the table.
    """
    folder, config = facts.transformer_folder, facts.tokenizer_config
    name, origin = _class(facts)
    tokenizer_class = CLASSES[name]
    missing = [file for file in tokenizer_class.files if not (folder / file).is_file()]
    if missing:
        raise ModelFilesError(f"{folder} has no tokenizer.json, and no {', '.join(missing)} for its {name}; {FIX}")
    source = CheckpointVocabulary(folder, config, read_special_tokens(folder, config, OF_CLASS[name]))
    files = " and ".join(tokenizer_class.files)
    with foreign_errors(f"{folder}: no tokenizer could be built from {files}"):
        vocabulary = tokenizer_class.read(source)
        tokenizer = tokenizer_class.build(source, vocabulary.contents)
        source.special.add_to(tokenizer, vocabulary.marked)
        tokenizer.post_processor = tokenizer_class.post_processor(source, tokenizer)
        state: dict[str, Any] = json.loads(tokenizer.to_str())
    _check_size(facts, tokenizer, files)
    special = {role: str(token) for role, token in source.special.named.items()}
    return Converted(state, special, f"built from {files} as {name} ({origin}){vocabulary.left_out}")


def _check_size(facts: Facts, tokenizer: Tokenizer, files: str) -> None:
    """Refuse a vocabulary of another model: every id that it gives must have a row in this model's table."""
    rows = facts.config.get("vocab_size")
    tokens = tokenizer.get_vocab_size(with_added_tokens=False)
    if rows is not None and max(tokens, *(index + 1 for index in tokenizer.encode("").ids), 0) > rows:
        raise ModelFilesError(
            f"{facts.transformer_folder}: the {tokens} tokens of {files} and the special tokens around a text "
            f"do not fit config.json's vocab_size of {rows}: this is another model's vocabulary"
        )


def _class(facts: Facts) -> tuple[str, str]:
    """The tokenizer class, by its name without "Fast", and where it is named."""
    for file, config in (("tokenizer_config.json", facts.tokenizer_config), ("config.json", facts.config)):
        named = config.get("tokenizer_class")
        if named is not None:
            if (name := str(named).removesuffix("Fast")) in SLOW:
                raise UnsupportedError(
                    f"{facts.transformer_folder / file}: tokenizer_class {named!r} has no tokenizer.json, and "
                    f"transformers cannot write one: {SLOW[name]}, which the tokenizers library does not do"
                )
            if name not in CLASSES:
                raise UnsupportedError(
                    f"{facts.transformer_folder / file}: tokenizer_class {named!r} has no tokenizer.json and is not "
                    f"one that can be converted ({', '.join(CLASSES)}); {FIX}"
                )
            return name, f"{file}: tokenizer_class"
    architecture = ARCHITECTURES.get(facts.model_type)
    if architecture is None or architecture.tokenizer_class is None:
        raise ModelFilesError(
            f"{facts.transformer_folder} has no tokenizer.json, and neither tokenizer_config.json nor config.json "
            f"names a tokenizer_class, which {facts.model_type} does not imply; {FIX}"
        )
    return architecture.tokenizer_class, f"the class of {facts.model_type}"
