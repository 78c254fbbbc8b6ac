"""The model card: metadata that the hub reads, words that are true, code that runs, and the license of the source."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hub_server import HubServer
from onnxembed import OnnxEmbedder, commands
from onnxembed.export.artifact.model_card import license_of, read_metadata
from onnxembed.manifest import CARD_FILE, FILE_NAME, read_manifest
from running import needs_torch
from tiny import write_bert, write_sentence_bert
from tiny_heads import write_colbert_encoder, write_masked_lm
from tiny_rerankers import write_cross_encoder

SOURCE_CARD = """---
license: apache-2.0
language:
- en
- de
base_model: org/base
tags: [somebody-else, transformers]
datasets: [secret]
pipeline_tag: text-generation
---
# A model
"""


@pytest.fixture
def licensed(checkpoint: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "licensed"
    shutil.copytree(checkpoint, folder)
    (folder / CARD_FILE).write_text(SOURCE_CARD)
    (folder / "LICENSE.txt").write_text("the terms")
    (folder / "NOTICE").write_text("a notice")
    return folder


def test_metadata_and_license_of_the_source_are_carried_over(licensed: Path, tmp_path: Path) -> None:
    made = commands.export(licensed, tmp_path / "out", verify=False)
    data = ModelCard.load(made.folder / CARD_FILE).data.to_dict()
    assert data == {
        "license": "apache-2.0",
        "language": ["en", "de"],
        "base_model": "org/base",
        "pipeline_tag": "sentence-similarity",
        "library_name": "onnxembed",
        "tags": ["onnx", "onnxembed", "embedding"],
    }
    assert made.manifest.source.license == "apache-2.0"
    assert [(made.folder / name).read_text() for name in ("LICENSE.txt", "NOTICE")] == ["the terms", "a notice"]
    assert {"LICENSE.txt", "NOTICE"} <= made.manifest.files.keys()
    assert CARD_FILE not in made.manifest.files
    assert "see `LICENSE.txt`, `NOTICE`" in (made.folder / CARD_FILE).read_text()
    assert commands.models(made.folder)[0].license == "apache-2.0"


def test_nothing_is_said_of_a_license_that_nobody_states(checkpoint: Path, tmp_path: Path) -> None:
    made = commands.export(checkpoint, tmp_path / "out", verify=False)
    card = ModelCard.load(made.folder / CARD_FILE)
    assert {"license", "base_model"}.isdisjoint(card.data.to_dict())
    assert "name no license" in card.text
    assert str(checkpoint.parent) not in card.content  # a path says nothing of the model


@pytest.mark.hub
def test_a_model_of_the_hub_is_the_base_of_its_graphs(
    licensed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HubServer({}) as hub:
        hub.answer(monkeypatch)
        commit = hub.push("org/tiny", licensed)
        made = commands.export("org/tiny", tmp_path / "out", verify=False, cache_dir=tmp_path / "cache")
    card = ModelCard.load(made.folder / CARD_FILE)
    assert card.data.base_model == "org/tiny"
    assert f"[org/tiny](https://huggingface.co/org/tiny) at {commit}" in card.text


@pytest.mark.parametrize(
    ("text", "license"),
    [
        ("no metadata", None),
        ("---\nlicense: [mit\n---\n", None),
        ("---\n- a list\n---\n", None),
        ("---\nlicense: 3\n---\n", None),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        ("---\nlicense: other\nlicense_name: gemma\n---\n", "gemma"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        pytest.param("\ufeff---\nlicense: mit\n---\n", "mit", marks=pytest.mark.hub),  # read since 1.0
        ("---\nlicense: " + "[" * 5000 + "\n---\n", None),
    ],
)
def test_a_card_that_cannot_be_read_says_nothing(tmp_path: Path, text: str, license: str | None) -> None:
    (tmp_path / CARD_FILE).write_bytes(text.encode())
    assert license_of(read_metadata(tmp_path)) == license


def test_a_card_that_is_no_text_stops_nothing(licensed: Path, tmp_path: Path) -> None:
    (licensed / CARD_FILE).write_bytes(b"\xff\xfe\x00")
    assert commands.export(licensed, tmp_path / "out", verify=False).manifest.source.license is None


def test_the_card_changes_no_other_file(licensed: Path, checkpoint: Path, tmp_path: Path) -> None:
    plain = commands.export(checkpoint, tmp_path / "plain", verify=False).manifest.files
    carried = commands.export(licensed, tmp_path / "carried", verify=False).manifest.files
    assert {name: carried[name] for name in plain} == plain


def write_sparse_encoder(folder: Path) -> Path:
    return write_masked_lm(folder, pooling={"pooling_strategy": "max"})


@pytest.mark.parametrize(
    "write", [write_sentence_bert, write_sparse_encoder, write_colbert_encoder, write_cross_encoder]
)
def test_the_code_of_the_card_runs(
    write: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = commands.export(write(tmp_path / "checkpoint"), tmp_path / "out", verify=False)
    card = ModelCard.load(made.folder / CARD_FILE)
    (code,) = re.findall(r"```python\n(.*?)```", card.text, flags=re.DOTALL)
    exec(code.replace("FOLDER", str(made.folder)), {})
    assert capsys.readouterr().out
    for task in made.manifest.tasks:
        assert task.replace("_", "-") in card.data.tags


def test_the_card_says_what_inspect_says(tmp_path: Path) -> None:
    source = write_bert(tmp_path / "bare", hidden_act="gelu")
    made = commands.export(source, tmp_path / "out", pooling="mean", normalize=False, max_length=9, verify=False)
    text = (made.folder / CARD_FILE).read_text()
    assert "| pooling | mean (flag: --pooling), in the graph |" in text
    assert "these are not the model's own vectors: --max-length: 9 instead of 64" in text
    assert "Not compared with the original model." in text
    assert "| fp32 graph | `onnx/model.onnx`, 0.1 MB |" in text


def test_an_edited_card_breaks_nothing(licensed: Path, tmp_path: Path) -> None:
    made = commands.export(licensed, tmp_path / "out", verify=False)
    (made.folder / CARD_FILE).write_text("mine")
    with OnnxEmbedder(made.folder) as model:
        assert model.encode("the cat").shape == (32,)


@needs_torch
@pytest.mark.torch
def test_a_verification_writes_its_figures_into_the_card_and_leaves_the_rest(licensed: Path, tmp_path: Path) -> None:
    folder = commands.export(licensed, tmp_path / "out", verify=False).folder
    before = (folder / CARD_FILE).read_text()
    assert "Not compared" in before
    (folder / CARD_FILE).write_text(f"{before}\nwords of my own")
    figure = commands.verify(folder).verification["fp32"]
    after = (folder / CARD_FILE).read_text()
    assert f"max abs difference {figure.max_abs_diff:.1e}" in after
    assert "Not compared" not in after
    assert after.endswith("words of my own")
    made = commands.export(licensed, tmp_path / "again")
    assert (made.folder / CARD_FILE).read_text() == after.removesuffix("\nwords of my own")
    (folder / CARD_FILE).write_text("no place for figures")
    commands.verify(folder)
    assert (folder / CARD_FILE).read_text() == "no place for figures"
    assert read_manifest(folder).verification
    assert (folder / FILE_NAME).is_file()
