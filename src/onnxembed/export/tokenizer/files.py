"""The artifact's tokenizer files: tokenizer.json alone must give the reference's ids, truncation included."""

from __future__ import annotations

from pathlib import Path

from onnxembed.decisions.encoder import EncoderDecisions
from onnxembed.export.tokenizer import around, rebuilt, rows
from onnxembed.export.tokenizer.vocabularies import convert
from onnxembed.facts.facts import Facts
from onnxembed.facts.json_file import read_json, write_json
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.facts.token_ids import ids_of
from onnxembed.tokenizer import declared, markers
from onnxembed.tokenizer.changes import apply_class_options, apply_decisions
from onnxembed.tokenizer.token_ids import special_tokens


def write_tokenizer(facts: Facts, encoder: EncoderDecisions, folder: Path) -> tuple[str, ...]:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json.

    tokenizer.json is the source's own, or built from its older vocabulary files. Returns descriptions of
    what was built and changed, for the manifest.
    """
    source = facts.transformer_folder / "tokenizer.json"
    converted = None if source.is_file() else convert(facts)
    state = converted.state if converted else dict(read_json(source))
    ids_of(state, source)  # refuses ids that no library can hold
    read = [converted.change] if converted else [*apply_class_options(facts, state)]
    if not converted and not MODEL_TYPES[facts.model_type].static:
        read += rebuilt.follow_class(facts, state)
    if not converted:
        read += declared.register(facts, state)
    read += rows.check(facts, state, source if source.is_file() else facts.transformer_folder)
    read += markers.register(facts, state)
    text, changes = apply_decisions(facts, encoder, state, source)
    if not converted and not encoder.end_token and not MODEL_TYPES[facts.model_type].static:
        around.check(facts, state)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    config = {**facts.tokenizer_config, "model_max_length": encoder.max_length.value}
    write_json(folder / "tokenizer_config.json", config)
    # FastEmbed and older readers require it, and transformers 5 no longer writes it.
    write_json(folder / "special_tokens_map.json", special_tokens(facts, converted.special if converted else {}))
    return (*read, *changes)
