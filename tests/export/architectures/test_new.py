"""NewModel against outputs of its original code, and both it and Gte against transformers' GteModel."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from new_checkpoints import GTE, new, rename
from onnxembed import OnnxEmbedder
from onnxembed.decisions.decide import decide
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.architectures.new import NATIVE, PACKED, UNPACKED, GatedLayerNames
from onnxembed.export.pipeline import export
from onnxembed.facts.facts import read_facts
from onnxembed.manifest import Precision
from parity import (
    SMALL,
    assert_half_precision_is_near,
    count_layer,
    load_reference,
    make_graph,
    max_difference,
    open_folder,
    run,
    torch,
    transformers,
)
from tiny import change_json, write_json

pytestmark = pytest.mark.torch

TOLERANCE = 5e-6

# Attention stands in both branches of its If; one of them runs.
PER_LAYER = {
    "MatMul": 7,
    "Add": 7,
    "RotaryEmbedding": 2,
    "MultiHeadAttention": 2,
    "If": 1,
    "Gelu": 1,
    "Mul": 1,
    "LayerNormalization": 2,
}


@pytest.mark.parametrize("model", ["a_gte_large_en_v15_like", "c_plain_rope_unpacked_qkv"])
@pytest.mark.parametrize("texts", ["batch", "long100"])
def test_equals_the_original_code(shared_data: Path, model: str, texts: str, tmp_path: Path) -> None:
    folder = shared_data / "reference/newimpl-tiny" / model
    session = open_folder(folder, tmp_path)
    expected = np.load(folder / "reference.npz")
    feeds = {name: expected[f"{texts}.{name}"] for name in ("input_ids", "attention_mask", "token_type_ids")}
    hidden = run(session, "token_embeddings", feeds)
    real = feeds["attention_mask"] == 1
    assert np.abs(hidden - expected[f"{texts}.last_hidden_state"])[real].max() <= 1e-5


def test_text_to_vectors_with_the_real_tokenizer(shared_data: Path, tmp_path: Path) -> None:
    """A small gte-large-en-v1.5, exported and run, against the reference with the translated scaling."""
    published = shared_data / "configs/gte-large-en-v1.5"
    values = json.loads((published / "config.json").read_text(encoding="utf-8"))
    small = {
        "hidden_size": 40,
        "num_attention_heads": 4,
        "num_hidden_layers": SMALL["num_hidden_layers"],
        "intermediate_size": 70,
    }
    rope = {"rope_type": "linear", "rope_theta": 320_000.0, "factor": 2.0 ** (2 / 10)}
    sizes = {**small, "vocab_size": values["vocab_size"], "pad_token_id": 0, "type_vocab_size": 2}
    folder = GTE.save(tmp_path / "checkpoint", **sizes, rope_parameters=rope)
    reference = load_reference(folder)
    shutil.copytree(published, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
    write_json(folder / "config.json", {**values, **small})
    sizes = {"word_embedding_dimension": 40, "pooling_mode_cls_token": True}
    write_json(folder / "1_Pooling/config.json", sizes)

    texts = ["what is the capital of China?", "", "sorting " * 300, "How to implement quick sort in Python?"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        rows = [reference(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 0] for text in texts]
    manifest = export(folder, tmp_path / "artifact")
    assert manifest.require_embedding().normalize.value is False
    with OnnxEmbedder(tmp_path / "artifact", providers="cpu") as model:
        assert np.abs(model.encode(texts) - torch.stack(rows).numpy()).max() <= TOLERANCE


@pytest.mark.parametrize("types", [0, 1, 2])
def test_native_equals_the_reference(types: int, tmp_path: Path) -> None:
    folder = GTE.save(tmp_path / "checkpoint", type_vocab_size=types)
    assert max_difference(folder, tmp_path) <= TOLERANCE


def test_theta_defaults_to_that_of_the_reference(tmp_path: Path) -> None:
    folder = GTE.save(tmp_path / "checkpoint")
    change_json(folder / "config.json", rope_parameters=None)
    assert max_difference(folder, tmp_path) <= TOLERANCE


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "relu"},
        {"layer_norm_eps": 1e-2},
        {"pad_token_id": 7},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1234.5}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 3.0}},
    ],
    ids=str,
)
def test_native_equals_the_reference_with_other_settings(change: dict[str, Any], tmp_path: Path) -> None:
    assert max_difference(GTE.save(tmp_path / "checkpoint", **change), tmp_path) <= TOLERANCE


@pytest.mark.parametrize("layout", [PACKED, UNPACKED, NATIVE], ids=["packed", "unpacked", "native"])
@pytest.mark.parametrize("prefix", ["", "gte.", "new."])
def test_every_layout_of_a_native_checkpoint_is_read(layout: GatedLayerNames, prefix: str, tmp_path: Path) -> None:
    folder = GTE.save(tmp_path / "checkpoint")
    reference = load_reference(folder)
    rename(folder, layout, prefix)
    assert max_difference(folder, tmp_path, reference=reference) <= TOLERANCE


@pytest.mark.parametrize("model_type", ["new", "gte"])
@pytest.mark.parametrize("prefix", ["", "new."])
@pytest.mark.parametrize("packed", [True, False])
def test_published_configs_equal_the_reference(model_type: str, prefix: str, packed: bool, tmp_path: Path) -> None:
    folder = GTE.save(tmp_path / "checkpoint")
    reference = load_reference(folder)
    rename(folder, PACKED if packed else UNPACKED, prefix)
    new(folder, model_type=model_type, pack_qkv=packed)
    assert max_difference(folder, tmp_path, reference=reference) <= TOLERANCE


@pytest.mark.parametrize("factor", [2.0, 8.0])
def test_ntk_equals_its_translation_for_the_reference(factor: float, tmp_path: Path) -> None:
    head_dim = GTE.config["hidden_size"] // GTE.config["num_attention_heads"]
    rope = {"rope_type": "linear", "rope_theta": 20_000.0 * factor, "factor": factor ** (2 / head_dim)}
    folder = GTE.save(tmp_path / "checkpoint", rope_parameters=rope)
    reference = load_reference(folder)
    new(folder, rope_theta=20_000, rope_scaling={"type": "ntk", "factor": factor})
    assert max_difference(folder, tmp_path, reference=reference) <= TOLERANCE


def test_ntk_of_the_large_model_has_its_known_frequencies(tmp_path: Path) -> None:
    folder = GTE.save(tmp_path / "checkpoint", hidden_size=128, num_attention_heads=2)
    new(folder, rope_scaling={"type": "ntk", "factor": 2.0})
    inv_freq = make_graph(folder).initializers["rotary.inv_freq"].read()
    np.testing.assert_allclose(inv_freq[:4], [0.97857206, 0.65850166, 0.44311958, 0.29818446], rtol=1e-6)
    np.testing.assert_allclose(inv_freq[-1], 4.54442323e-06, rtol=1e-6)


def test_mixed_ntk_slows_each_dimension_by_its_own_power(tmp_path: Path) -> None:
    folder = GTE.save(tmp_path / "checkpoint")
    reference = load_reference(folder)
    new(folder, rope_theta=10_000, rope_scaling={"type": "ntk", "factor": 4.0, "mixed_b": 0.7})
    half = GTE.config["hidden_size"] // GTE.config["num_attention_heads"] // 2
    slowing = np.exp(np.log(4) / half**0.7 * np.arange(1, half + 1) ** 0.7)
    inv_freq = 10_000.0 ** (-np.arange(half) / half) / slowing
    reference.rotary_emb.inv_freq.copy_(torch.from_numpy(inv_freq))
    assert slowing[-1] == pytest.approx(4)
    assert max_difference(folder, tmp_path, reference=reference) <= TOLERANCE


def test_rms_norm_is_in_the_layers_and_not_in_the_embeddings(tmp_path: Path) -> None:
    folder = GTE.save(tmp_path / "checkpoint", layer_norm_eps=1e-3)
    reference = load_reference(folder)
    weights = load_file(folder / "model.safetensors")
    for index, layer in enumerate(reference.layers):
        for ours, theirs in (("attn_ln", "post_attention_layernorm"), ("mlp_ln", "post_mlp_layernorm")):
            norm = torch.nn.RMSNorm(GTE.config["hidden_size"], eps=1e-3)
            norm.load_state_dict({"weight": getattr(layer, theirs).weight})
            setattr(layer, theirs, norm)
            del weights[f"encoder.layer.{index}.{ours}.bias"]
    save_file(weights, folder / "model.safetensors")
    new(folder, layer_norm_type="rms_norm")
    assert max_difference(folder, tmp_path, reference=reference) <= TOLERANCE
    operators = make_graph(folder).operators()
    assert operators["SkipSimplifiedLayerNormalization"] == 2 * SMALL["num_hidden_layers"]
    assert operators["LayerNormalization"] == 1


@pytest.mark.parametrize("task", ["AutoModelForSequenceClassification", "AutoModelForMaskedLM"])
def test_takes_the_encoder_out_of_a_task_checkpoint(task: str, tmp_path: Path) -> None:
    folder = GTE.save(tmp_path / "checkpoint", task)
    assert max_difference(folder, tmp_path) <= TOLERANCE


@pytest.mark.parametrize(("model_type", "types"), [("new", 0), ("new", 2), ("gte", 1)])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_layer_is_made_of_fused_operators_only(
    model_type: str, types: int, precision: Precision, tmp_path: Path
) -> None:
    def save(layers: int) -> Path:
        folder = GTE.save(tmp_path / str(layers), num_hidden_layers=layers, type_vocab_size=types)
        if model_type == "new":
            new(folder)
        return folder

    layer, operators = count_layer(save, precision)
    assert layer == PER_LAYER
    for unfused in ("Softmax", "Erf", "Transpose", "Reshape", "Split", "Expand"):
        assert unfused not in operators


def test_half_precision_gives_nearly_the_same_vectors(tmp_path: Path) -> None:
    assert_half_precision_is_near(GTE.save(tmp_path / "checkpoint"), tmp_path)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"position_embedding_type": "absolute"}, "position_embedding_type"),
        ({"layer_norm_type": "batch_norm"}, "layer_norm_type"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"rope_scaling": {"type": "ntk", "factor": 2.0, "beta": 1}}, "beta"),
        ({"hidden_act": "laplace"}, "laplace"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ],
    ids=str,
)
def test_an_unsupported_setting_is_refused_by_name(change: dict[str, Any], key: str, tmp_path: Path) -> None:
    folder = GTE.save(tmp_path / "checkpoint")
    new(folder, **change)
    with pytest.raises(UnsupportedError, match=key):
        make_graph(folder)


def test_scaling_that_follows_the_length_is_refused(tmp_path: Path) -> None:
    folder = GTE.save(
        tmp_path / "checkpoint", rope_parameters={"rope_type": "dynamic", "rope_theta": 9.0, "factor": 2.0}
    )
    with pytest.raises(UnsupportedError, match="dynamic"):
        make_graph(folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_attention_heads": 3}, "3 heads"),
        ({"type_vocab_size": 3}, "type_vocab_size is 3"),
        ({"intermediate_size": 71}, "intermediate_size"),
        ({"pack_qkv": False}, "q_proj"),
        ({"rope_scaling": {"type": "ntk"}}, "no factor"),
    ],
    ids=str,
)
def test_a_config_that_contradicts_the_weights_is_an_error(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    folder = GTE.save(tmp_path / "checkpoint")
    new(folder, **change)
    with pytest.raises(ModelFilesError, match=named):
        make_graph(folder)


def test_max_length_is_what_the_reference_says_and_may_be_longer(shared_data: Path, tmp_path: Path) -> None:
    """Rotary positions have no table: max_position_embeddings limits only the tokenizer's length."""
    folder = tmp_path / "gte-large-en-v1.5"
    shutil.copytree(shared_data / "configs/gte-large-en-v1.5", folder, copy_function=shutil.copyfile)

    def length(flag: int | None = None) -> tuple[int, str]:
        decision = decide(read_facts(folder), Flags(max_length=flag)).encoder.max_length
        return decision.value, decision.reason

    assert length() == (8192, "sentence_bert_config.json: max_seq_length")
    assert length(20_000) == (20_000, "--max-length")
    change_json(folder / "sentence_bert_config.json", max_seq_length=10_000)
    assert length() == (10_000, "sentence_bert_config.json: max_seq_length")
    change_json(folder / "sentence_bert_config.json", max_seq_length=None)
    assert length()[0] == 8192
    assert "model_max_length says more" in length()[1]
