"""Tokens that the files beside tokenizer.json, or the tokenizer's class, declare."""

from __future__ import annotations

import json
import shutil
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


pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer_config.json", {"added_tokens_decoder": {str(NUMBER): TOKEN}}),
        ("tokenizer_config.json", {"additional_special_tokens": ["[QRY]"]}),
        ("tokenizer_config.json", {"extra_special_tokens": ["[QRY]"]}),
        ("tokenizer_config.json", {"query_token": "[QRY]"}),
        ("tokenizer_config.json", {"model_specific_special_tokens": {"query": "[QRY]"}}),
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
    assert any("'[QRY]'" in change for change in manifest.tokenization.changes)
    assert_ids_are_the_references(folder, tmp_path, "[QRY] the")


@pytest.mark.parametrize("token", ["[MASK]", "[PAD]"])
@pytest.mark.parametrize("kept", [True, False])
def test_the_tokens_of_a_class_are_registered_where_tokenizer_json_lacks_them(
    tmp_path: Path, token: str, kept: bool
) -> None:
    """BertTokenizer has a [MASK], whether or not a file names it; `kept`: the vocabulary has it, as a word."""
    folder = write_sentence_bert(tmp_path / "model", vocab_size=len(VOCAB) + 1)
    state = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    state["added_tokens"] = [entry for entry in state["added_tokens"] if entry["content"] != token]
    if not kept:
        state["model"]["vocab"]["[unused]"] = state["model"]["vocab"].pop(token)
    write_json(folder / "tokenizer.json", state)
    change_json(folder / "tokenizer_config.json", mask_token=None, pad_token=None)
    export(folder, tmp_path / "out")
    assert_ids_are_the_references(folder, tmp_path, f"the {token} of")


def assert_ids_are_the_references(folder: Path, tmp_path: Path, text: str) -> None:
    """The ids of an export, and of its graph alone beside the checkpoint's own files, are those of transformers."""
    transformers = pytest.importorskip("transformers", reason="the reference")
    expected = transformers.AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    foreign = shutil.copytree(folder, tmp_path / "foreign")
    shutil.copytree(tmp_path / "out/onnx", foreign / "onnx")
    for place in (tmp_path / "out", foreign):
        with OnnxEmbedder(place, providers="cpu") as model:
            assert model.tokenize([text])[0].ids.tolist() == expected, place.name
