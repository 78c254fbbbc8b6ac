"""Models with an ONNX graph from another exporter: used as they are, and turned into artifacts."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from foreign import at_root, change, command, foreign, rename, without_sentence_files
from hub_server import HubServer
from onnxembed import OnnxEmbedder
from onnxembed.cli import cli
from onnxembed.decisions.flags import Flags
from onnxembed.errors import (
    HubError,
    IntegrityError,
    ModelFilesError,
    UnsupportedError,
    UsageError,
    VerificationError,
)
from onnxembed.export.adopt import AdoptOptions, adopt
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.hub.source import HubOptions
from onnxembed.loading.onnx_file import read_onnx
from onnxembed.manifest import FILE_NAME, PoolingMode, read_manifest
from onnxembed.verify.comparison import Comparison
from onnxembed.verify.verify import verify_against
from tiny import TEXTS as ALL_TEXTS
from tiny import change_json, write_sentence_bert
from tiny_embedders import assert_vectors_equal

# Without the one that is cut, which is warned of.
TEXTS = ALL_TEXTS[:-1]
GELU = "torch.nn.modules.activation.GELU"


def vectors(model: Path | str, **options: Any) -> Any:
    with OnnxEmbedder(model, **options) as embedder:
        return embedder.encode(TEXTS)


@pytest.fixture(scope="module")
def expected(artifact: Path) -> Any:
    return vectors(artifact)


# ---- in memory


def test_a_graph_without_a_manifest_is_used_as_it_is(checkpoint: Path, tmp_path: Path, expected: Any) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")
    with OnnxEmbedder(folder) as model:
        assert_vectors_equal(model.encode(TEXTS), expected)
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
        assert_vectors_equal(model.encode(TEXTS), expected)
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


def test_precisions_are_found_by_their_names_and_checked_by_their_weights(checkpoint: Path, tmp_path: Path) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign", precisions=("fp32", "fp16"))
    with OnnxEmbedder(folder, precision="fp16") as half:
        assert list(half.manifest.variants) == ["fp16"]
        assert_vectors_equal(half.encode(TEXTS), vectors(folder, precision="fp32"), atol=1e-2)
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


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dimension", 8, r"sentence_embedding has 32 numbers, which does not go with embedding\.dimension"),
        ("output", "other", r"it has no output other, which the manifest reads"),
    ],
)
def test_a_manifest_that_contradicts_its_adopted_graph_is_found_when_it_is_opened(
    checkpoint: Path, tmp_path: Path, key: str, value: Any, message: str
) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign", "sentence_embedding", "")
    adopt(folder, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / FILE_NAME).read_text(encoding="utf-8"))
    change_json(tmp_path / "out" / FILE_NAME, embedding={**manifest["embedding"], key: value})
    with pytest.raises(ModelFilesError, match=message):
        OnnxEmbedder(tmp_path / "out")


# ---- what is missing, and what is refused


def test_without_a_graph_the_error_names_the_export_command(checkpoint: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"make one with: onnxembed export .* -o DIR$"):
        OnnxEmbedder(checkpoint)


def test_several_graphs_are_never_guessed(checkpoint: Path, tmp_path: Path, expected: Any) -> None:
    folder = at_root(foreign(checkpoint, tmp_path / "foreign"), "model_optimized.onnx")
    assert_vectors_equal(vectors(folder), expected)  # the only one
    shutil.copy(folder / "model_optimized.onnx", folder / "encoder.onnx")
    with pytest.raises(ModelFilesError, match=r"several ONNX files.*: encoder.onnx, model_optimized.onnx$"):
        OnnxEmbedder(folder)
    assert_vectors_equal(vectors(folder, onnx_file="encoder.onnx"), expected)
    with pytest.raises(UsageError, match=r"has no other.onnx; its ONNX files: encoder.onnx, model_optimized.onnx$"):
        OnnxEmbedder(folder, onnx_file="other.onnx")


def test_a_folder_without_sentence_transformers_files_names_the_missing_fact(
    checkpoint: Path, tmp_path: Path, expected: Any
) -> None:
    """The layout of FastEmbed's own repositories."""
    folder = without_sentence_files(at_root(foreign(checkpoint, tmp_path / "foreign", "", "last_hidden_state")))
    with pytest.raises(
        ModelFilesError,
        match=r"pass --pooling \(cls, mean, \.\.\.\), to: onnxembed adopt .* -o DIR, or load it with pooling=\.\.\.$",
    ):
        OnnxEmbedder(folder)
    with pytest.raises(ModelFilesError, match=r"pass --normalize or --no-normalize, to: .* with normalize=\.\.\.$"):
        OnnxEmbedder(folder, pooling="mean")
    assert_vectors_equal(vectors(folder, pooling="mean", normalize=True, max_length=20), expected)
    out = tmp_path / "out"
    with pytest.raises(ModelFilesError, match=r"pass --normalize or --no-normalize$"):
        adopt(folder, out, AdoptOptions(flags=Flags(pooling=("mean",))))
    assert not out.exists()
    command("adopt", folder, "-o", out, "--pooling", "mean", "--normalize", "--max-length", "20", "--no-verify")
    assert_vectors_equal(vectors(out), expected)
    assert read_manifest(out).require_embedding().pooling.origin == "flag"


def test_another_pooling_is_done_on_the_tokens(tmp_path: Path) -> None:
    checkpoint = write_sentence_bert(tmp_path / "checkpoint")
    modes: tuple[PoolingMode, ...] = ("cls", "max")
    flags = Flags(pooling=modes, normalize=False)
    export(checkpoint, tmp_path / "artifact", Options(flags=flags))
    adopt(foreign(checkpoint, tmp_path / "both"), tmp_path / "adopted", AdoptOptions(flags=flags))
    assert_vectors_equal(vectors(tmp_path / "adopted"), vectors(tmp_path / "artifact"))
    only_pooled = foreign(checkpoint, tmp_path / "pooled", "sentence_embedding", "")
    for flags in (Flags(pooling=("cls",)), Flags(normalize=False)):
        with pytest.raises(UsageError, match="neither --pooling nor --no-normalize can change that"):
            adopt(only_pooled, tmp_path / "out", AdoptOptions(flags=flags))


def test_pooling_that_only_a_flag_states_is_not_taken_from_the_graph(checkpoint: Path, tmp_path: Path) -> None:
    """The graph pools in a way that no file states; it also gives token embeddings."""
    folder = without_sentence_files(foreign(checkpoint, tmp_path / "foreign"))
    adopt(folder, tmp_path / "out", AdoptOptions(flags=Flags(pooling=("cls",), normalize=True, max_length=20)))
    export(checkpoint, tmp_path / "artifact", Options(flags=Flags(pooling=("cls",))))
    assert_vectors_equal(vectors(tmp_path / "out"), vectors(tmp_path / "artifact"))


def extra_input(graph: onnx.GraphProto) -> None:
    graph.input.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["B", "T"]))


def no_mask(graph: onnx.GraphProto) -> None:
    graph.input.remove(next(value for value in graph.input if value.name == "attention_mask"))


def fixed(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.shape.dim[1].dim_value = 128


def flat(graph: onnx.GraphProto) -> None:
    rename(graph, {"sentence_embedding": "", "token_embeddings": "last_hidden_state"})
    del graph.output[0].type.tensor_type.shape.dim[0]


def wide(graph: onnx.GraphProto) -> None:
    graph.output[0].type.tensor_type.shape.dim[2].dim_value = 33


def unnamed(graph: onnx.GraphProto) -> None:
    rename(graph, {"sentence_embedding": "output_0", "token_embeddings": "output_1"})


@pytest.mark.parametrize(
    ("flaw", "message"),
    [
        (extra_input, r"takes position_ids, which onnxembed does not feed; it feeds input_ids, attention_mask"),
        (no_mask, r"takes no attention_mask, so texts cannot be run together"),
        (fixed, r"input_ids has shape \[free, 128\], not a free number .* both axes dynamic"),
        (flat, r"last_hidden_state has shape \[free, 32\], not texts by tokens by numbers"),
        (wide, r"token_embeddings has 33 numbers, but the model's files say 32"),
        (unnamed, r"no output sentence_embedding, token_embeddings or last_hidden_state; it has output_1, output_0"),
    ],
)
def test_a_graph_that_cannot_be_fed_or_read_is_refused(
    checkpoint: Path, tmp_path: Path, flaw: Callable[[onnx.GraphProto], None], message: str
) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")
    change(folder, flaw)
    with pytest.raises((UnsupportedError, ModelFilesError), match=message):
        OnnxEmbedder(folder)


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\n", bytes(range(256)), b"\x08\x01"]
)
def test_a_file_that_is_not_a_graph_is_refused(checkpoint: Path, tmp_path: Path, content: bytes) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")
    (folder / "onnx/model.onnx").write_bytes(content)
    with pytest.raises(ModelFilesError, match=r"model\.onnx is not an ONNX file"):
        OnnxEmbedder(folder)


def test_a_graph_that_is_cut_short_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")
    graph = folder / "onnx/model.onnx"
    whole = graph.read_bytes()
    for size in range(1, len(whole), len(whole) // 23):
        graph.write_bytes(whole[:size])
        with pytest.raises(ModelFilesError, match="is not an ONNX file"):
            OnnxEmbedder(folder)


def test_a_cross_encoder_is_not_adopted_as_an_embedder(checkpoint: Path, tmp_path: Path) -> None:
    folder = without_sentence_files(foreign(checkpoint, tmp_path / "foreign"))
    (folder / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
    with pytest.raises(ModelFilesError, match=r"names BertModel, not a \.\.\.ForSequenceClassification"):
        OnnxEmbedder(folder)


# ---- on disk


@pytest.mark.parametrize("names", [("", "last_hidden_state"), ("sentence_embedding", "token_embeddings")])
def test_an_adopted_folder_is_an_artifact(
    checkpoint: Path, tmp_path: Path, expected: Any, names: tuple[str, str]
) -> None:
    folder = at_root(foreign(checkpoint, tmp_path / "foreign", *names))
    out = tmp_path / "out"
    printed = command("adopt", folder, "-o", out)
    assert "vectors are finite, and the same for a text alone and among others" in printed
    assert "not verified (its weights are not beside the graph)" in printed
    assert_vectors_equal(vectors(out), expected)
    manifest = read_manifest(out)
    assert manifest.model.engine == "adopted"
    assert manifest.files.keys() >= {"onnx/model.onnx", "tokenizer.json", "modules.json"}
    assert (out / "onnx/model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
    with pytest.raises(UsageError, match="pass --force"):
        adopt(folder, out)
    adopt(folder, out, AdoptOptions(force=True))
    (out / "tokenizer.json").write_text("{}")
    with pytest.raises(IntegrityError):
        OnnxEmbedder(out)


def test_dense_layers_that_the_graph_leaves_out(tmp_path: Path) -> None:
    checkpoint = write_sentence_bert(tmp_path / "checkpoint", dense=((32, 8, GELU),))
    folder = foreign(checkpoint, tmp_path / "foreign", "", "token_embeddings")
    with pytest.raises(UnsupportedError, match=r"leaves out the Dense layers of .*: onnxembed adopt .* -o DIR"):
        OnnxEmbedder(folder)
    adopt(folder, tmp_path / "out")
    export(checkpoint, tmp_path / "artifact", Options())
    assert_vectors_equal(vectors(tmp_path / "out"), vectors(tmp_path / "artifact"))
    assert_vectors_equal(vectors(foreign(checkpoint, tmp_path / "pooled")), vectors(tmp_path / "artifact"))


def test_weights_in_a_file_of_their_own(checkpoint: Path, tmp_path: Path, expected: Any) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")
    path = folder / "onnx/model.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="model.onnx.data", size_threshold=1024)
    assert read_onnx(path).data == {"model.onnx.data"}
    assert_vectors_equal(vectors(folder), expected)
    adopt(folder, tmp_path / "out")
    assert_vectors_equal(vectors(tmp_path / "out"), expected)
    assert read_manifest(tmp_path / "out").variants["fp32"].data == "onnx/model.onnx.data"
    (folder / "onnx/model.onnx.data").unlink()
    with pytest.raises(ModelFilesError, match=r"has no onnx/model\.onnx\.data"):
        OnnxEmbedder(folder)


def test_weights_outside_of_the_folder_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")

    def lead_out(graph: onnx.GraphProto) -> None:
        weight = graph.initializer[0]
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="../../secret")

    model = onnx.load(folder / "onnx/model.onnx")
    lead_out(model.graph)
    (folder / "onnx/model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFilesError, match=r"keeps weights in '\.\./\.\./secret', which is outside its folder"):
        OnnxEmbedder(folder)


def test_vectors_that_are_not_numbers_leave_no_folder(checkpoint: Path, tmp_path: Path) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")

    def spoil(graph: onnx.GraphProto) -> None:
        weight = next(tensor for tensor in graph.initializer if len(tensor.dims) > 1)
        weight.CopyFrom(onnx.numpy_helper.from_array(np.full(weight.dims, np.nan, np.float32), weight.name))

    change(folder, spoil)
    done = CliRunner().invoke(cli, ["adopt", str(folder), "-o", str(tmp_path / "out")])
    assert isinstance(done.exception, VerificationError)
    assert "fp32 vectors are not finite" in str(done.exception)
    assert not (tmp_path / "out").exists()


# ---- from the hub


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_a_repository_is_adopted_and_then_needs_no_network(
    checkpoint: Path, tmp_path: Path, cache: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign", precisions=("fp32", "fp16"))
    path = folder / "onnx/model.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="model.onnx_data", size_threshold=1024)
    shutil.copy(checkpoint / "model.safetensors", folder)
    with HubServer({"org/model": {"main": folder}}) as hub:
        hub.answer(monkeypatch)
        assert_vectors_equal(vectors("org/model", cache_dir=cache), expected)
        assert "model.safetensors" not in hub.downloaded()
        assert "onnx/model_fp16.onnx" not in hub.downloaded()
        hub.requests.clear()
        with OnnxEmbedder("org/model", cache_dir=cache) as model:
            assert model.revision == model.manifest.source.revision == hub.commit("org/model")
        assert hub.requests == ["GET /api/models/org/model/revision/main"]
        assert_vectors_equal(vectors("org/model", cache_dir=cache, precision="fp16"), expected, atol=1e-2)
        printed = command("inspect", "org/model", "--cache-dir", cache)
        assert "engine           adopted (onnx/model.onnx was made by onnxembed)" in printed
        assert "no hashes recorded, so none are checked" in printed
        out = tmp_path / "out"
        adopt("org/model", out, hub=HubOptions(cache_dir=cache))
        assert read_manifest(out).source.revision == hub.commit("org/model")
    assert_vectors_equal(vectors("org/model", cache_dir=cache, local_files_only=True), expected)
    assert_vectors_equal(vectors(out), expected)
    with pytest.raises(HubError):
        OnnxEmbedder("org/model", cache_dir=cache, local_files_only=True, onnx_file="onnx/other.onnx")


def test_a_manifest_in_the_repository_comes_first(artifact: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer({"org/model": {"main": artifact}}) as hub:
        hub.answer(monkeypatch)
        with OnnxEmbedder("org/model", cache_dir=cache) as model:
            assert model.manifest == read_manifest(artifact)


def test_a_repository_without_a_graph_names_the_export_command(
    checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HubServer({"org/model": {"main": checkpoint}}) as hub:
        hub.answer(monkeypatch)
        with pytest.raises(ModelFilesError, match=r"make one with: onnxembed export org/model -o DIR$"):
            OnnxEmbedder("org/model", cache_dir=cache)
        assert hub.downloaded() == []


def test_the_recipe_of_a_hub_id_is_followed(
    checkpoint: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = foreign(checkpoint, tmp_path / "foreign")
    change_json(folder / "config_sentence_transformers.json", prompts={})
    with HubServer({"intfloat/e5-small-v2": {"main": folder}}) as hub:
        hub.answer(monkeypatch)
        with OnnxEmbedder("intfloat/e5-small-v2", cache_dir=cache) as model:
            prompts = model.manifest.prompts.texts
    assert prompts.origin == "recipe"
    assert prompts.value["query"] == "query: "


# ---- what others really make


@pytest.mark.torch
def test_a_traced_graph_gives_the_vectors_of_the_reference(tmp_path: Path) -> None:
    """torch's exporter, the plain class, in optimum's layout: last_hidden_state only, model.onnx at the root."""
    checkpoint = write_sentence_bert(tmp_path / "checkpoint", prompts={"query": "to be: "})
    trace(checkpoint, checkpoint / "model.onnx")
    printed = command("adopt", checkpoint, "-o", tmp_path / "out")
    assert "verified fp32" in printed
    manifest = read_manifest(tmp_path / "out")
    assert manifest.verification["fp32"].max_abs_diff <= 1e-5
    assert manifest.model.engine_reason is not None
    assert manifest.model.engine_reason.startswith("model.onnx was made by pytorch ")
    assert_vectors_equal(vectors(checkpoint), vectors(tmp_path / "out"))


@pytest.mark.torch
def test_a_graph_of_onnxruntimes_optimizer_gives_the_vectors_of_the_reference(tmp_path: Path) -> None:
    optimizer = pytest.importorskip("onnxruntime.transformers.optimizer")
    checkpoint = write_sentence_bert(tmp_path / "checkpoint")
    trace(checkpoint, tmp_path / "traced.onnx")
    optimized = optimizer.optimize_model(str(tmp_path / "traced.onnx"), "bert", num_heads=4, hidden_size=32)
    (checkpoint / "onnx").mkdir()
    optimized.save_model_to_file(str(checkpoint / "onnx/model_O2.onnx"))
    adopt(checkpoint, tmp_path / "out", AdoptOptions(onnx_file="onnx/model_O2.onnx"))
    manifest = verify_against(Comparison(tmp_path / "out", read_manifest(tmp_path / "out"), checkpoint))
    assert manifest.verification["fp32"].max_abs_diff <= 1e-5


@pytest.mark.torch
@pytest.mark.parametrize("causal", [True, False])
def test_a_decoders_attention_is_measured(tmp_path: Path, causal: bool) -> None:
    """One exporter makes every decoder causal, whatever its config.json says."""
    checkpoint = write_decoder(tmp_path / "checkpoint", is_causal=causal)
    trace(checkpoint, checkpoint / "model.onnx")
    export(checkpoint, tmp_path / "artifact", Options())
    with OnnxEmbedder(checkpoint) as model, OnnxEmbedder(tmp_path / "artifact") as built:
        assert_vectors_equal(model.encode(TEXTS), built.encode(TEXTS), atol=1e-5)
        attention = model.manifest.model.attention
    assert attention.value == ("causal" if causal else "bidirectional")
    assert attention.reason.endswith("; measured in the graph")
    change_json(checkpoint / "config.json", is_causal=not causal)
    with pytest.raises(ModelFilesError, match=r"attends in the \w+ way, but the model is .*: is_causal is"):
        OnnxEmbedder(checkpoint)


def write_decoder(folder: Path, *, is_causal: bool) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaModel

    write_sentence_bert(folder, pooling="lasttoken", max_length=20)
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.15,
        pad_token_id=0,
    )
    LlamaModel(config).save_pretrained(folder)
    change_json(folder / "config.json", is_causal=is_causal)
    return folder


def trace(checkpoint: Path, file: Path) -> None:
    """The stock class through torch's exporter."""
    import torch
    from transformers import AutoModel

    model: Any = AutoModel.from_pretrained(checkpoint, attn_implementation="eager", dtype=torch.float32).eval()
    model.config.use_cache = False

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    ids = torch.ones((2, 7), dtype=torch.int64)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Encoder(),
            (ids, ids.clone()),  # one tensor twice would become one input
            str(file),
            input_names=["input_ids", "attention_mask"],
            output_names=["last_hidden_state"],
            dynamic_shapes=(axes, axes),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
