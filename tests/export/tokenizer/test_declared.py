"""Tokens that other files declare beside tokenizer.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onnxembed import OnnxEmbedder
from onnxembed.export.pipeline import export
from tiny import VOCAB, change_json, write_json, write_sentence_bert

NUMBER = len(set(VOCAB))
TOKEN = {
    "content": "[QRY]",
    "lstrip": False,
    "normalized": False,
    "rstrip": False,
    "single_word": False,
    "special": True,
}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer_config.json", {"added_tokens_decoder": {str(NUMBER): TOKEN}}),
        ("tokenizer_config.json", {"additional_special_tokens": ["[QRY]"]}),
        ("tokenizer_config.json", {"extra_special_tokens": ["[QRY]"]}),
        ("tokenizer_config.json", {"query_token": "[QRY]"}),
        ("added_tokens.json", {"[QRY]": NUMBER}),
    ],
)
def test_declared_tokens_are_registered_as_transformers_registers_them(
    tmp_path: Path, file: str, content: dict[str, Any]
) -> None:
    folder = write_sentence_bert(tmp_path / "model", vocab_size=len(VOCAB) + 1)
    if not (folder / file).is_file():
        write_json(folder / file, {})
    change_json(folder / file, **content)
    manifest = export(folder, tmp_path / "out")
    with OnnxEmbedder(tmp_path / "out", providers="cpu") as model:
        ids = model.tokenize(["[QRY] the"])[0].ids.tolist()
    assert len(ids) == 4
    assert any("'[QRY]'" in change for change in manifest.tokenization.changes)
