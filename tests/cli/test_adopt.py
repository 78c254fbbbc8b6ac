"""`onnxembed adopt`: what it reports about the new folder, and about what it did not compare."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open

from onnxembed.manifest import FILE_NAME, read_manifest
from running import Run, needs_torch, refused


@pytest.fixture
def foreign(artifact: Path, tmp_path: Path) -> Path:
    """A folder with a graph but neither a manifest nor the weights the graph was made from."""
    folder = shutil.copytree(artifact, tmp_path / "tiny-foreign")
    (folder / FILE_NAME).unlink()
    return folder


@pytest.mark.torch  # without it, that is what the note says
def test_adopt_names_the_folder_and_says_what_was_not_compared(run: Run, foreign: Path) -> None:
    code, out, err = run("adopt", foreign)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"tiny-foreign-onnx: 32 dimensions, {out.split()[3]} MB",
        "run on 21 texts: vectors are finite, and the same for a text alone and among others",
        "not verified (its weights are not beside the graph); to verify: onnxembed verify tiny-foreign-onnx "
        "--against MODEL",
    ]


def test_adopt_passes_its_options_on(run: Run, foreign: Path) -> None:
    (foreign / "onnx/model.onnx").rename(foreign / "onnx/other.onnx")
    assert refused(run("adopt", foreign), "several ONNX files", "--onnx-file")
    options = ["-o", "out", "--onnx-file", "onnx/other.onnx", "--max-length", "12", "--no-verify"]
    code, out, err = run("adopt", foreign, *options)
    assert (code, err) == (0, "")
    assert "not verified (--no-verify)" in out
    manifest = read_manifest(Path("out"))
    assert (manifest.tokenization.max_length.value, manifest.tokenization.max_length.origin) == (12, "flag")
    words = "--max-length: 12 instead of 20 (sentence_bert_config.json: max_seq_length)"
    assert (manifest.overruled, out.splitlines()[0]) == ((words,), f"these are not the model's own vectors: {words}")


@needs_torch
@pytest.mark.torch
@pytest.mark.parametrize("sharded", [False, True])
def test_adopt_compares_where_the_weights_are_beside_the_graph(
    run: Run, foreign: Path, checkpoint: Path, sharded: bool
) -> None:
    weights = foreign / "model.safetensors"
    shutil.copyfile(checkpoint / weights.name, weights)
    if sharded:
        with safe_open(weights, "numpy") as file:
            index = {"metadata": {}, "weight_map": dict.fromkeys(file.keys(), "model-00001-of-00001.safetensors")}
        weights.rename(foreign / "model-00001-of-00001.safetensors")
        (foreign / "model.safetensors.index.json").write_text(json.dumps(index))
    code, out, err = run("adopt", foreign, "-o", "out")
    assert (code, err) == (0, "")
    assert out.splitlines()[1].startswith("verified fp32 on ")
    shutil.rmtree("out")
    assert (
        f"to verify: onnxembed verify out --against {foreign}\n"
        in run("adopt", foreign, "-o", "out", "--no-verify").out
    )
