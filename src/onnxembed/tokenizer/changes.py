"""Changes to tokenizer.json for the model's class and the decisions, so that it alone gives the reference's ids."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tokenizers import Tokenizer

from onnxembed.decisions.encoder import UNBOUNDED, EncoderDecisions
from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.facts.facts import Facts
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.foreign_errors import foreign_errors
from onnxembed.tokenizer.end_token import append_end_token
from onnxembed.tokenizer.texts import open_tokenizer


@dataclass(frozen=True)
class ClassOptions:
    """The options that a transformers class sets in one part of tokenizer.json, overriding what the file says.

    `part_type` is the type that the part must have. `options` maps each option to its key in tokenizer_config.json,
    and to the class's default, used when the key is absent.
    """

    part: str
    part_type: str
    options: Mapping[str, tuple[str, bool | None]]


# Of a block of the regular expression that counts them: its engine repeats nothing more often than 100,000 times.
CHARACTERS = 1000

BERT = ClassOptions(
    part="normalizer",
    part_type="BertNormalizer",
    options={
        "lowercase": ("do_lower_case", True),
        "strip_accents": ("strip_accents", None),
        "handle_chinese_chars": ("tokenize_chinese_chars", True),
    },
)
ROBERTA = ClassOptions("pre_tokenizer", "ByteLevel", {"add_prefix_space": ("add_prefix_space", False)})

# By the class that transformers reads tokenizer.json with.
CLASS_OPTIONS = {
    "BertTokenizer": BERT,
    "DistilBertTokenizer": BERT,
    "MPNetTokenizer": BERT,
    "RobertaTokenizer": ROBERTA,
}


def apply_decisions(
    facts: Facts, encoder: EncoderDecisions, state: dict[str, Any], source: Path
) -> tuple[str, tuple[str, ...]]:
    """Apply every decision to a tokenizer.json; returns its new text and a description of each change.

    `state` is the content of the file `source`, and is modified. Raises ModelFilesError for a tokenizer that cannot
    be read or contradicts the other files, UsageError for a maximum length that special tokens alone fill.
    """
    changes = [
        *_without_specials(facts, state),
        *_cut_characters(facts, encoder, state),
        *_lower_case(encoder, state),
        *_end(encoder, state),
        *_truncate(encoder, state, source),
    ]
    if state.get("padding") is not None:
        state["padding"] = None
        changes.append("padding removed: the runtime decides how to batch")
    text = json.dumps(state, ensure_ascii=False)  # not indented: a large vocabulary would take seconds
    _check(text, source, encoder)
    return text, tuple(changes)


def apply_class_options(facts: Facts, name: str | None, state: dict[str, Any]) -> Iterator[str]:
    """Change tokenizer.json as the class of this name does when it loads the file; yields a description per change."""
    class_options = CLASS_OPTIONS.get(name or "")
    part = state.get(class_options.part) if class_options else None
    if class_options is None or not isinstance(part, dict) or part.get("type") != class_options.part_type:
        return
    state[class_options.part] = part = dict(part)
    for option, (key, default) in class_options.options.items():
        value = facts.tokenizer_config.get(key, default)
        if part.get(option) != value:
            part[option] = value
            origin = key if key in facts.tokenizer_config else f"no {key}, the default of {name}"
            yield f"{class_options.part_type}: {option} set to {json.dumps(value)} (tokenizer_config.json: {origin})"


def _without_specials(facts: Facts, state: dict[str, Any]) -> Iterator[str]:
    if MODEL_TYPES[facts.model_type].static and state.get("post_processor") is not None:
        state["post_processor"] = None
        yield "special tokens removed: a static embedding averages the text's own tokens"


def _cut_characters(facts: Facts, encoder: EncoderDecisions, state: dict[str, Any]) -> Iterator[str]:
    """Cut a text before it is tokenized, at the limit times the median length of a token, as model2vec does.

    Reference: model2vec 0.10, StaticModel.encode. A normalizer does it: what matches after the characters to keep
    (`\\K`) is removed.
    """
    if facts.model_type != "model2vec" or encoder.max_length.value >= UNBOUNDED:
        return
    with foreign_errors("tokenizer.json cannot be read by the tokenizers library"):
        tokens = Tokenizer.from_str(json.dumps(state)).get_vocab()
    kept = encoder.max_length.value * int(median(map(len, tokens)))
    blocks, rest = divmod(
        kept, CHARACTERS
    )  # the engine of regular expressions repeats nothing more often than 100,000 times
    pattern = f"(?m)\\A(?:.{{{CHARACTERS}}}){{{blocks}}}.{{{rest}}}\\K.+"
    cut = {"type": "Replace", "pattern": {"Regex": pattern}, "content": ""}
    normalizer = state.get("normalizer")
    state["normalizer"] = {"type": "Sequence", "normalizers": [cut, *([normalizer] if normalizer else [])]}
    yield f"texts cut to {kept} characters, the limit times the median length of a token, as model2vec cuts them"


def _lower_case(encoder: EncoderDecisions, state: dict[str, Any]) -> Iterator[str]:
    """Lower-case first, if sentence-transformers' file asks for it and the normalizer does not do it already."""
    normalizer = state.get("normalizer")
    if encoder.lower_case.value and not _lowercases(normalizer):
        steps = [{"type": "Lowercase"}, *([normalizer] if normalizer else [])]
        state["normalizer"] = {"type": "Sequence", "normalizers": steps}
        yield f"lower-casing added ({encoder.lower_case.reason})"


def _lowercases(normalizer: Any) -> bool:
    """Whether a normalizer of tokenizer.json, or one inside it, already lower-cases."""
    if not isinstance(normalizer, dict):
        return False
    normalizer_type = normalizer.get("type")
    if normalizer_type == "Sequence":
        return any(_lowercases(step) for step in normalizer.get("normalizers", ()))
    return normalizer_type == "Lowercase" or (normalizer_type == "BertNormalizer" and bool(normalizer.get("lowercase")))


def _end(encoder: EncoderDecisions, state: dict[str, Any]) -> Iterator[str]:
    wanted = encoder.end_token
    if wanted and append_end_token(state, wanted.value):
        yield f"{wanted.value} added to the end of every text ({wanted.reason})"


def _truncate(encoder: EncoderDecisions, state: dict[str, Any], source: Path) -> Iterator[str]:
    limit, side = encoder.max_length, encoder.truncation_side
    stored = state.get("truncation") or {}
    if not isinstance(stored, dict):
        raise ModelFilesError(f"{source}: truncation is {stored!r}, not an object")
    if side.origin == "architecture" and stored.get("direction", "Right") != "Right":
        raise ModelFilesError(
            f"{source} cuts texts at their start, and tokenizer_config.json says nothing about it; "
            "set its truncation_side to left or right"
        )
    truncation = {
        "direction": side.value.capitalize(),
        "max_length": limit.value,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    if stored != truncation:
        state["truncation"] = truncation
        yield f"truncation to {limit.value} tokens ({limit.reason})"


def _check(text: str, source: Path, encoder: EncoderDecisions) -> None:
    tokenizer = open_tokenizer(source, text)
    specials, limit = tokenizer.num_special_tokens_to_add(False), encoder.max_length
    if specials >= limit.value:
        cause = f"{source} adds {specials} special tokens, which leaves no room in {limit.value} ({limit.reason})"
        raise UsageError(cause) if limit.origin == "flag" else ModelFilesError(cause)
