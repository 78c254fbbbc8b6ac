"""Other tokenizers of the same vocabulary: what libraries change when they load or rebuild a tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

Part = dict[str, Any]

Parts = dict[str, Part | None]
"""The normalizer and the pre_tokenizer of a tokenizer.json."""

_NAMES = ("normalizer", "pre_tokenizer")

# A tokenizer without words, to read parts with: that of the model may have hundreds of thousands.
_EMPTY = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"": 0}, "unk_token": ""}, "added_tokens": []}


def parts_of(tokenizer: Any) -> Parts:
    """The parts of a tokenizer of the tokenizers library."""
    state = json.loads(tokenizer.to_str())
    return {name: state.get(name) for name in _NAMES}


def set_parts(tokenizer: Any, parts: Parts) -> None:
    """Give a tokenizer of the tokenizers library these parts."""
    from tokenizers import Tokenizer

    read = Tokenizer.from_str(json.dumps({**_EMPTY, **parts}))
    tokenizer.normalizer, tokenizer.pre_tokenizer = read.normalizer, read.pre_tokenizer


def keeping_case(parts: Parts) -> Parts:
    """The parts of a tokenizer that does not lower-case any more."""
    return {**parts, "normalizer": _changed(parts["normalizer"], "normalizers", _without_lower_case)}


def variants(parts: Parts) -> dict[str, Parts]:
    """Other parts, by what they do, as a clause about "them"."""
    made: dict[str, Parts] = {}
    for words, (name, several, change) in _CHANGES.items():
        changed = {**parts, name: _changed(parts[name], several, change)}
        if changed != parts:
            made[words] = changed
    return made


def _changed(part: Any, several: str, change: Callable[[Part], Part | None]) -> Any:
    """A part of a tokenizer.json with a change to each of its steps; None where nothing is left."""
    if not isinstance(part, dict):
        return part
    if part["type"] == "Sequence":
        steps = [_changed(step, several, change) for step in part[several]]
        return {**part, several: [step for step in steps if step is not None]}
    return change(part)


def _without_lower_case(step: Part) -> Part | None:
    if step["type"] == "Lowercase":
        return None
    return {**step, "lowercase": False} if step["type"] == "BertNormalizer" else step


def _set(step: Part, part_type: str, **values: Any) -> Part:
    return {**step, **values} if step["type"] == part_type else step


def _other_accents(step: Part) -> Part:
    if step["type"] != "BertNormalizer":
        return step
    stripped = step["lowercase"] if step.get("strip_accents") is None else step["strip_accents"]
    return {**step, "strip_accents": not stripped}


def _other_prefix_space(step: Part) -> Part:
    if step["type"] == "ByteLevel":
        return {**step, "add_prefix_space": not step["add_prefix_space"]}
    if step["type"] == "Metaspace":
        never = step.get("prepend_scheme") == "never"
        return {**step, "prepend_scheme": "always" if never else "never"}
    return step


def _removed(step: Part) -> None:
    return None


_CHANGES: Mapping[str, tuple[str, str, Callable[[Part], Part | None]]] = {
    "treat accents the other way (strip_accents)": ("normalizer", "normalizers", _other_accents),
    "do not split Chinese characters apart": (
        "normalizer",
        "normalizers",
        partial(_set, part_type="BertNormalizer", handle_chinese_chars=False),
    ),
    "do not clean control characters": (
        "normalizer",
        "normalizers",
        partial(_set, part_type="BertNormalizer", clean_text=False),
    ),
    "treat the space before the first word the other way (add_prefix_space)": (
        "pre_tokenizer",
        "pretokenizers",
        _other_prefix_space,
    ),
    "do not normalize texts (no Unicode normal form, no lower case)": ("normalizer", "normalizers", _removed),
}
