"""The artefact's tokenizer files: tokenizer.json alone must give the reference's ids, truncation included."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.export import end_token
from onnxembed.export.artifact import write_json
from onnxembed.facts import Facts, read_json
from onnxembed.model_types import MODEL_TYPES
from onnxembed.resolve import Decisions

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


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


def write_tokenizer(facts: Facts, decisions: Decisions, folder: Path) -> tuple[str, ...]:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json.

    Returns what was changed against the source's tokenizer.json, in words, for the manifest.
    """
    source = facts.transformer_folder / "tokenizer.json"
    if not source.is_file():
        raise ModelFilesError(
            f"{facts.transformer_folder} has no tokenizer.json; save it once with "
            "transformers.AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    state = dict(read_json(source))
    changes = [
        *_apply_class(facts, state),
        *_without_specials(facts, state),
        *_lower_case(decisions, state),
        *_end(decisions, state),
        *_truncate(decisions, state, source),
    ]
    if state.get("padding") is not None:
        state["padding"] = None
        changes.append("padding taken out: the runtime decides how to batch")
    text = json.dumps(state, indent=2, ensure_ascii=False)
    _check(text, source, decisions)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    config = {**facts.tokenizer_config, "model_max_length": decisions.max_length.value}
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", _special_tokens(facts))
    return tuple(changes)


def _apply_class(facts: Facts, state: dict[str, Any]) -> Iterator[str]:
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


def _lower_case(decisions: Decisions, state: dict[str, Any]) -> Iterator[str]:
    """Lower-case before everything else when sentence-transformers' file asks for it and nothing does it yet."""
    normalizer = state.get("normalizer")
    if decisions.lower_case.value and not _lowercases(normalizer):
        steps = [{"type": "Lowercase"}, *([normalizer] if normalizer else [])]
        state["normalizer"] = {"type": "Sequence", "normalizers": steps}
        yield f"lower-casing added ({decisions.lower_case.reason})"


def _lowercases(normalizer: Any) -> bool:
    """Whether a normaliser of tokenizer.json, or one inside it, already lower-cases."""
    if not isinstance(normalizer, dict):
        return False
    kind = normalizer.get("type")
    if kind == "Sequence":
        return any(_lowercases(step) for step in normalizer.get("normalizers", ()))
    return kind == "Lowercase" or (kind == "BertNormalizer" and bool(normalizer.get("lowercase")))


def _end(decisions: Decisions, state: dict[str, Any]) -> Iterator[str]:
    wanted = decisions.end_token
    if wanted and end_token.complete(state, wanted.value):
        yield f"{wanted.value} added to the end of every text ({wanted.reason})"


def _truncate(decisions: Decisions, state: dict[str, Any], source: Path) -> Iterator[str]:
    limit, side = decisions.max_length, decisions.truncation_side
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


def _check(text: str, source: Path, decisions: Decisions) -> None:
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ModelFilesError(f"{source} is not a tokenizer the tokenizers library can read: {error}") from error
    specials, limit = tokenizer.num_special_tokens_to_add(False), decisions.max_length
    if specials >= limit.value:
        cause = f"{source} adds {specials} special tokens, which leaves no room in {limit.value} ({limit.reason})"
        raise UsageError(cause) if limit.origin == "flag" else ModelFilesError(cause)


def _special_tokens(facts: Facts) -> dict[str, Any]:
    """The map that FastEmbed and older readers require and transformers 5 no longer writes."""
    path = facts.transformer_folder / "special_tokens_map.json"
    if path.is_file():
        return dict(read_json(path))
    config = facts.tokenizer_config
    tokens = {name: config[name] for name in SPECIAL_TOKENS if config.get(name) is not None}
    return {name: token["content"] if isinstance(token, dict) else token for name, token in tokens.items()}
