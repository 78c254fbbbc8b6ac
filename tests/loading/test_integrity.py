"""An artifact's files match its manifest, or an error names the file that does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from onnxembed import OnnxEmbedder
from onnxembed.errors import IntegrityError, ModelFilesError
from onnxembed.export.pipeline import export
from onnxembed.hub import model_files
from onnxembed.loading.integrity import check_files
from onnxembed.manifest import Manifest, read_manifest

GRAPH = "onnx/model.onnx"


@pytest.fixture
def copy(tmp_path: Path, artifact: Path) -> Path:
    return Path(shutil.copytree(artifact, tmp_path / "copy"))


@pytest.fixture
def manifest(artifact: Path) -> Manifest:
    return read_manifest(artifact)


def test_an_exported_folder_passes(artifact: Path, manifest: Manifest) -> None:
    check_files(artifact, manifest.files)


def test_the_manifest_records_every_other_file_but_the_card_which_people_edit(
    artifact: Path, manifest: Manifest
) -> None:
    files = {path.relative_to(artifact).as_posix() for path in artifact.rglob("*") if path.is_file()}
    assert files == {*manifest.files, "onnxembed.json", "README.md"}


def test_a_missing_file_is_named(copy: Path, manifest: Manifest) -> None:
    (copy / GRAPH).unlink()
    with pytest.raises(IntegrityError, match=rf"lacks {GRAPH}; export or download the model again"):
        check_files(copy, {GRAPH: manifest.files[GRAPH]}, hashes=False)


def test_a_folder_in_the_place_of_a_file_is_a_missing_file(copy: Path, manifest: Manifest) -> None:
    (copy / GRAPH).unlink()
    (copy / GRAPH).mkdir()
    with pytest.raises(IntegrityError, match=f"lacks {GRAPH}"):
        check_files(copy, {GRAPH: manifest.files[GRAPH]}, hashes=False)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_size_is_named_with_both_sizes(copy: Path, manifest: Manifest, change: int) -> None:
    content = (copy / GRAPH).read_bytes()
    (copy / GRAPH).write_bytes((content + b"\0")[: len(content) + change])
    sizes = f"has {len(content) + change} bytes, not the {len(content)} of the manifest; export or download"
    with pytest.raises(IntegrityError, match=rf"model\.onnx {sizes}"):
        check_files(copy, {GRAPH: manifest.files[GRAPH]}, hashes=False)


def test_one_changed_byte_is_seen_by_the_hash_alone(copy: Path, manifest: Manifest) -> None:
    content = bytearray((copy / GRAPH).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / GRAPH).write_bytes(content)
    check_files(copy, {GRAPH: manifest.files[GRAPH]}, hashes=False)
    with pytest.raises(IntegrityError, match=r"model\.onnx has sha256 \w{64}, not the manifest's \w{64}; export"):
        check_files(copy, {name: manifest.files[name] for name in ("tokenizer.json", GRAPH)})


def test_files_that_are_not_asked_for_are_not_looked_at(copy: Path, manifest: Manifest) -> None:
    (copy / GRAPH).unlink()
    check_files(copy, {"tokenizer.json": manifest.files["tokenizer.json"]})


@pytest.mark.parametrize("recorded", [True, False])
def test_weights_that_are_linked_from_elsewhere_are_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    """As many do to keep large files on another disk; ONNX Runtime says only that a path escapes."""
    monkeypatch.setattr("onnxembed.export.artifact.graph_file.INLINE_LIMIT", 0)
    folder = tmp_path / "model"
    export(checkpoint, folder)
    if not recorded:
        (folder / "onnxembed.json").unlink()
    data, disk = folder / "onnx/model.onnx_data", tmp_path / "disk"
    disk.mkdir()
    data.rename(disk / "weights")
    data.symlink_to(disk / "weights")
    message = rf"{data} is a link to {disk / 'weights'}, and ONNX Runtime reads weights only from the folder of"
    with pytest.raises(ModelFilesError, match=message):
        OnnxEmbedder(folder)
    (folder / GRAPH).rename(disk / "graph")
    (folder / GRAPH).symlink_to(disk / "graph")
    OnnxEmbedder(folder).close()
    data.unlink()
    data.symlink_to(disk / "gone")
    with pytest.raises(ModelFilesError, match=rf"lacks {data.relative_to(folder)}|{data} leads to no file"):
        OnnxEmbedder(folder)


def test_a_disk_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`onnxembed embed / text` looked at every file of the machine."""
    monkeypatch.setattr(model_files, "MOST_FILES", 5)
    for number in range(6):
        (tmp_path / f"{number}.onnx").touch()
    with pytest.raises(ModelFilesError, match=r"has no onnxembed\.json"):
        OnnxEmbedder(tmp_path)
