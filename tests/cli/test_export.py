"""`onnxembed export`: what it prints, what it leaves behind, and how it fails."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from hub_server import HubServer
from onnxembed.commands import new_folder as making
from onnxembed.manifest import FILE_NAME, Manifest, read_manifest
from onnxembed.proof import limits
from onnxembed.proof.probes import BRIEF
from onnxembed.verify import requirements
from running import Outcome, Run, names, needs_torch, refused
from tampering import change_weights
from tiny import change_json, write_sentence_bert


def exported(outcome: Outcome, folder: Path) -> Manifest:
    assert (outcome.code, outcome.err) == (0, ""), outcome
    return read_manifest(folder)


def test_export_names_the_folder_after_the_model(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    outcome = run("export", checkpoint, "--no-verify")
    exported(outcome, tmp_path / "tiny-bert-onnx")
    assert outcome.out == (
        f"tiny-bert-onnx: 32 dimensions, {outcome.out.split()[3]} MB\n"
        "run on 21 texts: vectors are finite, and the same for a text alone and among others\n"
        "not verified (--no-verify); to verify: onnxembed verify tiny-bert-onnx "
        f"--against {checkpoint}\n"
    )
    assert names(tmp_path) == ["tiny-bert-onnx"]


def test_export_of_this_folder_is_named_after_it(
    run: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(checkpoint, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    exported(run("export", ".", "--no-verify"), tmp_path / "here/here-onnx")


def test_export_writes_where_it_is_told_and_makes_folders_on_the_way(run: Run, checkpoint: Path) -> None:
    exported(run("export", checkpoint, "--no-verify", "-o", "some/where/model"), Path("some/where/model"))


@pytest.mark.parametrize(
    "arguments", [["--precision", "fp32,fp16"], ["--precision", "fp32", "--precision", "fp16,fp32"]]
)
def test_export_writes_every_precision_that_is_named(run: Run, checkpoint: Path, arguments: list[str]) -> None:
    manifest = exported(run("export", checkpoint, "-o", "out", "--no-verify", *arguments), Path("out"))
    assert list(manifest.variants) == ["fp32", "fp16"]


def test_export_passes_its_options_on(run: Run, raw: Path, tmp_path: Path) -> None:
    source = tmp_path / "checkpoint"
    shutil.copytree(raw, source)
    change_json(source / "config.json", some_new_key=1)
    arguments = "--pooling mean+cls --no-normalize --max-length 12 --pooling-out --ignore-config-key some_new_key"
    assert refused(run("export", source, "-o", "out", *arguments.split()[:-2]), "some_new_key")
    manifest = exported(run("export", source, "-o", "out", "--no-verify", *arguments.split()), Path("out"))
    embedding = manifest.require_embedding()
    assert embedding.pooling.value == ("mean", "cls")
    assert embedding.normalize.value is False
    assert manifest.tokenization.max_length.value == 12
    assert embedding.pooled_by == "runtime"
    assert manifest.model.ignored_config_keys == ("some_new_key",)
    assert {
        decision.origin for decision in (embedding.pooling, embedding.normalize, manifest.tokenization.max_length)
    } == {"flag"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "int4"], ["--precision", "'int4'", "fp32, fp16"]),
        (["--precision", "fp32,"], ["--precision", "''"]),
        (["--pooling", "average"], ["--pooling", "'average'", "mean"]),
        (["--pooling", "mean+"], ["--pooling", "''"]),
        (["--max-length", "0"], ["--max-length 0", "1 to 64"]),
        (["--max-length", "65"], ["--max-length 65", "1 to 64"]),
        (["--max-length", "2"], ["2 special tokens"]),
        (["--revision", "main"], ["no revision"]),
    ],
)
def test_export_refuses_impossible_options(
    run: Run, checkpoint: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    assert refused(run("export", checkpoint, "-o", "out", *arguments), *words)
    assert names(tmp_path) == []


def test_export_names_the_option_for_a_setting_that_the_files_lack(run: Run, raw: Path, tmp_path: Path) -> None:
    assert refused(run("export", raw, "-o", "out"), "how to pool", "--pooling")
    assert refused(run("export", raw, "-o", "out", "--pooling", "mean"), "normalize", "--no-normalize")
    assert names(tmp_path) == []


def test_export_replaces_an_artifact_only_when_forced(run: Run, checkpoint: Path) -> None:
    exported(run("export", checkpoint, "-o", "out", "--no-verify"), Path("out"))
    before = Path("out", FILE_NAME).stat().st_mtime_ns
    assert refused(run("export", checkpoint, "-o", "out", "--no-verify"), "out exists", "--force")
    assert Path("out", FILE_NAME).stat().st_mtime_ns == before
    assert run("export", checkpoint, "-o", "out", "--no-verify", "--force").code == 0
    assert Path("out", FILE_NAME).stat().st_mtime_ns > before


def test_export_never_replaces_a_folder_that_is_not_an_artifact(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").touch()
    (tmp_path / "file").touch()
    assert refused(run("export", checkpoint, "-o", "mine", "--force"), "mine exists and is not")
    assert refused(run("export", checkpoint, "-o", "file", "--force"), "file is a file")
    assert refused(run("export", checkpoint, "-o", "file/out"), "file")
    assert names(tmp_path / "mine") == ["thesis.tex"]


def test_export_says_what_a_folder_without_a_model_lacks(run: Run, artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert refused(run("export", "empty"), "empty has no config.json")
    assert refused(run("export", "./absent"), "no folder at absent")
    assert refused(run("export", artifact), "model.safetensors")


def test_a_refused_model_of_the_hub_costs_no_download_of_weights(run: Run, hub: HubServer, checkpoint: Path) -> None:
    hub.push("org/tiny", checkpoint)
    arguments = ("export", "org/tiny", "--cache-dir", "cache", "--no-verify")
    assert refused(run(*arguments, "--task", "multi_vector"), "vector")
    assert "config.json" in hub.downloaded()
    assert "model.safetensors" not in hub.downloaded()
    assert run(*arguments).code == 0
    assert "model.safetensors" in hub.downloaded()


def test_export_takes_a_model_of_the_hub(run: Run, hub: HubServer, checkpoint: Path, tmp_path: Path) -> None:
    old = hub.push("org/tiny", write_sentence_bert(tmp_path / "old", pooling="cls"), "v1")
    new = hub.push("org/tiny", checkpoint)
    manifest = exported(run("export", "org/tiny", "--cache-dir", "cache", "--no-verify"), Path("tiny-onnx"))
    assert (manifest.source.model, manifest.source.revision) == ("org/tiny", new)
    arguments = ["--revision", "v1", "--cache-dir", "cache", "--no-verify", "-o", "v1"]
    manifest = exported(run("export", "org/tiny", *arguments), Path("v1"))
    assert manifest.source.revision == old
    assert manifest.require_embedding().pooling.value == ("cls",)
    hub.requests.clear()
    assert run("export", "org/tiny", "--offline", "--cache-dir", "cache", "--no-verify", "-o", "again").code == 0
    assert hub.requests == []


@needs_torch
@pytest.mark.torch
def test_a_verified_export_can_be_repeated_byte_for_byte(run: Run, checkpoint: Path) -> None:
    for name in ("one", "two"):
        code, out, err = run("export", checkpoint, "-o", name, "--precision", "fp32,fp16")
        assert (code, err) == (0, "")  # none of the reference's bars, no word about texts too long on purpose
        assert [line.split()[:2] for line in out.splitlines()[1:]] == [["verified", "fp32"], ["verified", "fp16"]]
    one, two = ({path.name: path.read_bytes() for path in Path(name).rglob("*.*")} for name in ("one", "two"))
    assert one == two
    assert read_manifest(Path("one")).verification.keys() == {"fp32", "fp16"}


@needs_torch
@pytest.mark.torch
def test_an_export_that_does_not_verify_leaves_no_folder(
    run: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(limits.REQUIRED, "fp16", limits.Limits(max_abs_diff=1e-6, min_cosine=0))
    outcome = run("export", checkpoint, "-o", "out", "--precision", "fp32,fp16")
    assert refused(outcome, "fp16 vectors are not the reference's: max abs difference ", code=1)
    assert names(tmp_path) == []


@pytest.mark.parametrize("missing", [["torch"], ["torch", "onnxruntime"]])
def test_an_export_without_torch_says_what_was_done(
    run: Run, checkpoint: Path, missing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements, "find_spec", lambda name: None if name in missing else object())
    if "onnxruntime" in missing:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, out, err = run("export", checkpoint, "-o", "out")
    assert (code, err) == (0, "")
    _, checked, verified = out.splitlines()
    assert checked.startswith("not even run: " if "onnxruntime" in missing else f"run on {len(BRIEF)} texts: ")
    extras = "cpu,torch" if "onnxruntime" in missing else "torch"
    why = f"{', '.join(missing)} not installed: pip install 'onnxembed[{extras}]'"
    assert verified == f"not verified ({why}); to verify: onnxembed verify out --against {checkpoint}"


def test_an_export_that_does_not_run_leaves_no_folder(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "source")
    change_weights(source, lambda name, tensor: tensor * np.float32(1e30 if "LayerNorm.weight" in name else 1))
    assert refused(run("export", "source", "--no-verify"), "fp32 vectors are not finite", code=1)
    assert names(tmp_path) == ["source"]


def test_export_without_onnx_names_the_extra(run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "find_spec", lambda name: None if name == "onnx" else object())
    assert refused(run("export", checkpoint), "export needs onnx: pip install 'onnxembed[export]'")


def test_an_export_against_the_models_own_files_says_so_first(run: Run, checkpoint: Path) -> None:
    sentence = (
        "these are not the model's own vectors: --pooling: cls instead of mean (1_Pooling/config.json: pooling_mode)"
    )
    out = run("export", checkpoint, "-o", "made", "--no-verify", "--pooling", "cls").out
    assert out.splitlines()[0] == run("inspect", "made").out.splitlines()[0] == sentence
    out = run("export", checkpoint, "-o", "own", "--no-verify", "--pooling", "mean").out
    assert "not the model's own" not in out + run("inspect", "own").out
