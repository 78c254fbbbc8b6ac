"""How a text is prepared and cut, by tokenizer.json and by the class that transformers rebuilds from it.

The class takes the vocabulary of the file and prepares texts in its own way. What transformers does is followed, and
said; a vocabulary of another kind than the class's is refused, because the class makes nonsense of it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.facts.facts import Facts
from onnxembed.facts.tokenizer_class import OVERRULING
from onnxembed.foreign_errors import foreign_errors
from onnxembed.proof.probes import PROBES
from onnxembed.tokenizer.special_tokens import OF_CLASS, read_special_tokens
from onnxembed.tokenizer.vocabularies import CLASSES
from onnxembed.tokenizer.vocabularies.tokenizer_class import CheckpointVocabulary, Contents

PARTS = ("normalizer", "pre_tokenizer", "model")

# Where the pipelines of the classes differ most: spaces, lines, accents, widths, digits, contractions, signs.
PROBES_OF_CLASSES = (
    "a  b   c",
    " a\n\nb\tc ",
    "it's I'LL 12345 3.14",
    "``quoted'' \u2018quoted\u2019",
    "ﬁ Å \uff21\uff11 ½",
    "e\u0301 \u00e9 \u0130I\u0307",
    "a\u00a0b\u200bc\u00add",
    "日本 に한국",
    "snake_case CamelCase a-b/c",
)


def follow_class(facts: Facts, name: str | None, state: dict[str, Any]) -> Iterator[str]:
    """Change tokenizer.json where the class of this name gives other ids of a text; yields what was changed.

    Raises ModelFilesError for a vocabulary of another kind than the class's; UnsupportedError for a class that is not
    built here.
    """
    if name is None:
        return
    folder, file = facts.transformer_folder, facts.transformer_folder / "tokenizer.json"
    if name not in CLASSES:
        raise UnsupportedError(
            f"{file}: transformers reads it as {name}, which prepares texts in a way that onnxembed does not build; "
            f"{_cure(facts, name)}"
        )
    with foreign_errors(f"{file} is not a tokenizer that the tokenizers library can read"):
        stored = Tokenizer.from_str(json.dumps({**state, "truncation": None, "padding": None}))
    content: dict[str, Any] = json.loads(stored.to_str())
    if (kind := content["model"]["type"]) != CLASSES[name].model:
        raise ModelFilesError(
            f"{file}: its vocabulary is a {kind}, but transformers reads it as {name}, which needs a "
            f"{CLASSES[name].model}; {_cure(facts, name)}"
        )
    with foreign_errors(f"{file} and {folder / 'tokenizer_config.json'} do not go together"):
        special = read_special_tokens(folder, facts.tokenizer_config, OF_CLASS[name])
        source = CheckpointVocabulary(folder, facts.tokenizer_config, special)
        built: dict[str, Any] = json.loads(CLASSES[name].build(source, _contents(content)).to_str())
    with foreign_errors(f"{file} cannot tokenize a text, as it is or with the special tokens of tokenizer_config.json"):
        text = _told_apart(stored, content, built)
    if text is not None:
        state.update({part: built[part] for part in PARTS})
        yield (
            f"texts prepared and cut as {name} does, as which transformers reads tokenizer.json; by the file alone, "
            f"{text[:40]!r} has other ids ({_cure(facts, name)})"
        )


def _contents(content: Mapping[str, Any]) -> Contents:
    """The vocabulary of a tokenizer.json, as `TokenizersBackend.convert_to_native_format` takes it out."""
    model = content["model"]
    vocab = model["vocab"]
    merges = [tuple(merge) for merge in model.get("merges", ())]
    return Contents(vocab if isinstance(vocab, dict) else [tuple(piece) for piece in vocab], merges, _charsmap(content))


def _charsmap(content: Mapping[str, Any]) -> bytes | None:
    normalizer = content["normalizer"] or {}
    steps = normalizer.get("normalizers", [normalizer])
    tables = [step["precompiled_charsmap"] for step in steps if step.get("type") == "Precompiled"]
    return base64.b64decode(tables[0]) if tables else None


def _told_apart(stored: Tokenizer, content: dict[str, Any], built: dict[str, Any]) -> str | None:
    """A text of which the class makes other ids than the file; None where all probes have the same."""
    if all(content[part] == built[part] for part in PARTS):
        return None
    rebuilt = Tokenizer.from_str(json.dumps({**content, **{part: built[part] for part in PARTS}}))
    for text in (*PROBES, *PROBES_OF_CLASSES, *_of_vocabulary(stored)):
        ours, theirs = (each.encode(text, add_special_tokens=False).ids for each in (stored, rebuilt))
        if ours != theirs:
            return text
    return None


def _of_vocabulary(tokenizer: Tokenizer) -> Iterator[str]:
    """Texts of a small vocabulary, to which all other probes may be unknown: tokens with and without spaces."""
    vocab = sorted(tokenizer.get_vocab(with_added_tokens=False))
    tokens = [token.strip("#▁ĠĊ") for token in vocab[:: max(1, len(vocab) // 64)]]
    yield " ".join(tokens)
    yield "".join(tokens)
    yield "  ".join(token.capitalize() for token in tokens)


def _cure(facts: Facts, name: str) -> str:
    if facts.model_type in OVERRULING:
        return f"a {facts.model_type} model needs the tokenizer.json of a {name}, whatever tokenizer_class says"
    return (
        "if tokenizer.json is what the model was trained with, set tokenizer_class to PreTrainedTokenizerFast "
        "in tokenizer_config.json"
    )
