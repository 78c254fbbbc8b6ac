"""How OnnxEmbedder loads a model: recorded files, a precision, a provider, a hub repository."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed import OnnxEmbedder
from onnxembed.errors import (
    IntegrityError,
    ManifestError,
    MissingExtraError,
    ModelFilesError,
    OnnxEmbedError,
    ProviderError,
    UsageError,
)
from onnxembed.export.plan import Options
from onnxembed.manifest import FILE_NAME
from tampering import record_anew
from tiny_embedders import DENSE, EDGE_TEXTS, D, assert_vectors_equal, export_tiny

# ---- files


def damaged(artifact: Path, tmp_path: Path, damage: Callable[[Path], object]) -> Path:
    copy = Path(shutil.copytree(artifact, tmp_path / "copy"))
    damage(copy)
    return copy


def change_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / FILE_NAME).read_text())
    edit(manifest)
    (folder / FILE_NAME).write_text(json.dumps(manifest))


@pytest.mark.parametrize("file", ["onnx/model.onnx", "tokenizer.json"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_byte, "has sha256"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"has \d+ bytes, not the \d+ of the manifest"),
        (lambda path: path.unlink(), "lacks"),
        (lambda path: path.write_bytes(b""), "has 0 bytes"),
    ],
    ids=["changed", "short", "missing", "empty"],
)
def test_a_file_that_is_not_the_recorded_one_is_refused(
    artifact: Path, tmp_path: Path, file: str, damage: Callable[[Path], object], message: str
) -> None:
    folder = damaged(artifact, tmp_path, lambda copy: damage(copy / file))
    with pytest.raises(IntegrityError, match=message) as caught:
        OnnxEmbedder(folder)
    assert file in str(caught.value)


def test_files_that_are_not_needed_may_be_missing_or_changed(artifact: Path, tmp_path: Path) -> None:
    def damage(copy: Path) -> None:
        (copy / "onnx/model_fp16.onnx").unlink()
        change_byte(copy / "config.json")

    with OnnxEmbedder(damaged(artifact, tmp_path, damage)) as model:
        assert model.encode("the").shape == (D,)


def test_a_changed_dense_layer_is_refused(tmp_path: Path) -> None:
    folder = export_tiny(tmp_path, Options(pooling_out=True), dense=DENSE)
    change_byte(folder / "2_Dense/weight.npy")
    with pytest.raises(IntegrityError, match=r"weight\.npy has sha256"):
        OnnxEmbedder(folder)


def test_hashes_are_not_computed_when_told_not_to(artifact: Path, tmp_path: Path) -> None:
    folder = damaged(artifact, tmp_path, lambda copy: edit_manifest(copy, forget_hashes))
    with pytest.raises(IntegrityError, match="has sha256"):
        OnnxEmbedder(folder)
    OnnxEmbedder(folder, check_files=False).close()


def forget_hashes(manifest: dict[str, Any]) -> None:
    for record in manifest["files"].values():
        record["sha256"] = "0" * 64


def test_a_broken_file_whose_hash_is_not_checked_is_still_an_error_of_the_files(artifact: Path, tmp_path: Path) -> None:
    def damage(copy: Path) -> None:
        path = copy / "onnx/model.onnx"
        path.write_bytes(b"\0" * path.stat().st_size)

    with pytest.raises(ModelFilesError, match="is not an ONNX file"):
        OnnxEmbedder(damaged(artifact, tmp_path, damage), check_files=False)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m["files"].update(nothing={"sha256": "0", "bytes": 1}), None),
        (lambda m: m["variants"]["fp32"].update(file="onnx/other.onnx"), "which files lacks"),
        (lambda m: m["files"].pop("tokenizer.json"), "which files lacks"),
        (lambda m: m.update(color="green"), "color is unknown"),
        (lambda m: m.update(format_version=99), "upgrade onnxembed"),
    ],
    ids=["a file too many", "a file that is not recorded", "no tokenizer", "unknown key", "newer"],
)
def test_a_manifest_that_was_edited(
    artifact: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], object], message: str | None
) -> None:
    folder = damaged(artifact, tmp_path, lambda copy: edit_manifest(copy, edit))
    if message is None:  # a record of a file that the runtime does not read
        OnnxEmbedder(folder).close()
    else:
        with pytest.raises(ManifestError, match=message):
            OnnxEmbedder(folder)


def test_a_broken_dense_layer_whose_hash_is_not_checked_is_still_an_error_of_the_files(tmp_path: Path) -> None:
    folder = export_tiny(tmp_path, Options(pooling_out=True), dense=DENSE)
    path = folder / "2_Dense/weight.npy"
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(ModelFilesError, match="is not an array"):
        OnnxEmbedder(folder, check_files=False)


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_dense_layer_of_another_shape_than_the_manifest_says_is_refused(tmp_path: Path, name: str) -> None:
    """Numpy would add a bias of one number to all of a vector."""
    folder = export_tiny(tmp_path, Options(pooling_out=True), dense=DENSE)
    path = folder / f"2_Dense/{name}.npy"
    np.save(path, np.load(path)[:1])
    record_anew(folder, f"2_Dense/{name}.npy")
    with pytest.raises(ModelFilesError, match=r"has another shape than embedding\.dense says: \d+ numbers from 32"):
        OnnxEmbedder(folder)


def test_an_unknown_activation_is_refused_while_loading(tmp_path: Path) -> None:
    folder = export_tiny(tmp_path, Options(pooling_out=True), dense=DENSE)
    edit_manifest(folder, lambda manifest: manifest["embedding"]["dense"][0].update(activation="laplace"))
    with pytest.raises(ModelFilesError, match="activation 'laplace'; known: elu, gelu, "):
        OnnxEmbedder(folder)


def test_a_folder_that_is_not_an_artifact_names_the_command_that_makes_one(checkpoint: Path) -> None:
    with pytest.raises(ModelFilesError) as caught:
        OnnxEmbedder(checkpoint)
    assert str(caught.value) == (
        f"{checkpoint} has no onnxembed.json: it is not an onnxembed artifact; "
        f"make one with: onnxembed export {checkpoint} -o DIR"
    )


def test_a_missing_folder_does_not_name_the_export_command(tmp_path: Path) -> None:
    with pytest.raises(OnnxEmbedError, match="no folder at") as caught:
        OnnxEmbedder(tmp_path / "absent")
    assert "onnxembed export" not in str(caught.value)


def test_a_path_may_be_a_str_or_a_path_and_begin_with_a_tilde(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(artifact.parent))
    for path in (artifact, str(artifact), f"~/{artifact.name}"):
        OnnxEmbedder(path).close()


# ---- precisions and providers


def test_precisions(artifact: Path, model: OnnxEmbedder) -> None:
    with OnnxEmbedder(artifact, precision="fp16") as half, OnnxEmbedder(artifact, precision="fp32") as single:
        assert_vectors_equal(single.encode(EDGE_TEXTS), model.encode(EDGE_TEXTS))
        vectors = half.encode(EDGE_TEXTS)
    assert vectors.dtype == np.float32
    assert 0 < np.abs(vectors - model.encode(EDGE_TEXTS)).max() < 1e-2
    assert_vectors_equal(vectors, vectors.astype(np.float32))


def test_auto_takes_the_only_precision_there_is(tmp_path: Path) -> None:
    with OnnxEmbedder(export_tiny(tmp_path, Options(precisions=("fp16",)))) as model:
        assert model.encode(EDGE_TEXTS).shape == (len(EDGE_TEXTS), D)


def test_a_precision_that_the_artifact_lacks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no fp16 graph \(it has: fp32\); export it again with --precision fp16"):
        OnnxEmbedder(export_tiny(tmp_path), precision="fp16")


@pytest.mark.parametrize("precision", ["int3", "FP32", "", None, 32])
def test_a_precision_that_does_not_exist(artifact: Path, precision: Any) -> None:
    with pytest.raises(UsageError, match=r"^precision is .*, not one of auto, fp32, fp16, bf16, int16, int8, int8w$"):
        OnnxEmbedder(artifact, precision=precision)


def test_providers_are_passed_on(artifact: Path) -> None:
    with OnnxEmbedder(artifact, providers=["cpu"]) as model:
        assert model.provider == "CPUExecutionProvider"
    with pytest.raises(ProviderError, match="NoExecutionProvider is not in the installed onnxruntime"):
        OnnxEmbedder(artifact, providers="NoExecutionProvider")


def test_a_number_of_threads_that_would_stop_the_machine_is_refused(artifact: Path) -> None:
    with pytest.raises(UsageError, match="threads is 100000; more than 1024 would only wait for each other"):
        OnnxEmbedder(artifact, threads=100_000)


def test_a_missing_runtime_names_the_extra(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"onnxembed\[cpu\]"):
        OnnxEmbedder(artifact)
