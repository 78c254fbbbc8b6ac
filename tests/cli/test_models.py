"""`onnxembed models`: what is known of the models of the book, and of folders."""

from __future__ import annotations

import json
from pathlib import Path

from onnxembed.manifest import FILE_NAME
from onnxembed.recipes.book import recipe_names
from running import Run, refused


def test_the_models_of_the_book(run: Run) -> None:
    code, out, err = run("models", "--json")
    assert (code, err) == (0, "")
    book = {model["name"]: model for model in json.loads(out)}
    assert len(book) == len(recipe_names())
    assert book["intfloat/e5-base-v2"]["prompts"] == {"query": "query: ", "document": "passage: "}
    assert book["intfloat/e5-base-v2"]["dimension"] is None  # its files say it, its recipe does not
    assert book["intfloat/e5-base-v2"]["tasks"] == ["embedding"]
    assert book["BAAI/bge-m3"]["tasks"] == ["embedding", "sparse", "multi_vector"]
    assert book["BAAI/bge-reranker-base"]["tasks"] == ["reranking"]
    assert book["colbert-ir/colbertv2.0"]["tasks"] == ["multi_vector"]
    assert [name for name, model in book.items() if not model["tasks"]] == []
    lines = run("models").out.splitlines()
    assert "intfloat/e5-base-v2" in lines
    assert max(map(len, lines)) <= 80


def test_the_model_of_a_folder(run: Run, artifact: Path, tmp_path: Path) -> None:
    (model,) = json.loads(run("models", artifact, "--json").out)
    manifest = json.loads((artifact / FILE_NAME).read_text())
    assert (model["tasks"], model["dimension"], model["max_length"]) == (["embedding"], 32, 20)
    assert model["bytes"] == sum(file["bytes"] for file in manifest["files"].values())
    assert model["prompts"] == manifest["prompts"]["texts"]["value"]
    assert "embedding; 32 dimensions; at most 20 tokens; " in run("models", artifact).out
    assert refused(run("models", tmp_path / "absent"), "no folder at")


def test_an_export_says_what_it_made_as_json(run: Run, checkpoint: Path) -> None:
    code, out, _ = run("export", checkpoint, "-o", "made", "--no-verify", "--json")
    made = json.loads(out)
    assert (code, made["folder"]) == (0, "made")
    assert made["manifest"] == json.loads(Path("made", FILE_NAME).read_text())
    assert "not verified (--no-verify)" in made["notes"][1]
