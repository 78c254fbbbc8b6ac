"""The artifact's tokenizer files: tokenizer.json alone must give the reference's ids, truncation included."""

from __future__ import annotations

from pathlib import Path

from onnxembed.decisions.encoder import EncoderDecisions
from onnxembed.export.tokenizer.conversion import convert
from onnxembed.facts.facts import Facts
from onnxembed.json_file import write_json
from onnxembed.tokenizer.as_read import adapt, adapt_stored
from onnxembed.tokenizer.token_ids import special_tokens


def write_tokenizer(facts: Facts, encoder: EncoderDecisions, folder: Path) -> tuple[str, ...]:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json.

    tokenizer.json is the source's own, or built from its older vocabulary files. Returns descriptions of
    what was built and changed, for the manifest.
    """
    source = facts.transformer_folder / "tokenizer.json"
    converted = None if source.is_file() else convert(facts)
    if converted:
        text, changes = adapt(facts, encoder, converted.state, facts.transformer_folder)
        changes = (converted.change, *changes)
    else:
        text, changes = adapt_stored(facts, encoder, source)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    config = {**facts.tokenizer_config, "model_max_length": encoder.max_length.value}
    write_json(folder / "tokenizer_config.json", config)
    # FastEmbed and older readers require it, and transformers 5 no longer writes it.
    write_json(folder / "special_tokens_map.json", special_tokens(facts, converted.special if converted else {}))
    return changes
