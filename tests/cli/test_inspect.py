"""`onnxembed inspect`: what it prints about an artifact."""

from __future__ import annotations

from pathlib import Path

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
        f"not verified; to verify: onnxembed verify {artifact}",
    ):
        assert words in out


def test_inspect_prints_the_manifest_itself(run: Run, artifact: Path) -> None:
    assert run("inspect", artifact, "--json") == (0, (artifact / FILE_NAME).read_text(), "")


def test_inspect_downloads_nothing_but_the_manifest(run: Run, hub: HubServer, artifact: Path) -> None:
    hub.push("org/tiny-onnx", artifact)
    assert "pooling          mean" in run("inspect", "org/tiny-onnx", "--cache-dir", "cache").out
    assert hub.downloaded() == [FILE_NAME]


def test_inspect_refuses_a_folder_that_is_not_an_artifact(run: Run, checkpoint: Path) -> None:
    Path("file").touch()
    assert refused(run("inspect", checkpoint), "no onnxembed.json", f"onnxembed export {checkpoint}")
    assert refused(run("inspect", "./absent"), "no folder at absent")
    assert refused(run("inspect", "file"), "file is a file")
