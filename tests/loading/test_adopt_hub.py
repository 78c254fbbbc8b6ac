"""Repositories of the hub with an ONNX graph from another exporter."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

from foreign import command, foreign, vectors
from hub_server import HubServer
from onnxembed import OnnxEmbedder
from onnxembed.errors import (
    HubError,
    ModelFilesError,
)
from onnxembed.export.adopt import adopt
from onnxembed.hub.source import HubOptions
from onnxembed.manifest import read_manifest
from tiny import change_json
from tiny_embedders import assert_vectors_equal

pytestmark = pytest.mark.hub


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_a_repository_is_adopted_and_then_needs_no_network(
    checkpoint: Path, tmp_path: Path, cache: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign", precisions=("fp32", "fp16"))
    path = folder / "onnx/model.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="model.onnx_data", size_threshold=1024)
    shutil.copy(checkpoint / "model.safetensors", folder)
    with HubServer({"org/model": {"main": folder}}) as hub:
        hub.answer(monkeypatch)
        assert_vectors_equal(vectors("org/model", cache_dir=cache), expected)
        assert "model.safetensors" not in hub.downloaded()
        assert "onnx/model_fp16.onnx" not in hub.downloaded()
        hub.requests.clear()
        with OnnxEmbedder("org/model", cache_dir=cache) as model:
            assert model.revision == model.manifest.source.revision == hub.commit("org/model")
        assert hub.requests == ["GET /api/models/org/model/revision/main"]
        assert_vectors_equal(vectors("org/model", cache_dir=cache, precision="fp16"), expected, atol=1e-2)
        printed = command("inspect", "org/model", "--cache-dir", cache)
        assert "engine           adopted (onnx/model.onnx was made by onnxembed)" in printed
        assert "no hashes recorded, so none are checked" in printed
        out = tmp_path / "out"
        adopt("org/model", out, hub=HubOptions(cache_dir=cache))
        assert read_manifest(out).source.revision == hub.commit("org/model")
    assert_vectors_equal(vectors("org/model", cache_dir=cache, local_files_only=True), expected)
    assert_vectors_equal(vectors(out), expected)
    with pytest.raises(HubError):
        OnnxEmbedder("org/model", cache_dir=cache, local_files_only=True, onnx_file="onnx/other.onnx")


def test_a_manifest_in_the_repository_comes_first(artifact: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer({"org/model": {"main": artifact}}) as hub:
        hub.answer(monkeypatch)
        with OnnxEmbedder("org/model", cache_dir=cache) as model:
            assert model.manifest == read_manifest(artifact)


def test_a_repository_without_a_graph_names_the_export_command(
    checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HubServer({"org/model": {"main": checkpoint}}) as hub:
        hub.answer(monkeypatch)
        with pytest.raises(ModelFilesError, match=r"make one with: onnxembed export org/model -o DIR$"):
            OnnxEmbedder("org/model", cache_dir=cache)
        assert hub.downloaded() == []


def test_the_recipe_of_a_hub_id_is_followed(
    checkpoint: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")
    change_json(folder / "config_sentence_transformers.json", prompts={})
    with HubServer({"intfloat/e5-small-v2": {"main": folder}}) as hub:
        hub.answer(monkeypatch)
        with OnnxEmbedder("intfloat/e5-small-v2", cache_dir=cache) as model:
            prompts = model.manifest.prompts.texts
    assert prompts.origin == "recipe"
    assert prompts.value["query"] == "query: "
