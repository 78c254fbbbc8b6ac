"""`onnxembed.commands`: what the command line does, from Python."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import onnxembed
from onnxembed import OnnxEmbedder, UsageError, commands
from onnxembed.errors import UnsaidError, VerificationError
from onnxembed.manifest import FILE_NAME, read_manifest
from running import Run, names, needs_torch, refused
from tampering import change_weights
from tiny import change_json, write_bert, write_encoder


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_functions_are_an_attribute_of_the_package_and_no_other_name_is() -> None:
    assert onnxembed.commands is commands
    with pytest.raises(AttributeError, match="module 'onnxembed' has no attribute 'exprot'"):
        _ = onnxembed.exprot  # type: ignore[attr-defined]


def test_export_makes_the_folder_that_the_command_makes(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    made = commands.export(checkpoint, "python", precision=("fp32", "fp16"), verify=False)
    assert run("export", checkpoint, "-o", "command", "--precision", "fp32,fp16", "--no-verify").code == 0
    assert files_of(tmp_path / "python") == files_of(tmp_path / "command")
    assert made.manifest == read_manifest(tmp_path / "python")
    assert (made.folder, made.written) == (Path("python"), True)
    assert made.files == {name: len(content) for name, content in files_of(tmp_path / "python").items()}
    assert {name: made.files[name] for name in made.manifest.files} == {
        name: record.bytes for name, record in made.manifest.files.items()
    }
    with OnnxEmbedder(made.folder) as model:
        assert model.encode("the cat").shape == (32,)


def test_the_json_of_a_result_is_what_the_command_prints(run: Run, checkpoint: Path) -> None:
    made = commands.export(checkpoint, "out", verify=False)
    printed = run("export", checkpoint, "-o", "out", "--no-verify", "--force", "--json").out
    assert made.to_json() + "\n" == printed
    assert commands.models("out").to_json() + "\n" == run("models", "out", "--json").out
    assert commands.inspect("out").to_json() == run("inspect", "out", "--json").out
    assert commands.doctor().to_json() + "\n" == run("doctor", "--json").out


def test_progress_is_reported_by_stage(run: Run, checkpoint: Path) -> None:
    stages: list[tuple[str, bool]] = []
    commands.export(checkpoint, "out", verify=False, progress=lambda stage, n, of: stages.append((stage, n <= of)))
    assert {stage for stage, _ in stages} == {"writing fp32 weights", "hashing"}
    assert all(fits for _, fits in stages)


@needs_torch
@pytest.mark.torch
def test_verify_gives_the_figures_that_it_records(run: Run, checkpoint: Path) -> None:
    commands.export(checkpoint, "out", verify=False)
    verified = commands.verify("out", texts=["one more"])
    assert verified.verification["fp32"].max_abs_diff < 1e-5
    assert verified.manifest == read_manifest(Path("out"))
    shutil.copytree(checkpoint, "other")
    change_weights(Path("other"), lambda name, tensor: tensor * 1.01 if "word_embeddings" in name else tensor)
    with pytest.raises(VerificationError, match="abs"):
        commands.verify("out", against="other")
    assert verified.manifest == read_manifest(Path("out"))


def test_a_word_that_is_not_known_is_an_error_with_those_that_are(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    for arguments, words in (
        ({"precision": "fp8"}, "--precision: 'fp8' is not one of fp32, fp16"),
        ({"precision": []}, "--precision: name one or more of fp32"),
        ({"pooling": ("mean", "average")}, "--pooling: 'average' is not one of cls"),
        ({"attention": "none"}, "--attention: 'none' is not one of bidirectional, causal"),
        ({"task": "dense"}, "--task: 'dense' is not one of embedding"),
        ({"activation": "softmax"}, "--activation: 'softmax' is not one of identity"),
        ({"engine": "torch"}, "--engine: 'torch' is not one of build"),
    ):
        with pytest.raises(UsageError, match=words):
            commands.export(checkpoint, "out", **arguments)
    with pytest.raises(UsageError, match="--activation: 'softmax'"):
        commands.adopt(checkpoint, "out", activation="softmax")  # type: ignore[arg-type]
    assert names(tmp_path) == []


def test_a_dry_run_decides_what_the_export_decides_and_writes_nothing(
    run: Run, checkpoint: Path, tmp_path: Path
) -> None:
    shown = commands.export(checkpoint, "out", precision=("fp32", "fp16"), packed=True, pooling="cls", dry_run=True)
    assert names(tmp_path) == []
    made = commands.export(checkpoint, "out", precision=("fp32", "fp16"), packed=True, pooling="cls", verify=False)
    assert (shown.written, made.written) == (False, True)
    written = json.loads(made.manifest.to_json())
    unmeasured: dict[str, object] = {"variants": {}, "files": {}, "verification": {}, "spaces": None}
    unmeasured["model"] = {**written["model"], "tensors": None}
    assert {**written, **unmeasured} == json.loads(shown.manifest.to_json())
    assert shown.manifest.overruled == ("--pooling: cls instead of mean (1_Pooling/config.json: pooling_mode)",)
    assert shown.files.keys() == made.files.keys()
    for name, size in shown.files.items():
        actual = made.files[name]
        if name in ("README.md", "onnxembed.json", "proof.npz"):
            assert size is None
        elif not name.endswith(".onnx"):
            assert size == actual, name
        elif size is not None:  # of its weights
            assert actual is not None
            assert size < actual < 1.5 * size, name


def test_a_dry_run_is_printed_with_every_origin(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    code, out, err = run("export", checkpoint, "--dry-run", "--max-length", "9")
    assert (code, err, names(tmp_path)) == (0, "", [])
    lines = out.splitlines()
    assert lines[0].startswith("these are not the model's own vectors: --max-length: 9 instead of 20")
    for line in (
        "pooling          mean (file: 1_Pooling/config.json: pooling_mode), in the graph",
        "max length       9 (flag: --max-length)",
        "would write tiny-bert-onnx:",
    ):
        assert line in lines
    size = commands.export(checkpoint, dry_run=True).files["onnx/model.onnx"]
    assert size is not None
    assert f"  onnx/model.onnx, {size / 1e3:.1f} kB" in lines


def test_a_dry_run_refuses_what_the_export_refuses(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    bare = write_bert(tmp_path / "bare")
    with pytest.raises(UnsaidError, match="--pooling") as unsaid:
        commands.export(bare, dry_run=True)
    assert unsaid.value.flag == "--pooling, --normalize"
    both = ("2 decisions are left to you: (1) ", "pass --pooling", "; (2) ", "pass --normalize")
    assert refused(run("export", bare, "--dry-run"), *both)
    assert refused(run("inspect", bare), *both)
    decoder = write_encoder(tmp_path / "decoder", "qwen2")
    for name in ("modules.json", "sentence_bert_config.json"):
        (decoder / name).unlink()
    change_json(decoder / "config.json", auto_map={"AutoModel": "modeling.Model"})
    every = ("3 decisions", "(1) ", "--attention bidirectional", "(2) ", "--pooling", "(3) ", "--no-normalize")
    assert refused(run("export", decoder, "--dry-run"), *every)
    assert refused(run("export", decoder, "--dry-run", "--pooling", "cls"), "2 decisions", "--attention", "--normalize")
    assert refused(run("export", bare, "--dry-run", "--pooling", "mean"), "--no-normalize")
    commands.export(checkpoint, "out", verify=False)
    assert refused(run("export", checkpoint, "-o", "out", "--dry-run"), "out exists", "--force")
    (bare / "config.json").write_text(json.dumps({**json.loads((bare / "config.json").read_text()), "new_key": 1}))
    assert refused(run("export", bare, "--dry-run", "--pooling", "mean", "--normalize"), "new_key")
    assert (tmp_path / "out" / FILE_NAME).is_file()
