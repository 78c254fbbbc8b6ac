"""A manifest that does not describe its graph is found when the model is opened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from onnxembed import OnnxEmbedder, OnnxReranker
from onnxembed.errors import ManifestError, ModelFilesError
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.loading.agreement import check_artifact
from onnxembed.loading.locate import locate
from onnxembed.manifest import read_manifest
from tampering import change_graph
from tiny_heads import write_stanford_colbert
from tiny_rerankers import write_reranker

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def copy(tmp_path: Path, artifact: Path) -> Path:
    return Path(shutil.copytree(artifact, tmp_path / "copy"))


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
