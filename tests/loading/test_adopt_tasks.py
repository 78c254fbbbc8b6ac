"""Rerankers, sparse and multi-vector models with an ONNX graph from elsewhere: adopted like embedders."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from foreign import change, command, foreign, rename, without_sentence_files
from onnxembed import OnnxEmbedder, OnnxReranker
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, UnsupportedError, UsageError
from onnxembed.export.adopt import AdoptOptions, adopt
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import FILE_NAME, TEXT_KINDS, read_manifest
from tiny import TEXTS, change_json, write_json, write_sentence_bert
from tiny_embedders import Array, assert_vectors_equal
from tiny_heads import (
    write_bge_m3,
    write_colbert_encoder,
    write_masked_lm,
    write_pylate,
    write_stanford_colbert,
)
from tiny_rerankers import DOCUMENTS, QUERY, write_cross_encoder, write_reranker

pytestmark = pytest.mark.filterwarnings(r"ignore:\d+ of \d+ (texts?|pairs?) (was|were) longer")


def only(output: str, name: str) -> Callable[[onnx.GraphProto], None]:
    """Leave a graph with one output, under another name."""

    def leave(graph: onnx.GraphProto) -> None:
        rename(graph, {value.name: "" if value.name != output else name for value in graph.output})

    return leave


def trace(checkpoint: Path, class_name: str, output: str, finish: Callable[[Any], Any] | None = None) -> None:
    """A stock class through torch's exporter, as `checkpoint`/model.onnx; `finish` is applied to its output."""
    import torch
    import transformers

    stock: Any = getattr(transformers, class_name)
    model = stock.from_pretrained(checkpoint, attn_implementation="eager", dtype=torch.float32).eval()

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
            return finish(outputs[0]) if finish else outputs[0]

    names = ["input_ids", "attention_mask", "token_type_ids"]
    feeds = tuple(torch.ones((2, 7), dtype=torch.int64) for _ in names)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Wrapped(),
            feeds,
            str(checkpoint / "model.onnx"),
            input_names=names,
            output_names=[output],
            dynamic_shapes=(axes,) * len(names),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def sparse_rows(model: OnnxEmbedder, texts: Sequence[str] = TEXTS) -> list[dict[int, float]]:
    return [embedding.as_dict() for embedding in model.embed_sparse(texts)]


def assert_sparse_equal(ours: list[dict[int, float]], theirs: list[dict[int, float]]) -> None:
    assert [row.keys() for row in ours] == [row.keys() for row in theirs]
    for row, expected in zip(ours, theirs, strict=True):
        assert row == pytest.approx(expected, abs=1e-5)


SPARSE_TASK = r"pass --pooling .* or --task sparse for .* \(SPLADE\) of its BertForMaskedLM"


# ---- rerankers


@pytest.mark.torch
@pytest.mark.parametrize("labels", [1, 3])
def test_a_traced_reranker_gives_the_scores_of_the_reference(tmp_path: Path, labels: int) -> None:
    checkpoint = write_reranker(tmp_path / "checkpoint", labels=labels)
    trace(checkpoint, "AutoModelForSequenceClassification", "logits")
    printed = command("adopt", checkpoint, "-o", tmp_path / "out")
    assert "verified fp32" in printed  # against sentence-transformers' CrossEncoder, token types and scores included
    with OnnxReranker(checkpoint) as loaded, OnnxReranker(tmp_path / "out") as adopted:
        assert np.array_equal(loaded.score(QUERY, DOCUMENTS), adopted.score(QUERY, DOCUMENTS))


def test_a_folder_with_only_a_graph_its_config_and_its_tokenizer_reranks(tmp_path: Path) -> None:
    """What repositories of ONNX rerankers hold."""
    export(write_cross_encoder(tmp_path / "checkpoint"), tmp_path / "artifact")
    bare = tmp_path / "bare"
    (bare / "onnx").mkdir(parents=True)
    for name in ("onnx/model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "artifact" / name, bare / name)
    identity = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0"}}
    with OnnxReranker(tmp_path / "artifact") as artifact, OnnxReranker(bare) as model:
        assert np.array_equal(model.score(QUERY, DOCUMENTS), artifact.score(QUERY, DOCUMENTS))
        raw = artifact.score(QUERY, DOCUMENTS, raw_scores=True)
    change_json(bare / "config.json", **identity)
    with OnnxReranker(bare) as model:
        assert np.array_equal(model.score(QUERY, DOCUMENTS), raw)
    stated = r"config.json: sentence_transformers.activation_fn"
    with pytest.warns(UserWarning, match=rf"own scores: --activation: sigmoid instead of identity \({stated}\)"):
        overruled = OnnxReranker(bare, activation="sigmoid")
    with overruled as model:
        assert_vectors_equal(model.score(QUERY, DOCUMENTS), (1 / (1 + np.exp(-raw))).astype(np.float32))
    with pytest.raises(
        UsageError, match=r"is made for reranking \(OnnxReranker, onnxembed rerank\), not for embedding"
    ):
        OnnxEmbedder(bare)


def scores(graph: onnx.GraphProto) -> None:
    """End a graph with the activation that its reader would apply again."""
    for node in graph.node:
        node.output[:] = ["before" if name == "logits" else name for name in node.output]
    graph.node.append(helper.make_node("Sigmoid", ["before"], ["logits"]))


def wide(graph: onnx.GraphProto) -> None:
    graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2


def test_logits_that_are_not_those_of_the_files_are_refused(tmp_path: Path) -> None:
    export(write_cross_encoder(tmp_path / "checkpoint"), tmp_path / "artifact")
    for flaw, message in (
        (wide, "logits has 2 numbers, but the model's files name 1 labels"),
        (only("logits", "scores"), "has no output logits; it has scores"),
        (scores, r"logits are what Sigmoid gives, not logits, and sigmoid would be applied again .* --activation"),
    ):
        folder = shutil.copytree(tmp_path / "artifact", tmp_path / flaw.__name__)
        (folder / FILE_NAME).unlink()
        change(folder, flaw)
        with pytest.raises((ModelFilesError, UnsupportedError), match=message):
            OnnxReranker(folder)
    with OnnxReranker(folder, activation="identity") as model, OnnxReranker(tmp_path / "artifact") as artifact:
        assert_vectors_equal(model.score(QUERY, DOCUMENTS), artifact.score(QUERY, DOCUMENTS))


# ---- sparse embeddings


@pytest.mark.torch
@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_strategy": "max", "activation_function": "relu"},
        {"pooling_strategy": "sum", "activation_function": "log1p_relu"},
    ],
)
def test_traced_logits_give_the_weights_of_the_reference(tmp_path: Path, pooling: dict[str, str]) -> None:
    checkpoint = write_masked_lm(tmp_path / "checkpoint", pooling=pooling)
    trace(checkpoint, "AutoModelForMaskedLM", "logits")
    printed = command("adopt", checkpoint, "-o", tmp_path / "out")
    assert "verified fp32 sparse" in printed  # against sentence-transformers' SparseEncoder
    section = read_manifest(tmp_path / "out").require_sparse()
    assert (section.aggregated_by, section.graph_output) == ("runtime", "logits")
    export(checkpoint, tmp_path / "artifact")
    with OnnxEmbedder(checkpoint) as loaded, OnnxEmbedder(tmp_path / "artifact") as built:
        assert_sparse_equal(sparse_rows(loaded), sparse_rows(built))


def with_logits(folder: Path) -> Path:
    """A graph of random logits: a masked language model is not needed to test how they are read."""
    size = 32
    rows = onnx.numpy_helper.from_array(np.random.default_rng(0).normal(0, 1, (size, 97)).astype(np.float32), "head")

    def add(graph: onnx.GraphProto) -> None:
        graph.initializer.append(rows)
        graph.node.append(helper.make_node("MatMul", ["token_embeddings", "head"], ["logits"]))
        del graph.output[:]
        graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", 97]))

    change(folder, add)
    change_json(folder / "config.json", architectures=["BertForMaskedLM"], vocab_size=97)
    return folder


def test_a_masked_language_model_needs_to_be_told_its_task(checkpoint: Path, tmp_path: Path) -> None:
    folder = with_logits(without_sentence_files(foreign(checkpoint, tmp_path / "foreign")))
    with pytest.raises(ModelFilesError, match=SPARSE_TASK):
        OnnxEmbedder(folder)
    with pytest.raises(UnsupportedError, match=r"it has logits; --task sparse makes sparse embeddings of logits"):
        OnnxEmbedder(folder, pooling="mean", normalize=True)
    with OnnxEmbedder(folder, task="sparse") as model:
        rows = sparse_rows(model)
        together = sparse_rows(model, TEXTS[:1])
    assert_sparse_equal(rows[:1], together)
    assert all(row and min(row.values()) > 0 for row in rows)
    adopt(folder, tmp_path / "out", AdoptOptions(flags=Flags(task="sparse")))
    with OnnxEmbedder(tmp_path / "out") as model:
        assert_sparse_equal(sparse_rows(model), rows)


def test_a_masked_language_model_checkpoint_names_the_sparse_task(tmp_path: Path) -> None:
    checkpoint = write_masked_lm(tmp_path / "checkpoint")
    shutil.rmtree(checkpoint / "1_Pooling", ignore_errors=True)
    with pytest.raises(ModelFilesError, match=SPARSE_TASK):
        export(checkpoint, tmp_path / "out")


def test_finished_sparse_embeddings_are_taken_as_they_are(tmp_path: Path) -> None:
    checkpoint = write_masked_lm(tmp_path / "checkpoint")
    export(checkpoint, tmp_path / "artifact", Options(flags=Flags(task="sparse")))
    folder = shutil.copytree(tmp_path / "artifact", tmp_path / "foreign")
    for name in (FILE_NAME, "config_sentence_transformers.json"):
        (folder / name).unlink()
    with OnnxEmbedder(folder, task="sparse") as model, OnnxEmbedder(tmp_path / "artifact") as artifact:
        assert_sparse_equal(sparse_rows(model), sparse_rows(artifact))


# ---- multi-vector embeddings


def token_vectors(model: OnnxEmbedder) -> list[Array]:
    return [vectors for kind in TEXT_KINDS for vectors in model.embed_multi_vector(TEXTS, kind=kind)]


@pytest.mark.parametrize("write", [write_colbert_encoder, write_pylate, write_stanford_colbert])
@pytest.mark.parametrize("name", ["multi_vector", "contextual", "last_hidden_state"])
def test_a_colbert_graph_gives_the_vectors_of_its_checkpoint(
    tmp_path: Path, write: Callable[[Path], Path], name: str
) -> None:
    """Markers, query expansion, skipped words and lengths are read from the files beside the graph."""
    checkpoint = write(tmp_path / "checkpoint")
    export(checkpoint, tmp_path / "artifact")
    shutil.copytree(tmp_path / "artifact/onnx", checkpoint / "onnx")
    (checkpoint / "model.safetensors").unlink()
    change(checkpoint, only("multi_vector", name))
    with OnnxEmbedder(tmp_path / "artifact") as artifact:
        expected = token_vectors(artifact)
    adopt(checkpoint, tmp_path / "out")
    for folder in (checkpoint, tmp_path / "out"):
        with OnnxEmbedder(folder) as model:
            for ours, theirs in zip(token_vectors(model), expected, strict=True):
                assert_vectors_equal(ours, theirs)


@pytest.mark.torch
def test_a_traced_colbert_gives_the_vectors_of_the_reference(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    checkpoint = write_colbert_encoder(
        tmp_path / "checkpoint", expansion={"strategy": "fixed", "length": 8, "attend": False}, document_length=16
    )
    weight = load_file(checkpoint / "1_Dense/model.safetensors")["linear.weight"]
    trace(checkpoint, "AutoModel", "last_hidden_state", lambda tokens: torch.nn.functional.linear(tokens, weight))
    printed = command("adopt", checkpoint, "-o", tmp_path / "out")
    assert "verified fp32 multi_vector" in printed  # against sentence-transformers' MultiVectorEncoder


@pytest.mark.parametrize("task", ["embedding", "multi_vector"])
def test_a_graph_that_normalizes_where_the_files_do_not_is_refused(tmp_path: Path, task: str) -> None:
    write = write_sentence_bert if task == "embedding" else write_colbert_encoder
    checkpoint = write(tmp_path / "checkpoint")
    export(checkpoint, tmp_path / "artifact")
    shutil.copytree(tmp_path / "artifact/onnx", checkpoint / "onnx")
    output = "sentence_embedding" if task == "embedding" else "multi_vector"
    change(checkpoint, only(output, output))
    OnnxEmbedder(checkpoint).close()
    modules = json.loads((checkpoint / "modules.json").read_text())
    write_json(checkpoint / "modules.json", [each for each in modules if "Normalize" not in each["type"]])
    with pytest.raises(ModelFilesError, match=f"scales {output} to length 1, but the model's vectors are not scaled"):
        OnnxEmbedder(checkpoint)


def test_a_graph_that_stops_before_the_projection_is_refused(tmp_path: Path) -> None:
    checkpoint = write_colbert_encoder(tmp_path / "checkpoint")
    export(checkpoint, tmp_path / "artifact")
    (tmp_path / "artifact" / FILE_NAME).unlink()
    shutil.copytree(tmp_path / "artifact/onnx", checkpoint / "onnx")
    change(checkpoint, only("token_embeddings", "last_hidden_state"))
    with pytest.raises(UnsupportedError, match=r"last_hidden_state has 32 numbers .* nothing shows .* projected"):
        OnnxEmbedder(checkpoint)


def test_all_three_kinds_of_bge_m3_are_adopted_where_the_graph_has_them(tmp_path: Path) -> None:
    checkpoint = write_bge_m3(tmp_path / "checkpoint")
    export(checkpoint, tmp_path / "artifact")
    shutil.copytree(tmp_path / "artifact/onnx", checkpoint / "onnx")
    with OnnxEmbedder(tmp_path / "artifact") as artifact, OnnxEmbedder(checkpoint) as model:
        expected, ours = artifact.encode_all(TEXTS), model.encode_all(TEXTS)
        assert expected.dense is not None
        assert ours.dense is not None
        assert_vectors_equal(ours.dense, expected.dense)
        for found, wanted in zip(ours.multi_vector or [], expected.multi_vector or [], strict=True):
            assert_vectors_equal(found, wanted)
        assert [row.as_dict() for row in ours.sparse or []] == [row.as_dict() for row in expected.sparse or []]
    change(checkpoint, lambda graph: rename(graph, {"sparse_weights": "", "multi_vector": ""}))
    with OnnxEmbedder(checkpoint) as model:
        assert model.manifest.tasks == ("embedding",)


# ---- Dense layers that change no width


def test_a_graph_that_stops_before_a_dense_of_the_same_width_is_seen(tmp_path: Path) -> None:
    tanh = "torch.nn.modules.activation.Tanh"
    checkpoint = write_sentence_bert(tmp_path / "checkpoint", dense=((32, 32, tanh),))
    export(checkpoint, tmp_path / "artifact")
    with OnnxEmbedder(tmp_path / "artifact") as artifact:
        expected = artifact.encode(TEXTS)
    plain = write_sentence_bert(tmp_path / "plain", normalize=False)  # the same encoder without Dense
    export(plain, tmp_path / "plain-artifact")
    folder = shutil.copytree(checkpoint, tmp_path / "before")
    (folder / "model.safetensors").unlink()
    shutil.copytree(tmp_path / "plain-artifact/onnx", folder / "onnx")
    with pytest.raises(UnsupportedError, match=r"leaves out the Dense layers of .*: onnxembed adopt .* -o DIR"):
        OnnxEmbedder(folder)
    adopt(folder, tmp_path / "out")
    with OnnxEmbedder(tmp_path / "out") as model:
        assert_vectors_equal(model.encode(TEXTS), expected)
    after = foreign(checkpoint, tmp_path / "after")
    with OnnxEmbedder(after) as model:
        assert_vectors_equal(model.encode(TEXTS), expected)
    change(after, only("sentence_embedding", "sentence_embedding"))
    with pytest.raises(UnsupportedError, match=r"alone, and nothing shows whether that is before or after .* Dense"):
        OnnxEmbedder(after)
