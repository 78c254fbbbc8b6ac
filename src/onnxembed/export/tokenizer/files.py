"""The artifact's tokenizer files: tokenizer.json alone must give the reference's ids, truncation included."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxembed.decisions.encoder import EncoderDecisions
from onnxembed.export.tokenizer import markers
from onnxembed.export.tokenizer.vocabularies import convert
from onnxembed.export.tokenizer.vocabularies.special_tokens import ROLES
from onnxembed.facts.facts import Facts
from onnxembed.facts.json_file import read_json, write_json
from onnxembed.tokenizer.changes import apply_class_options, apply_decisions


def write_tokenizer(facts: Facts, encoder: EncoderDecisions, folder: Path) -> tuple[str, ...]:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json.

    tokenizer.json is the source's own, or built from its older vocabulary files. Returns descriptions of
    what was built and changed, for the manifest.
    """
    source = facts.transformer_folder / "tokenizer.json"
    converted = None if source.is_file() else convert(facts)
    state = converted.state if converted else dict(read_json(source))
    read = [converted.change] if converted else [*apply_class_options(facts, state)]
    read += markers.register(facts, state)
    text, changes = apply_decisions(facts, encoder, state, source)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    config = {**facts.tokenizer_config, "model_max_length": encoder.max_length.value}
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", _special_tokens(facts, converted.special if converted else {}))
    return (*read, *changes)


def _special_tokens(facts: Facts, of_class: Mapping[str, str]) -> dict[str, Any]:
    """The map that FastEmbed and older readers require, and that transformers 5 no longer writes.

    `of_class` are the tokens of a converted tokenizer's class, which its files need not name.
    """
    path = facts.transformer_folder / "special_tokens_map.json"
    if path.is_file():
        return dict(read_json(path))
    config = facts.tokenizer_config
    tokens = {**of_class, **{name: config[name] for name in ROLES if config.get(name) is not None}}
    return {name: token["content"] if isinstance(token, dict) else token for name, token in tokens.items()}
