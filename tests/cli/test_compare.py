"""`onnxembed compare`: which vectors can be compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs the extra [bulk]")

import pyarrow as pa
import pyarrow.parquet as pq

from onnxembed.export.pipeline import export
from onnxembed.manifest import FILE_NAME, read_manifest
from running import Run, refused
from tiny import change_json
from tiny_rerankers import write_cross_encoder


@pytest.fixture(scope="module")
def cls_artifact(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cls")
    shutil.copytree(checkpoint, folder / "checkpoint")
    change_json(folder / "checkpoint/1_Pooling/config.json", pooling_mode="cls")
    export(folder / "checkpoint", folder / "cls-onnx")
    return folder / "cls-onnx"


def test_a_model_and_what_it_wrote_are_one_space(run: Run, artifact: Path) -> None:
    Path("a.txt").write_text("the cat\n")
    assert run("embed", artifact, "a.txt", "-o", "out/").code == 0
    assert run("embed", artifact, "a.txt", "-o", "half/", "--precision", "fp16", "--dimensions", "8").code == 0
    (space,) = (read_manifest(artifact).spaces or {}).values()
    for ours, theirs in ((artifact, "out"), ("out", "out/part-00000.parquet")):
        assert run("compare", ours, theirs) == (0, f"the same vector space for embedding: {space}\n", "")
    assert run("compare", "out", "half").out.splitlines() == [
        f"the same vector space for embedding: {space}",
        "  beside the space, precision: 'fp32' and 'fp16'",
        "  beside the space, dimensions: 32 and 8",
    ]
    assert json.loads(run("compare", artifact, "out", "--json").out)["same"] is True


def test_other_spaces_are_told_apart_by_what_differs(run: Run, artifact: Path, cls_artifact: Path) -> None:
    Path("a.txt").write_text("the cat\n")
    run("embed", cls_artifact, "a.txt", "-o", "out/")
    outcome = run("compare", artifact, "out")
    assert refused(outcome, "different spaces: embedding, pooling: mean and cls", code=1)
    assert refused(run("embed", artifact, "a.txt", "-o", "out/"), "vector space, pooling: cls and mean")


def test_the_space_is_inspected(run: Run, artifact: Path, tmp_path: Path) -> None:
    (space,) = (read_manifest(artifact).spaces or {}).values()
    assert f"vector space     {space}\n" in run("inspect", artifact).out
    before = shutil.copytree(artifact, tmp_path / "before")
    manifest = json.loads((before / FILE_NAME).read_text())
    del manifest["spaces"], manifest["model"]["tensors"]
    (before / FILE_NAME).write_text(json.dumps(manifest))
    assert "vector space     " in run("inspect", before).out
    assert refused(run("compare", artifact, before), "embedding, tensors: ", " and graph ", code=1)


def test_what_says_no_space_is_refused(run: Run, artifact: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), "a.parquet")
    assert refused(run("compare", artifact, "a.parquet"), "a.parquet does not say in which vector space it is")
    Path("v.npy").touch()
    assert refused(run("compare", artifact, "v.npy"), "v.npy cannot be read")
    write_cross_encoder(tmp_path / "checkpoint")
    export(tmp_path / "checkpoint", tmp_path / "ranker")
    assert refused(run("compare", artifact, "ranker"), "ranker is a reranker")
