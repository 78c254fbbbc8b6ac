"""What a model's class and its decisions change in its tokenizer.json, so that it alone gives the reference's ids."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from onnxembed.decisions.encoder import EncoderDecisions
from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.facts.facts import Facts
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.tokenizer.end_token import append_end_token
from onnxembed.tokenizer.texts import tokenizer_errors


@dataclass(frozen=True)
class ClassOptions:
    """What a transformers class sets in tokenizer.json, whatever stands there.

    `options` maps each option of the part to the key of tokenizer_config.json that it is taken from, and
    to the class's value when the key is absent.
    """

    part: str
    kind: str
    options: Mapping[str, tuple[str, bool | None]]


BERT = ClassOptions(
    part="normalizer",
    kind="BertNormalizer",
    options={
        "lowercase": ("do_lower_case", True),
        "strip_accents": ("strip_accents", None),
        "handle_chinese_chars": ("tokenize_chinese_chars", True),
    },
)
ROBERTA = ClassOptions("pre_tokenizer", "ByteLevel", {"add_prefix_space": ("add_prefix_space", False)})

# By tokenizer_class (with or without "Fast" at its end), or by model_type where no class is named.
CLASS_OPTIONS = {
    "BertTokenizer": BERT,
    "DistilBertTokenizer": BERT,
    "ElectraTokenizer": BERT,
    "MPNetTokenizer": BERT,
    "RobertaTokenizer": ROBERTA,
    "bert": BERT,
    "distilbert": BERT,
    "electra": BERT,
    "mpnet": BERT,
    "roberta": ROBERTA,
}


def apply_decisions(
    facts: Facts, encoder: EncoderDecisions, state: dict[str, Any], source: Path
) -> tuple[str, tuple[str, ...]]:
    """The text of a tokenizer.json that does all that was decided, and what was changed in it, in words.

    `state` is what the file `source` holds, and is changed. Raises ModelFilesError for a tokenizer that cannot
    be read or contradicts the other files, UsageError for a maximum length that special tokens alone fill.
    """
    changes = [
        *_without_specials(facts, state),
        *_lower_case(encoder, state),
        *_end(encoder, state),
        *_truncate(encoder, state, source),
    ]
    if state.get("padding") is not None:
        state["padding"] = None
        changes.append("padding taken out: the runtime decides how to batch")
    text = json.dumps(state, ensure_ascii=False)  # not indented: a large vocabulary would take seconds
    _check(text, source, encoder)
    return text, tuple(changes)


def apply_class_options(facts: Facts, state: dict[str, Any]) -> Iterator[str]:
    """Do to tokenizer.json what the transformers class does to it when it is loaded."""
    named = facts.tokenizer_config.get("tokenizer_class") or facts.config.get("tokenizer_class") or facts.model_type
    known = CLASS_OPTIONS.get(str(named).removesuffix("Fast"))
    part = state.get(known.part) if known else None
    if known is None or not isinstance(part, dict) or part.get("type") != known.kind:
        return
    state[known.part] = part = dict(part)
    for option, (key, default) in known.options.items():
        value = facts.tokenizer_config.get(key, default)
        if part.get(option) != value:
            part[option] = value
            origin = key if key in facts.tokenizer_config else f"no {key}, the default of {named}"
            yield f"{known.kind}: {option} set to {json.dumps(value)} (tokenizer_config.json: {origin})"


def _without_specials(facts: Facts, state: dict[str, Any]) -> Iterator[str]:
    if MODEL_TYPES[facts.model_type].static and state.get("post_processor") is not None:
        state["post_processor"] = None
        yield "special tokens taken out: a static embedding averages the text's own tokens"


def _lower_case(encoder: EncoderDecisions, state: dict[str, Any]) -> Iterator[str]:
    """Lower-case before everything else when sentence-transformers' file asks for it and nothing does it yet."""
    normalizer = state.get("normalizer")
    if encoder.lower_case.value and not _lowercases(normalizer):
        steps = [{"type": "Lowercase"}, *([normalizer] if normalizer else [])]
        state["normalizer"] = {"type": "Sequence", "normalizers": steps}
        yield f"lower-casing added ({encoder.lower_case.reason})"


def _lowercases(normalizer: Any) -> bool:
    """Whether a normalizer of tokenizer.json, or one inside it, already lower-cases."""
    if not isinstance(normalizer, dict):
        return False
    kind = normalizer.get("type")
    if kind == "Sequence":
        return any(_lowercases(step) for step in normalizer.get("normalizers", ()))
    return kind == "Lowercase" or (kind == "BertNormalizer" and bool(normalizer.get("lowercase")))


def _end(encoder: EncoderDecisions, state: dict[str, Any]) -> Iterator[str]:
    wanted = encoder.end_token
    if wanted and append_end_token(state, wanted.value):
        yield f"{wanted.value} added to the end of every text ({wanted.reason})"


def _truncate(encoder: EncoderDecisions, state: dict[str, Any], source: Path) -> Iterator[str]:
    limit, side = encoder.max_length, encoder.truncation_side
    stored = state.get("truncation") or {}
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
    with tokenizer_errors(f"{source} is not a tokenizer the tokenizers library can read"):
        tokenizer = Tokenizer.from_str(text)
    specials, limit = tokenizer.num_special_tokens_to_add(False), encoder.max_length
    if specials >= limit.value:
        cause = f"{source} adds {specials} special tokens, which leaves no room in {limit.value} ({limit.reason})"
        raise UsageError(cause) if limit.origin == "flag" else ModelFilesError(cause)
