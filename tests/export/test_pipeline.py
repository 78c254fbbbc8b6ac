"""The whole journey: a checkpoint in, an artifact out, the same bytes every time, or nothing at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from onnxembed import OnnxEmbedder
from onnxembed.commands.new_folder import DraftVerifier
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, UnsupportedError, UsageError
from onnxembed.export.artifact import graph_file
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.hub.source import Fetched
from onnxembed.manifest import CARD_FILE, FILE_NAME, Manifest, Precision, read_manifest
from onnxembed.manifest.describe import decisions
from tiny import (
    BERT_LIKE,
    TEXTS,
    change_json,
    change_weights,
    write_bert,
    write_encoder,
    write_json,
    write_sentence_bert,
)
from tiny_heads import write_masked_lm
from tiny_rerankers import write_reranker

BOTH: tuple[Precision, ...] = ("fp32", "fp16")
TANH = "torch.nn.modules.activation.Tanh"
SHORT = [text for text in TEXTS if len(text) < 15]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def vectors(folder: Path, texts: list[str] = SHORT) -> NDArray[np.float32]:
    with OnnxEmbedder(folder, providers="cpu", threads=1) as model:
        return model.encode(texts)


# ---- what an artifact is


def test_an_artifact_has_the_files_that_others_look_for(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "model", dense=((32, 8, TANH),))
    manifest = export(folder, tmp_path / "out", Options(precisions=BOTH))
    expected = {
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "config.json",
        "config_sentence_transformers.json",
        "modules.json",
        "onnx/model.onnx",
        "onnx/model_fp16.onnx",
        "proof.npz",
        "sentence_bert_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert files(tmp_path / "out").keys() == expected | {FILE_NAME, CARD_FILE}
    assert manifest.files.keys() == expected


def test_the_manifest_is_what_was_returned_and_what_was_decided(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "model", prompts={"query": "q: "}, dense=((32, 8, TANH),))
    manifest = export(folder, tmp_path / "out", Options(precisions=BOTH))
    assert read_manifest(tmp_path / "out") == manifest
    assert (manifest.source.model, manifest.source.revision) == (str(folder), None)
    assert (manifest.model.model_type, manifest.model.engine) == ("bert", "build")
    assert manifest.model.inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert manifest.require_embedding().pooled_by == "graph"
    assert manifest.require_embedding().dimension == 8
    assert [layer.activation for layer in manifest.require_embedding().dense] == ["tanh"]
    assert manifest.tokenization.max_length.value == 20
    assert manifest.prompts.texts.value == {"query": "q: "}
    assert {name: variant.file for name, variant in manifest.variants.items()} == {
        "fp32": "onnx/model.onnx",
        "fp16": "onnx/model_fp16.onnx",
    }
    assert set(manifest.created_with) == {"onnxembed", "onnx", "tokenizers"}
    assert manifest.verification == {}


def test_hashes_are_those_of_the_files(tmp_path: Path) -> None:
    export(write_sentence_bert(tmp_path / "model"), tmp_path / "out")
    contents = files(tmp_path / "out")
    for name, record in read_manifest(tmp_path / "out").files.items():
        assert record.sha256 == hashlib.sha256(contents[name]).hexdigest()
        assert record.bytes == len(contents[name])


@pytest.mark.parametrize("limit", [0, 2**28])
@pytest.mark.parametrize("pooling_out", [True, False])
def test_exporting_twice_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling_out: bool, limit: int
) -> None:
    monkeypatch.setattr(graph_file, "INLINE_LIMIT", limit)
    folder = write_sentence_bert(tmp_path / "model", dense=((32, 8, TANH),), prompts={"b": "1", "a": "2"})
    for name in ("one", "two"):
        export(folder, tmp_path / name, Options(precisions=BOTH, pooling_out=pooling_out))
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert one == two
    assert ("onnx/model.onnx_data" in one) == (limit == 0)


@pytest.mark.parametrize("model_type", BERT_LIKE)
def test_every_model_type_is_exported_and_embeds(tmp_path: Path, model_type: str) -> None:
    export(write_encoder(tmp_path / "model", model_type), tmp_path / "out", Options(precisions=BOTH))
    made = vectors(tmp_path / "out")
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, rtol=1e-5)
    assert np.abs(made[0] - made[1]).max() > 1e-3


# ---- the same model in other clothes


def equal_to_plain(tmp_path: Path, folder: Path) -> None:
    export(write_sentence_bert(tmp_path / "plain"), tmp_path / "plain-out")
    export(folder, tmp_path / "out")
    np.testing.assert_array_equal(vectors(tmp_path / "out"), vectors(tmp_path / "plain-out"))


def test_shards_give_the_same_graph_as_a_single_file(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "model")
    export(folder, tmp_path / "single")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {name: f"model-0000{i % 3}-of-00003.safetensors" for i, name in enumerate(weights)}
    for shard in set(weight_map.values()):
        save_file({name: weights[name] for name in weights if weight_map[name] == shard}, folder / shard)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    export(folder, tmp_path / "sharded")
    assert files(tmp_path / "sharded") == files(tmp_path / "single")


def test_the_prefix_of_a_task_class_changes_nothing(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "model", prefix="bert.")
    change_weights(
        folder, **{"cls.predictions.bias": np.zeros(3, np.float32), "bert.embeddings.position_ids": np.arange(64)}
    )
    equal_to_plain(tmp_path, folder)


def test_a_transformer_in_a_folder_of_its_own_changes_nothing(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "model")
    (folder / "0_Transformer").mkdir()
    for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.move(folder / file, folder / "0_Transformer")
    shutil.move(folder / "sentence_bert_config.json", folder / "0_Transformer")
    listed = json.loads((folder / "modules.json").read_text())
    listed[0]["path"] = "0_Transformer"
    write_json(folder / "modules.json", listed)
    equal_to_plain(tmp_path, folder)
    assert (tmp_path / "out/tokenizer.json").is_file()


def test_old_names_of_the_layer_norms_change_nothing(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "model")
    renamed = {
        name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file(renamed, folder / "model.safetensors")
    equal_to_plain(tmp_path, folder)


# ---- flags


def test_pooling_left_to_the_runtime_gives_the_same_vectors(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "model", dense=((64, 8, TANH),))
    write_json(folder / "1_Pooling/config.json", {"embedding_dimension": 32, "pooling_mode": ["max", "cls"]})
    export(folder, tmp_path / "graph")
    manifest = export(folder, tmp_path / "runtime", Options(pooling_out=True))
    assert manifest.require_embedding().pooled_by == "runtime"
    assert {"2_Dense/weight.npy", "2_Dense/bias.npy"} <= manifest.files.keys()
    assert "ReduceMax" not in manifest.variants["fp32"].operators
    np.testing.assert_allclose(vectors(tmp_path / "runtime"), vectors(tmp_path / "graph"), atol=1e-6)


@pytest.mark.parametrize("pooling_out", [True, False])
@pytest.mark.parametrize("configured", [True, False])
@pytest.mark.parametrize("flag", [True, False, None])
def test_normalization_is_the_flags_else_the_files(
    tmp_path: Path, configured: bool, flag: bool | None, pooling_out: bool
) -> None:
    folder = write_sentence_bert(tmp_path / "model", normalize=configured)
    export(folder, tmp_path / "out", Options(flags=Flags(normalize=flag), pooling_out=pooling_out))
    expected = configured if flag is None else flag
    norms = np.linalg.norm(vectors(tmp_path / "out"), axis=1)
    assert (np.abs(norms - 1).max() < 1e-5) == expected


def test_flags_make_an_artifact_of_a_plain_transformers_folder(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "model")
    export(folder, tmp_path / "plain", Options(flags=Flags(("mean",), True, 20)))
    export(write_sentence_bert(tmp_path / "sentence"), tmp_path / "out")
    np.testing.assert_array_equal(vectors(tmp_path / "plain"), vectors(tmp_path / "out"))


def test_ignored_keys_are_recorded(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "model", novelty=1)
    with pytest.raises(UnsupportedError, match="--ignore-config-key novelty"):
        export(folder, tmp_path / "out")
    manifest = export(folder, tmp_path / "out", Options(ignored_config_keys=("novelty",)))
    assert manifest.model.ignored_config_keys == ("novelty",)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["mlp.dense.weight", "mlp"])
def test_a_tensor_is_left_out_where_a_comparison_shows_that_it_may_be(tmp_path: Path, name: str) -> None:
    """SimCSE's extra layer, which the reference does not read either; and one that the architecture needs."""
    pytest.importorskip("sentence_transformers", reason="the reference")
    folder, output = write_sentence_bert(tmp_path / "model"), tmp_path / "out"
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "mlp.dense.weight": np.ones((32, 32), np.float32)}, folder / "model.safetensors")
    with pytest.raises(UnsupportedError, match=r"such as mlp\.dense\.weight\).*--ignore-tensor mlp\.dense\.weight"):
        export(folder, output)
    options = Options(ignored_tensors=(name,))
    with pytest.raises(UsageError, match=f"--ignore-tensor {name}: only a comparison with the reference"):
        export(folder, output, options)
    assert not output.exists()
    verifier = DraftVerifier(output, wanted=True, progress=lambda *_: None)
    manifest = export(folder, output, options, verify=verifier)
    assert manifest.model.ignored_tensors == (name,)
    assert ("weights", f"{name} was left out (flag: --ignore-tensor)") in [*decisions(manifest)]


# ---- progress


def test_progress_only_goes_forward_and_reaches_every_end(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    folder = write_sentence_bert(tmp_path / "model")
    export(folder, tmp_path / "out", Options(precisions=BOTH), progress=lambda *call: calls.append(call))
    stages = list(dict.fromkeys(stage for stage, _, _ in calls))
    assert stages == ["writing fp32 weights", "writing fp16 weights", "hashing"]
    assert [stage for stage, _, _ in calls] == sorted((stage for stage, _, _ in calls), key=stages.index)
    for stage in stages:
        steps = [(done, total) for name, done, total in calls if name == stage]
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)
        assert len({total for _, total in steps}) == 1
        assert steps[-1][0] == steps[-1][1]


# ---- verification


def test_the_verifier_sees_the_whole_draft_and_its_figures_are_recorded(tmp_path: Path) -> None:
    seen: list[tuple[Path, Fetched]] = []

    def verify(draft: Path, manifest: Manifest, checkpoint: Fetched) -> Manifest:
        assert read_manifest(draft) == manifest
        assert not (tmp_path / "out").exists()
        assert len(vectors(draft)) == len(SHORT)
        seen.append((draft, checkpoint))
        return manifest

    folder = write_sentence_bert(tmp_path / "model")
    export(folder, tmp_path / "out", verify=verify)
    assert seen[0][1].folder == folder
    assert not seen[0][0].exists()


def test_a_verifier_that_objects_leaves_nothing(tmp_path: Path) -> None:
    def verify(draft: Path, manifest: Manifest, checkpoint: Fetched) -> Manifest:
        raise RuntimeError("not the reference's vectors")

    with pytest.raises(RuntimeError, match="not the reference"):
        export(write_sentence_bert(tmp_path / "model"), tmp_path / "out", verify=verify)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


# ---- refused, and nothing written


def break_weights(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: change_weights(folder, **changes)


def break_config(**values: Any) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / "config.json", **values)


EXTRA = {"encoder.layer.0.attention.self.query.lora_A.weight": np.zeros((2, 2), np.float32)}
BROKEN: list[tuple[Callable[[Path], None], type[Exception], str]] = [
    (break_weights(**EXTRA), UnsupportedError, r"\(1, such as encoder\.layer\.0\.attention\.self\.query\.lora_A"),
    (
        break_weights(**{"linear.weight": np.zeros((8, 32), np.float32)}),
        UnsupportedError,
        r"\(1, such as linear\.weight\)",
    ),
    (
        break_weights(**{f"x{i}": np.zeros(1, np.float32) for i in range(5)}),
        UnsupportedError,
        r"\(5, such as x0, x1, x2\)",
    ),
    (break_config(num_hidden_layers=1), UnsupportedError, r"\(16, such as encoder\.layer\.1\."),
    (break_config(num_hidden_layers=3), ModelFilesError, r"no tensor encoder\.layer\.2\."),
    (
        break_weights(**{"encoder.layer.1.output.dense.bias": None}),
        ModelFilesError,
        r"no tensor encoder\.layer\.1\.output\.dense\.bias",
    ),
    (break_config(model_type="t5"), UnsupportedError, r"model_type is 't5'"),
    (break_config(vocab_size=1000), ModelFilesError, r"vocab_size"),
    (lambda folder: (folder / "model.safetensors").unlink(), ModelFilesError, r"model\.safetensors"),
    (lambda folder: (folder / "tokenizer.json").unlink(), ModelFilesError, r"tokenizer\.json"),
    (lambda folder: (folder / "config.json").unlink(), ModelFilesError, r"config\.json"),
    (break_weights(**{"encoder.layer.1.output.dense.bias": np.full(32, 1e9, np.float32)}), UnsupportedError, "fp16"),
]


@pytest.mark.parametrize(("harm", "error", "words"), BROKEN, ids=[words for _, _, words in BROKEN])
def test_a_checkpoint_that_cannot_be_exported_is_an_error_and_writes_nothing(
    tmp_path: Path, harm: Callable[[Path], None], error: type[Exception], words: str
) -> None:
    folder = write_sentence_bert(tmp_path / "model")
    harm(folder)
    with pytest.raises(error, match=words):
        export(folder, tmp_path / "out", Options(precisions=BOTH))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_export_leaves_the_old_artifact(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "model")
    export(folder, tmp_path / "out")
    before = files(tmp_path / "out")
    change_weights(folder, **EXTRA)
    with pytest.raises(UnsupportedError):
        export(folder, tmp_path / "out", Options(force=True))
    assert files(tmp_path / "out") == before


def test_ctrl_c_while_weights_are_written_leaves_nothing(tmp_path: Path) -> None:
    def progress(stage: str, done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(write_sentence_bert(tmp_path / "model"), tmp_path / "out", progress=progress)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_output_that_may_not_be_replaced_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    with pytest.raises(UsageError, match="is not an onnxembed artifact"):
        export("organization/a-model-that-would-be-downloaded", tmp_path / "out", Options(force=True))


# ---- damaged weights


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name", ["encoder.layer.1.output.LayerNorm.bias", "embeddings.word_embeddings.weight", "2_Dense"]
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_weights_that_are_not_finite_are_refused_by_name(
    tmp_path: Path, name: str, value: float, precision: Precision
) -> None:
    folder = write_sentence_bert(tmp_path / "model", dense=((32, 8, TANH),))
    place, name = (folder / name, "linear.weight") if name == "2_Dense" else (folder, name)
    weight = load_file(place / "model.safetensors")[name]
    weight.flat[5] = value
    change_weights(place, **{name: weight})
    with pytest.raises(ModelFilesError, match=f"the weight {name}.* has values that are not finite"):
        export(folder, tmp_path / "out", Options(precisions=(precision,)))
    assert not (tmp_path / "out").exists()


def test_the_weights_of_a_sparse_model_must_be_finite(tmp_path: Path) -> None:
    """max(0, NaN) is 0 in ONNX Runtime: its embeddings would be empty, and finite."""
    folder = write_masked_lm(tmp_path / "model")
    name = "bert.encoder.layer.1.output.LayerNorm.bias"
    weight = load_file(folder / "model.safetensors")[name]
    weight[0] = np.nan
    change_weights(folder, **{name: weight})
    with pytest.raises(
        ModelFilesError, match=r"encoder\.layer\.1\.output\.LayerNorm\.bias has values that are not finite"
    ):
        export(folder, tmp_path / "out", Options(flags=Flags(task="sparse")))


def test_the_weights_of_a_classifier_must_be_finite(tmp_path: Path) -> None:
    folder = write_reranker(tmp_path / "model")
    change_weights(folder, **{"classifier.bias": np.full(1, np.nan, np.float32)})
    with pytest.raises(ModelFilesError, match=r"classifier\.bias has values that are not finite"):
        export(folder, tmp_path / "out")
