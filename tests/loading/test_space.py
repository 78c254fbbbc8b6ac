"""The identity of vector spaces: what changes it, and what does not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnxembed.errors import UsageError
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.loading.space import differences, space_of, with_spaces
from onnxembed.manifest import read_manifest
from tiny import change_json, change_weights, write_sentence_bert
from tiny_heads import write_bge_m3
from tiny_rerankers import write_cross_encoder


def exported(checkpoint: Path, output: Path, **options: Any) -> dict[str, str]:
    """The parts of the space of a checkpoint that is exported."""
    manifest = export(checkpoint, output, Options(**options))
    space = space_of(manifest, output, "embedding")
    assert manifest.spaces is not None
    assert manifest.spaces["embedding"] == space.id == read_manifest(output).spaces["embedding"]  # type: ignore[index]
    return dict(space.parts)


@pytest.fixture(scope="module")
def parts(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return exported(checkpoint, tmp_path_factory.mktemp("space") / "own")


@pytest.mark.parametrize(
    "options", [{"precisions": ("fp16",)}, {"precisions": ("int8w",), "min_cosine": 0.5}, {"pooling_out": True}]
)
def test_precisions_and_places_of_pooling_are_one_space(
    checkpoint: Path, tmp_path: Path, parts: dict[str, str], options: dict[str, Any]
) -> None:
    assert exported(checkpoint, tmp_path / "out", **options) == parts


def test_the_files_of_the_weights_do_not_matter(checkpoint: Path, tmp_path: Path, parts: dict[str, str]) -> None:
    import json

    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "sharded"
    shutil.copytree(checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, folder / shard, metadata={"format": "pt"})
    index = {"weight_map": {name: shard for shard, held in shards.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert exported(folder, tmp_path / "out") == parts


def change_one_number(folder: Path) -> None:
    from safetensors.numpy import load_file

    name = "encoder.layer.0.output.dense.bias"
    bias = load_file(folder / "model.safetensors")[name]
    bias[3] += 1e-3
    change_weights(folder, **{name: bias})


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (change_one_number, ["tensors"]),
        (lambda folder: change_json(folder / "1_Pooling/config.json", pooling_mode="cls"), ["pooling"]),
        (
            lambda folder: change_json(folder / "sentence_bert_config.json", max_seq_length=19),
            ["tokenizer", "max_length"],
        ),
    ],
)
def test_what_decides_vectors_changes_the_space_and_is_named(
    checkpoint: Path, tmp_path: Path, parts: dict[str, str], change: Any, names: list[str]
) -> None:
    shutil.copytree(checkpoint, tmp_path / "changed")
    change(tmp_path / "changed")
    theirs = exported(tmp_path / "changed", tmp_path / "out")
    assert differences(parts, theirs) == [f"{name}: {parts[name]} and {theirs[name]}" for name in names]


def test_dense_layers_are_part_of_the_tensors(tmp_path: Path) -> None:
    found = []
    for place, activation in enumerate(("Tanh", "GELU")):
        dense = ((32, 8, f"torch.nn.modules.activation.{activation}"),)
        write_sentence_bert(tmp_path / f"c{place}", dense=dense)
        found.append(exported(tmp_path / f"c{place}", tmp_path / f"a{place}"))
    assert [each.partition(":")[0] for each in differences(*found)] == ["layers"]
    write_sentence_bert(tmp_path / "c2")
    assert found[0]["tensors"] != exported(tmp_path / "c2", tmp_path / "a2")["tensors"]


def test_length_and_normalization_of_a_call_are_part_of_it(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    own = space_of(manifest, artifact, "embedding")
    assert space_of(manifest, artifact, "embedding", max_length=20, normalize=True) == own
    shorter = space_of(manifest, artifact, "embedding", max_length=10)
    assert differences(own.parts, shorter.parts) == ["max_length: 20, cut on the right and 10, cut on the right"]
    assert space_of(manifest, artifact, "embedding", normalize=False).id != own.id


def test_an_artifact_from_before_is_known_by_its_graph(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    before = replace(manifest, spaces=None, model=replace(manifest.model, tensors=None))
    space = space_of(before, Path("nowhere"), "embedding")  # from the recorded hashes: no file is read
    assert space.parts["tensors"].startswith("graph ")
    assert with_spaces(before, Path("nowhere")).spaces == {"embedding": space.id}
    unrecorded = replace(before, files={})
    assert space_of(unrecorded, artifact, "embedding") == space


def test_each_kind_of_vectors_has_a_space(tmp_path: Path) -> None:
    write_bge_m3(tmp_path / "checkpoint")
    manifest = export(tmp_path / "checkpoint", tmp_path / "out")
    assert manifest.spaces is not None
    assert list(manifest.spaces) == ["embedding", "sparse", "multi_vector"]
    assert len(set(manifest.spaces.values())) == 3


def test_a_reranker_has_none(tmp_path: Path) -> None:
    write_cross_encoder(tmp_path / "checkpoint")
    manifest = export(tmp_path / "checkpoint", tmp_path / "out")
    assert manifest.spaces is None
    with pytest.raises(UsageError, match="makes scores, which are in no vector space"):
        space_of(manifest, tmp_path / "out", "reranking")
