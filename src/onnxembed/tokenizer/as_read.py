"""A checkpoint's tokenizer, changed so that tokenizer.json alone gives the ids of the reference, as it reads the files.

Exports and adoptions do the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnxembed.decisions.encoder import EncoderDecisions
from onnxembed.facts.facts import Facts
from onnxembed.facts.token_ids import ids_of
from onnxembed.facts.tokenizer_class import rebuilding_class
from onnxembed.json_file import read_json
from onnxembed.tokenizer import declared_tokens, markers, post_processor, rebuilt, rows
from onnxembed.tokenizer.changes import apply_class_options, apply_decisions


def adapt_stored(facts: Facts, encoder: EncoderDecisions, source: Path) -> tuple[str, tuple[str, ...]]:
    """Read the tokenizer.json `source`, and change it as its class and the files beside it do.

    Returns its new text and a description of each change. Raises ModelFilesError where the files contradict each
    other, and the errors of `rebuilt.follow_class` and `apply_decisions`.
    """
    state = dict(read_json(source))
    ids_of(state, source)  # refuses ids that no library can hold
    name = rebuilding_class(facts, state)
    loaded = [
        *apply_class_options(facts, name, state),
        *rebuilt.follow_class(facts, name, state),
        *declared_tokens.register(facts, name, state),
    ]
    text, changes = adapt(facts, encoder, state, source)
    if not encoder.end_token:
        post_processor.check(facts, name, state)
    return text, (*loaded, *changes)


def adapt(facts: Facts, encoder: EncoderDecisions, state: dict[str, Any], source: Path) -> tuple[str, tuple[str, ...]]:
    """Change a tokenizer as the decisions say, one that its class has made included; as for `adapt_stored`.

    `state` is the content of a tokenizer.json, and is modified; `source` is where it comes from.
    """
    found = [*rows.check(facts, state, source), *markers.register(facts, state)]
    text, changes = apply_decisions(facts, encoder, state, source)
    return text, (*found, *changes)
