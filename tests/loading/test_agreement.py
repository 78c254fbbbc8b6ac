"""An artifact's files and graph are those of its manifest, or an error names what is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from onnxembed import OnnxEmbedder, OnnxReranker
from onnxembed.errors import IntegrityError, ManifestError, ModelFilesError
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.hub import model_files
from onnxembed.loading.agreement import check_artifact, check_files
from onnxembed.loading.locate import locate
from onnxembed.manifest import Manifest, read_manifest
from tampering import change_graph
from tiny_heads import write_stanford_colbert
from tiny_rerankers import write_reranker

Change = Callable[[dict[str, Any]], object]

GRAPH = "onnx/model.onnx"


@pytest.fixture
def copy(tmp_path: Path, artifact: Path) -> Path:
    return Path(shutil.copytree(artifact, tmp_path / "copy"))


@pytest.fixture
def manifest(artifact: Path) -> Manifest:
    return read_manifest(artifact)


# ---- files


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


# ---- the graph


def edit(folder: Path, change: Change) -> Path:
    manifest = json.loads((folder / "onnxembed.json").read_text())
    change(manifest)
    (folder / "onnxembed.json").write_text(json.dumps(manifest))
    return folder


DIFFERENCES: dict[str, Change] = {
    r"model\.inputs is input_ids, token_type_ids": lambda m: m["model"].update(inputs=["input_ids", "token_type_ids"]),
    "has no output x": lambda m: m["embedding"].update(output="x"),
    "has 3 axes, not 2": lambda m: m["embedding"].update(output="token_embeddings"),
    r"sentence_embedding has 32 numbers, which does not go with embedding\.dimension": lambda m: m["embedding"].update(
        dimension=7
    ),
    r"token_embeddings has 32 numbers, which does not go with embedding\.dimension": lambda m: m["embedding"].update(
        pooled_by="runtime", dimension=64
    ),
    r"tokenization\.max_length is 65, but it has 64 positions": lambda m: m["tokenization"]["max_length"].update(
        value=65
    ),
    r"tokenization\.pad_token_id is 87, but its table has 87 rows": lambda m: m["tokenization"]["pad_token_id"].update(
        value=87
    ),
    r"tokenization\.pad_token_id is 2147483647": lambda m: m["tokenization"]["pad_token_id"].update(value=2**31 - 1),
}


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_a_difference_is_named_when_the_model_is_opened(copy: Path, difference: str) -> None:
    with pytest.raises(ModelFilesError, match=difference):
        OnnxEmbedder(edit(copy, DIFFERENCES[difference]))


IMPOSSIBLE: dict[str, Change] = {
    r"embedding\.dimension is -1": lambda m: m["embedding"].update(dimension=-1),
    r"embedding\.dimension is 0": lambda m: m["embedding"].update(dimension=0),
    r"embedding\.pooling \(its length\) is 0": lambda m: m["embedding"]["pooling"].update(value=[]),
    r"tokenization\.max_length is 18446744073709551616": lambda m: m["tokenization"]["max_length"].update(value=2**64),
    r"tokenization\.pad_token_id has -1": lambda m: m["tokenization"]["pad_token_id"].update(value=-1),
    r"tokenization\.pad_token_id has 18446744073709551616": lambda m: m["tokenization"]["pad_token_id"].update(
        value=2**64
    ),
}


@pytest.mark.parametrize("problem", IMPOSSIBLE)
def test_a_number_that_no_model_has_is_named(copy: Path, problem: str) -> None:
    with pytest.raises(ManifestError, match=problem):
        OnnxEmbedder(edit(copy, IMPOSSIBLE[problem]))


def test_a_reranker_whose_manifest_names_more_labels_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "reranker"
    export(write_reranker(tmp_path / "checkpoint"), folder, Options())
    edit(folder, lambda m: m["reranking"]["labels"].update(value=["a", "b", "c", "d", "e"]))
    with pytest.raises(ModelFilesError, match=r"logits has \d numbers, which does not go with reranking\.labels"):
        OnnxReranker(folder)


def move_weights(folder: Path, file: str) -> None:
    """Keep the weights of a graph in a file beside it."""
    weights = (folder / "onnx/other").open("wb")

    def move(graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            if len(tensor.dims) < 2:
                continue
            raw = onnx.numpy_helper.to_array(tensor).tobytes()
            place = {"location": "other", "offset": str(weights.tell()), "length": str(len(raw))}
            weights.write(raw)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.extend(
                onnx.StringStringEntryProto(key=key, value=value) for key, value in place.items()
            )
        weights.close()

    change_graph(folder, move, file)


UNNAMED = "it keeps weights in 'other', which nothing would check"


def test_weights_in_a_file_that_the_manifest_does_not_name_are_refused(copy: Path) -> None:
    move_weights(copy, "onnx/model.onnx")
    with pytest.raises(ModelFilesError, match=UNNAMED):
        OnnxEmbedder(copy)


def test_weights_of_a_packed_graph_are_looked_at_where_a_gpu_may_run_it(tmp_path: Path, checkpoint: Path) -> None:
    export(checkpoint, tmp_path / "packed", Options(packed=True))
    packed = read_manifest(tmp_path / "packed").variants["fp32"].packed
    assert packed is not None
    move_weights(tmp_path / "packed", packed.file)
    check_artifact(locate(tmp_path / "packed"), hashes=True)
    with pytest.raises(ModelFilesError, match=UNNAMED):
        check_artifact(locate(tmp_path / "packed", device="gpu"), hashes=True)


def test_an_output_of_integers_that_stand_for_nothing_is_named(copy: Path) -> None:
    def retype(graph: onnx.GraphProto) -> None:
        for output in graph.output:
            output.type.tensor_type.elem_type = onnx.TensorProto.INT8

    change_graph(copy, retype)
    with pytest.raises(ModelFilesError, match="sentence_embedding is int8, and integer_outputs does not say"):
        OnnxEmbedder(copy)


def free_width(graph: onnx.GraphProto) -> None:
    """Let no output name the length of its vectors."""
    for output in graph.output:
        output.type.tensor_type.shape.dim[-1].ClearField("dim_value")


def test_vectors_of_another_length_are_found_by_a_run_where_the_graph_names_none(copy: Path) -> None:
    change_graph(copy, free_width)
    with (
        OnnxEmbedder(edit(copy, lambda m: m["embedding"].update(dimension=7))) as model,
        pytest.raises(ModelFilesError, match=r"makes vectors of 32 numbers, not the manifest's 7 \(embedding\."),
    ):
        model.encode("the cat")


def test_vectors_of_tokens_of_another_length_are_found_by_a_run(tmp_path: Path) -> None:
    write_stanford_colbert(tmp_path / "checkpoint")
    export(tmp_path / "checkpoint", tmp_path / "onnx", Options())
    change_graph(tmp_path / "onnx", free_width)
    edit(tmp_path / "onnx", lambda m: m["multi_vector"].update(dimension=7))
    with (
        OnnxEmbedder(tmp_path / "onnx") as model,
        pytest.raises(ModelFilesError, match=r"makes vectors of \d+ numbers, not the manifest's 7 \(multi_vector\."),
    ):
        model.encode_query("the cat")
