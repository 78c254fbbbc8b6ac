"""What goes around a text, by tokenizer.json and by the tokenizer's class.

transformers 5 replaces the post-processor of tokenizer.json by the one of the class, made with the special tokens that
tokenizer_config.json and special_tokens_map.json name. Where the two differ, the files contradict each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from onnxembed.errors import ModelFilesError
from onnxembed.facts.facts import Facts
from onnxembed.foreign_errors import foreign_errors
from onnxembed.tokenizer.special_tokens import OF_CLASS, read_special_tokens
from onnxembed.tokenizer.vocabularies import CLASSES
from onnxembed.tokenizer.vocabularies.tokenizer_class import CheckpointVocabulary

# The classes whose post-processor does not depend on flags that releases of transformers read differently.
CHECKED = ("BertTokenizer", "DistilBertTokenizer", "MPNetTokenizer", "RobertaTokenizer")

PROBE = "a"


def check(facts: Facts, name: str | None, state: Mapping[str, Any]) -> None:
    """Raise ModelFilesError where the class `name` puts other tokens around a text than tokenizer.json's `state`."""
    if name not in CHECKED:
        return
    folder, file = facts.transformer_folder, facts.transformer_folder / "tokenizer.json"
    with foreign_errors(f"{file} and {folder / 'tokenizer_config.json'} do not go together"):
        tokenizer = Tokenizer.from_str(json.dumps(state))
        tokenizer.no_truncation()
        segments = _has_segments(facts)
        ours = _around(tokenizer, segments)
        special = read_special_tokens(folder, facts.tokenizer_config, OF_CLASS[name])
        source = CheckpointVocabulary(folder, facts.tokenizer_config, special)
        for role in ("cls_token", "sep_token"):
            if tokenizer.token_to_id(special.content(role)) is None:
                raise ModelFilesError(
                    f"{file} has no token {special.content(role)!r}, the {role} of its {name} (as "
                    "tokenizer_config.json, special_tokens_map.json or the class says)"
                )
        tokenizer.post_processor = CLASSES[name].post_processor(source, tokenizer)
        theirs = _around(tokenizer, segments)
    if ours != theirs:
        raise ModelFilesError(
            f"{file} makes {_text(ours)} of {PROBE!r} alone and as a pair, and {_text(theirs)} with the special tokens "
            f"that its {name} has by tokenizer_config.json, which transformers follows: correct the wrong one, or "
            "set tokenizer_class to PreTrainedTokenizerFast to have tokenizer.json followed"
        )


def _has_segments(facts: Facts) -> bool:
    """Whether the reference feeds the segments that the tokenizer sets."""
    names = facts.tokenizer_config.get("model_input_names")
    return facts.config.get("type_vocab_size", 0) != 1 and not (
        isinstance(names, list) and "token_type_ids" not in names
    )


def _around(tokenizer: Tokenizer, segments: bool) -> list[tuple[list[str], list[int], list[int]]]:
    """The tokens, their ids, which a template may give otherwise, and the segments of a text and of a pair."""
    encodings = (tokenizer.encode(PROBE), tokenizer.encode(PROBE, PROBE))
    return [(each.tokens, each.ids, each.type_ids if segments else []) for each in encodings]


def _text(around: list[tuple[list[str], list[int], list[int]]]) -> str:
    """The tokens of a text and of a pair in words, with segments where there are several."""
    texts = (f"{tokens} {ids}" + (f" in segments {types}" if any(types) else "") for tokens, ids, types in around)
    return " and ".join(texts)
