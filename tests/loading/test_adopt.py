"""Models with an ONNX graph from another exporter: used in memory, as they are."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from foreign import SHORT_TEXTS, at_root, change, command, foreign, rename, vectors
from onnxembed import OnnxEmbedder
from onnxembed.decisions.flags import Flags
from onnxembed.errors import (
    ModelFilesError,
    UsageError,
)
from onnxembed.execution.session import Session
from onnxembed.export.adopt import adopt
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import FILE_NAME
from tiny import change_json, write_sentence_bert
from tiny_embedders import assert_vectors_equal


def test_a_graph_without_a_manifest_is_used_as_it_is(checkpoint: Path, tmp_path: Path, expected: Any) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")
    with OnnxEmbedder(folder) as model:
        assert_vectors_equal(model.encode(SHORT_TEXTS), expected)
        manifest = model.manifest
        assert manifest.prompts.texts.value == {"query": "to be: ", "title": "of: "}
    assert not (folder / FILE_NAME).exists()
    assert manifest.model.engine == "adopted"
    assert manifest.model.engine_reason == "onnx/model.onnx was made by onnxembed"
    assert manifest.require_embedding().pooling.reason.startswith("1_Pooling/config.json: ")
    assert manifest.tokenization.max_length.value == 20
    assert manifest.files == {}


@pytest.mark.parametrize("names", [("", "last_hidden_state"), ("", "token_embeddings"), ("sentence_embedding", "")])
def test_every_output_that_others_write(
    checkpoint: Path, tmp_path: Path, expected: Any, names: tuple[str, str]
) -> None:
    folder = at_root(foreign(checkpoint, tmp_path / "foreign", *names))
    with OnnxEmbedder(folder) as model:
        assert_vectors_equal(model.encode(SHORT_TEXTS), expected)
        embedding = model.manifest.require_embedding()
    assert embedding.graph_output in names
    assert embedding.pooled_by == ("graph" if names[0] else "runtime")


def test_the_tokenizer_is_changed_as_an_export_changes_it(checkpoint: Path, tmp_path: Path) -> None:
    """Its own file pads to 64, cuts at 5 and lower-cases; the other files say what is right."""
    folder = foreign(checkpoint, tmp_path / "foreign")
    shutil.copy(checkpoint / "tokenizer_config.json", folder)
    change_json(
        folder / "tokenizer.json",
        truncation={"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0},
        padding={"strategy": {"Fixed": 64}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
        | {"pad_to_multiple_of": None},
        normalizer={"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
        | {"strip_accents": None, "lowercase": False},
    )
    change_json(folder / "tokenizer_config.json", truncation_side="left")
    with OnnxEmbedder(folder) as model:
        ids = model.tokenize(["THE CAT", " ".join("abcdefghijklmnopqrstuvwxyz")])
        changes = " ".join(model.manifest.tokenization.changes)
    with OnnxEmbedder(foreign(checkpoint, tmp_path / "plain")) as plain:
        assert ids[0].ids.tolist() == plain.tokenize(["the cat"])[0].ids.tolist()
        tail = plain.tokenize([" ".join("ijklmnopqrstuvwxyz")])[0].ids.tolist()
    assert ids[1].ids.tolist() == tail
    assert "lowercase set to true" in changes
    assert "truncation to 20 tokens" in changes
    assert "padding removed" in changes


@pytest.mark.parametrize(("role", "token"), [("sep_token", "[MASK]"), ("cls_token", "[NONE]")])
def test_files_that_put_other_tokens_around_a_text_are_refused(
    checkpoint: Path, tmp_path: Path, role: str, token: str
) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")
    change_json(folder / "special_tokens_map.json", **{role: token})
    with pytest.raises(ModelFilesError, match=f"and .*{re.escape(token)}.* with the special tokens that its Bert"):
        OnnxEmbedder(folder)


@pytest.mark.torch
def test_texts_are_cut_as_the_class_does_with_which_the_reference_reads_them(tmp_path: Path) -> None:
    """The file cuts texts at spaces alone, and BertTokenizer at punctuation, too; the reference follows the class."""
    transformers = pytest.importorskip("transformers")
    folder = foreign(write_sentence_bert(tmp_path / "checkpoint"), tmp_path / "foreign")
    change_json(folder / "tokenizer.json", pre_tokenizer={"type": "WhitespaceSplit"})
    text = "the.cat,a"
    reference = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    with OnnxEmbedder(folder) as model:
        assert model.tokenize([text])[0].ids.tolist() == reference(text)["input_ids"]
        assert "as BertTokenizer does" in " ".join(model.manifest.tokenization.changes)


def test_the_vocabulary_of_another_model_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")
    change_json(folder / "config.json", vocab_size=10)
    with pytest.raises(ModelFilesError, match="another model's vocabulary"):
        OnnxEmbedder(folder)


def test_precisions_are_found_by_their_names_and_checked_by_their_weights(checkpoint: Path, tmp_path: Path) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign", precisions=("fp32", "fp16"))
    with OnnxEmbedder(folder, precision="fp16") as half:
        assert list(half.manifest.variants) == ["fp16"]
        assert_vectors_equal(half.encode(SHORT_TEXTS), vectors(folder, precision="fp32"), atol=1e-2)
    assert_vectors_equal(vectors(folder, onnx_file="onnx/model_fp16.onnx"), vectors(folder, precision="fp16"), atol=0)
    shutil.copy(folder / "onnx/model.onnx", folder / "onnx/model_fp16.onnx")
    with pytest.raises(UsageError, match=r"no fp16 graph .* weights of onnx/model_fp16.onnx are float32"):
        OnnxEmbedder(folder, precision="fp16")


def test_arguments_that_contradict_the_files_are_said(checkpoint: Path, tmp_path: Path) -> None:
    """By OnnxEmbedder, in its manifest, and by the command in the same words."""
    folder = foreign(checkpoint, tmp_path / "foreign", "", "token_embeddings")
    words = "--pooling: cls instead of mean (1_Pooling/config.json: pooling_mode_mean_tokens)"
    with pytest.warns(UserWarning, match=re.escape(f"these are not the model's own vectors: {words}")):
        model = OnnxEmbedder(folder, pooling="cls")
    with model:
        assert model.manifest.overruled == (words,)
    with OnnxEmbedder(folder, pooling="mean", normalize=True) as same:
        assert same.manifest.overruled is None
    said = command("adopt", folder, "-o", tmp_path / "out", "--pooling", "cls", "--no-verify").splitlines()[0]
    assert said == f"these are not the model's own vectors: {words}"


def test_an_artifact_is_never_adopted(artifact: Path) -> None:
    with OnnxEmbedder(artifact) as model:
        assert model.manifest.model.engine == "build"
    with pytest.raises(UsageError, match="is an artifact of onnxembed: choose its graph by precision"):
        OnnxEmbedder(artifact, onnx_file="onnx/model.onnx")
    with pytest.raises(UsageError, match=r"about which everything is decided: pooling, .* another program made"):
        OnnxEmbedder(artifact, pooling="cls")
    with pytest.raises(UsageError, match="is an artifact of onnxembed already"):
        adopt(artifact, artifact.parent / "again")


def test_vectors_are_normalized_where_the_files_say_so_whatever_the_graph_does(tmp_path: Path) -> None:
    checkpoint = write_sentence_bert(tmp_path / "checkpoint", normalize=True)
    plain = foreign(checkpoint, tmp_path / "foreign", flags=Flags(normalize=False))
    shutil.copy(checkpoint / "modules.json", plain)
    export(checkpoint, tmp_path / "artifact", Options())
    assert_vectors_equal(vectors(plain), vectors(tmp_path / "artifact"))


def test_int32_inputs_and_float16_outputs(checkpoint: Path, tmp_path: Path, expected: Any) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign", "", "last_hidden_state")

    def narrow(graph: onnx.GraphProto) -> None:
        last = graph.node[-1]  # the Identity that gave the output its name
        last.CopyFrom(helper.make_node("Cast", list(last.input), list(last.output), to=TensorProto.FLOAT16))
        graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
        ids = graph.input[0]
        for node in graph.node:
            node.input[:] = [f"{name}_64" if name == ids.name else name for name in node.input]
        ids.type.tensor_type.elem_type = TensorProto.INT32
        graph.node.insert(0, helper.make_node("Cast", [ids.name], [f"{ids.name}_64"], to=TensorProto.INT64))

    change(folder, narrow)
    ours = vectors(folder)
    assert ours.dtype == np.float32
    assert_vectors_equal(ours, expected, atol=2e-3)


def end_with_tokens(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Make a sentence embedding of the token embeddings by these nodes instead of the graph's own."""
    for node in graph.node:
        node.output[:] = ["unused" if name == "sentence_embedding" else name for name in node.output]
    graph.node.extend(nodes)


def first_token(graph: onnx.GraphProto) -> None:
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.int64), "first"))
    gather = helper.make_node("Gather", ["token_embeddings", "first"], ["sentence_embedding"], axis=1)
    end_with_tokens(graph, [gather])


def test_a_pooling_of_the_graphs_own_is_not_believed_where_the_tokens_are_there(
    checkpoint: Path, tmp_path: Path, expected: Any
) -> None:
    """The files say mean; the graph's sentence_embedding is the first token."""
    folder = foreign(checkpoint, tmp_path / "foreign")

    change(folder, first_token)
    assert_vectors_equal(vectors(folder), expected)
    change(folder, lambda graph: rename(graph, {"token_embeddings": ""}))
    with pytest.raises(ModelFilesError, match=r"is one token of each text, but pooling is mean \(file: 1_Pool"):
        OnnxEmbedder(folder)


def test_a_sum_over_tokens_is_not_the_first_token(tmp_path: Path) -> None:
    checkpoint = write_sentence_bert(tmp_path / "checkpoint", pooling="cls")
    folder = foreign(checkpoint, tmp_path / "foreign")

    def sum_of_all(graph: onnx.GraphProto) -> None:
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([1], np.int64), "slots"))
        total = helper.make_node("ReduceSum", ["token_embeddings", "slots"], ["sentence_embedding"], keepdims=0)
        end_with_tokens(graph, [total])
        rename(graph, {"token_embeddings": ""})

    change(folder, sum_of_all)
    with pytest.raises(ModelFilesError, match=r"sentence_embedding is a sum over the tokens .* but pooling is cls"):
        OnnxEmbedder(folder)


@pytest.mark.parametrize(
    ("texts", "message"),
    [(1, "of a short text has numbers that are not finite"), (2, "of a text changes with the padding")],
)
def test_a_graph_whose_numbers_are_not_finite_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: int, message: str
) -> None:
    """For any text, or only beside a longer one, as where a mask takes all that there is to attend to."""
    run = Session.run

    def running(self: Session, outputs: Any, feeds: Any, **options: Any) -> Any:
        results = run(self, outputs, feeds, **options)
        return [each * np.float32(np.nan) for each in results] if len(feeds["input_ids"]) >= texts else results

    folder = foreign(checkpoint, tmp_path / "foreign")
    monkeypatch.setattr(Session, "run", running)
    with pytest.raises(ModelFilesError, match=f"token_embeddings {message}"):
        OnnxEmbedder(folder)


def test_a_graph_that_does_not_follow_its_mask_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """A mean over all slots, padding included: right for a text alone, wrong beside a longer one."""
    folder = foreign(checkpoint, tmp_path / "foreign")

    def over_all_slots(graph: onnx.GraphProto) -> None:
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([1], np.int64), "slots"))
        mean = helper.make_node("ReduceMean", ["token_embeddings", "slots"], ["sentence_embedding"], keepdims=0)
        end_with_tokens(graph, [mean])
        rename(graph, {"token_embeddings": ""})

    change(folder, over_all_slots)
    message = r"sentence_embedding of a text changes with the padding beside it, so the graph does not follow its att"
    with pytest.raises(ModelFilesError, match=message):
        OnnxEmbedder(folder)
    with pytest.raises(ModelFilesError, match=message):
        command("adopt", folder, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()
