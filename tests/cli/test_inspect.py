"""`onnxembed inspect`: what it prints about an artifact."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from hub_server import HubServer
from onnxembed.manifest import FILE_NAME
from running import Run, refused


def test_inspect_shows_each_decision_and_its_origin(run: Run, artifact: Path) -> None:
    code, out, err = run("inspect", artifact)
    assert (code, err) == (0, "")
    for words in (
        "pooling          mean (file: 1_Pooling/config.json: pooling_mode), in the graph",
        "normalize        yes (file: modules.json has a Normalize module)",
        "max length       20 (file: sentence_bert_config.json: max_seq_length)",
        "prompt           query: 'to be: '",
        "dimensions       32",
        "fp32: onnx/model.onnx, 0.1 MB, ",
        "fp16: onnx/model_fp16.onnx",
        "LayerNormalization",
        f"not verified; to verify: onnxembed verify {artifact} --against ",
        "proof: proof.npz, ",
    ):
        assert words in out


def test_inspect_finds_a_file_of_another_size(run: Run, artifact: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(artifact, tmp_path / "copy")
    (folder / "onnx/model_fp16.onnx").unlink()  # a graph may be left behind
    assert run("inspect", folder)[0] == 0
    with (folder / "onnx/model.onnx").open("r+b") as file:
        file.truncate(1000)
    for options in ((), ("--json",)):
        code, out, err = run("inspect", folder, *options)
        assert code == 2
        assert "model.onnx" in out
        assert re.fullmatch(
            r"onnxembed: .*onnx/model\.onnx has 1000 bytes, not the \d+ of the manifest; .* again\n", err
        )


def test_inspect_prints_the_manifest_itself(run: Run, artifact: Path) -> None:
    assert run("inspect", artifact, "--json") == (0, (artifact / FILE_NAME).read_text(), "")


def test_inspect_downloads_nothing_but_the_manifest(run: Run, hub: HubServer, artifact: Path) -> None:
    hub.push("org/tiny-onnx", artifact)
    assert "pooling          mean" in run("inspect", "org/tiny-onnx", "--cache-dir", "cache").out
    assert hub.downloaded() == [FILE_NAME]


def test_inspect_shows_what_an_export_would_decide(run: Run, checkpoint: Path, artifact: Path) -> None:
    """The same words as of the folder that the export makes, but for the vector space, which takes the weights."""
    code, out, err = run("inspect", checkpoint)
    assert (code, err) == (0, "")
    made = run("inspect", artifact).out.partition("\n\n")[0]
    made = re.sub(r"\nvector space .*", "", made)
    assert out == f"{made}\n\nnot exported; to export: onnxembed export {checkpoint}\n"


def test_inspect_prints_the_manifest_that_an_export_would_write(run: Run, checkpoint: Path, artifact: Path) -> None:
    planned = json.loads(run("inspect", checkpoint, "--json").out)
    written = json.loads((artifact / FILE_NAME).read_text())
    unknown: dict[str, Any] = {"variants": {}, "files": {}, "verification": {}, "spaces": None}
    assert planned == {**written, **unknown, "model": {**written["model"], "tensors": None}}


def test_inspect_of_a_checkpoint_on_the_hub_fetches_no_weights(run: Run, hub: HubServer, checkpoint: Path) -> None:
    hub.push("org/tiny", checkpoint)
    out = run("inspect", "org/tiny", "--cache-dir", "cache").out
    assert "pooling          mean (file: 1_Pooling/config.json: pooling_mode), in the graph" in out
    assert "dimensions       32" in out
    assert "model.safetensors" not in hub.downloaded()
    about = [request for request in hub.requests if "/api/models/" in request]
    assert len(about) == 1, about


def test_inspect_refuses_what_an_export_refuses(run: Run, raw: Path) -> None:
    Path("file").touch()
    Path("empty").mkdir()
    assert refused(run("inspect", raw), "how to pool", "--pooling")
    assert refused(run("inspect", "empty"), "empty has no config.json")
    assert refused(run("inspect", "empty", "--onnx-file", "model.onnx"), "no onnxembed.json", "onnxembed export empty")
    assert refused(run("inspect", "./absent"), "no folder at absent")
    assert refused(run("inspect", "file"), "file is a file")
