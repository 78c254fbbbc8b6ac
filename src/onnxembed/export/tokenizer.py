"""The artefact's tokenizer files: tokenizer.json alone must give the reference's ids, truncation included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from onnxembed.errors import ModelFilesError
from onnxembed.export.artifact import write_json
from onnxembed.facts import Facts, read_json
from onnxembed.resolve import Decisions

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


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
    changes = []
    truncation = {
        "direction": decisions.truncation_side.value.capitalize(),
        "max_length": decisions.max_length.value,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    if state.get("truncation") != truncation:
        state["truncation"] = truncation
        changes.append(f"truncation to {decisions.max_length.value} tokens ({decisions.max_length.reason})")
    if state.get("padding") is not None:
        state["padding"] = None
        changes.append("padding taken out: the runtime decides how to batch")
    if decisions.lower_case.value and not _lowercases(state.get("normalizer")):
        normalizer = state.get("normalizer")
        steps = [{"type": "Lowercase"}, *([normalizer] if normalizer else [])]
        state["normalizer"] = {"type": "Sequence", "normalizers": steps}
        changes.append(f"lower-casing added ({decisions.lower_case.reason})")
    text = json.dumps(state, indent=2, ensure_ascii=False)
    _check(text, source, decisions.max_length.value)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    config = {**facts.tokenizer_config, "model_max_length": decisions.max_length.value}
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", _special_tokens(facts))
    return tuple(changes)


def _lowercases(normalizer: Any) -> bool:
    """Whether a normaliser of tokenizer.json, or one inside it, already lower-cases."""
    if not isinstance(normalizer, dict):
        return False
    kind = normalizer.get("type")
    if kind == "Sequence":
        return any(_lowercases(step) for step in normalizer.get("normalizers", ()))
    return kind == "Lowercase" or (kind == "BertNormalizer" and bool(normalizer.get("lowercase")))


def _check(text: str, source: Path, max_length: int) -> None:
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ModelFilesError(f"{source} is not a tokenizer the tokenizers library can read: {error}") from error
    specials = tokenizer.num_special_tokens_to_add(False)
    if specials >= max_length:
        raise ModelFilesError(f"{source} adds {specials} special tokens, which leaves no room in {max_length} tokens")


def _special_tokens(facts: Facts) -> dict[str, Any]:
    """The map that FastEmbed and older readers require and transformers 5 no longer writes."""
    path = facts.transformer_folder / "special_tokens_map.json"
    if path.is_file():
        return dict(read_json(path))
    config = facts.tokenizer_config
    return {name: config[name] for name in SPECIAL_TOKENS if config.get(name) is not None}
