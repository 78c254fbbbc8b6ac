"""LoRA adapters: merged by the formula, and as peft merges them where it is installed."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from hub_server import HubServer
from onnxembed import OnnxEmbedder, commands
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, UnsupportedError, UsageError
from onnxembed.export.checkpoint.lora import open_weights
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.facts.facts import read_facts
from onnxembed.hub.source import HubOptions
from onnxembed.verify.verify import verify
from tiny import TEXTS, VOCAB, write_json, write_sentence_bert
from tiny_heads import write_masked_lm

Tensors = Mapping[str, NDArray[np.float32]]
QUERY = "encoder.layer.0.attention.self.query"
WORDS = "embeddings.word_embeddings"
RNG = np.random.default_rng(7)


def random(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(0, 0.4, shape).astype(np.float32)


TENSORS: Tensors = {
    f"{QUERY}.lora_A.weight": random(4, 32),
    f"{QUERY}.lora_B.weight": random(32, 4),
    f"{WORDS}.lora_embedding_A": random(4, len(VOCAB)),
    f"{WORDS}.lora_embedding_B": random(32, 4),
}
FACTORS: Tensors = {f"base_model.model.{name}": tensor for name, tensor in TENSORS.items()}


def write_adapter(folder: Path, tensors: Tensors = FACTORS, **config: Any) -> Path:
    """An adapter in a folder, as peft saves it."""
    values: dict[str, Any] = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(folder),
        "r": 4,
        "lora_alpha": 8,
        "bias": "none",
    }
    values["target_modules"] = [QUERY, WORDS]
    write_json(folder / "adapter_config.json", {**values, **config})
    save_file(dict(tensors), folder / "adapter_model.safetensors")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_sentence_bert(tmp_path / "model")


@pytest.mark.parametrize(
    ("config", "scaling"),
    [
        ({}, 2.0),
        ({"lora_alpha": 2}, 0.5),
        ({"use_rslora": True}, 4.0),
        ({"alpha_pattern": {"query": 4, "word_embeddings": 4}}, 1.0),
        ({"r": 16, "rank_pattern": {"self.query": 4, ".*_embeddings": 4}}, 2.0),
        ({"fan_in_fan_out": True}, 2.0),
    ],
)
def test_factors_are_added_with_their_scaling(folder: Path, config: dict[str, Any], scaling: float) -> None:
    """W + scaling * B @ A, the scaling lora_alpha / r, or lora_alpha / sqrt(r) with rslora."""
    base = load_file(folder / "model.safetensors")
    weights = open_weights(read_facts(write_adapter(folder, **config)), "bert.")
    merged = base[f"{QUERY}.weight"] + scaling * TENSORS[f"{QUERY}.lora_B.weight"] @ TENSORS[f"{QUERY}.lora_A.weight"]
    np.testing.assert_allclose(weights.read(f"{QUERY}.weight"), merged, atol=1e-5)
    product = TENSORS[f"{WORDS}.lora_embedding_B"] @ TENSORS[f"{WORDS}.lora_embedding_A"]
    np.testing.assert_allclose(
        weights.read(f"{WORDS}.weight"), base[f"{WORDS}.weight"] + scaling * product.T, atol=1e-5
    )
    np.testing.assert_array_equal(weights.read(f"{QUERY}.bias"), base[f"{QUERY}.bias"])


def test_trained_biases_and_layers_replace_the_bases(folder: Path) -> None:
    trained = {
        **FACTORS,
        f"base_model.model.{QUERY}.base_layer.bias": random(32),
        f"base_model.model.{QUERY}.lora_B.bias": random(32),
        "base_model.model.embeddings.LayerNorm.weight": random(32),
    }
    weights = open_weights(read_facts(write_adapter(folder, trained, lora_bias=True)), "bert.")
    bias, more = (trained[f"base_model.model.{QUERY}.{name}"] for name in ("base_layer.bias", "lora_B.bias"))
    np.testing.assert_allclose(weights.read(f"{QUERY}.bias"), bias + 2 * more, atol=1e-6)
    name = "embeddings.LayerNorm.weight"
    np.testing.assert_array_equal(weights.read(name), trained[f"base_model.model.{name}"])


@pytest.mark.parametrize("alone", [False, True])
def test_an_export_has_the_adapter_merged_beside_its_base_and_alone(folder: Path, tmp_path: Path, alone: bool) -> None:
    adapted = shutil.copytree(folder, tmp_path / "adapted")
    write_adapter(adapted, base_model_name_or_path=str(folder))
    merged = shutil.copytree(folder, tmp_path / "merged")
    weights = open_weights(read_facts(adapted), "")
    save_file({name: np.array(weights.read(name)) for name in weights.names()}, merged / "model.safetensors")
    if alone:
        for name in ("config.json", "model.safetensors"):
            (adapted / name).unlink()
    manifest = export(adapted, tmp_path / "out")
    export(merged, tmp_path / "expected")
    export(folder, tmp_path / "base")
    assert manifest.model.adapter is not None
    assert manifest.model.adapter.reason == (
        f"adapter_config.json: merged into {folder}, scaled by lora_alpha 8 / r, r = 4"
    )
    vectors = []
    for name in ("out", "expected", "base"):
        with OnnxEmbedder(tmp_path / name, providers="cpu") as model:
            vectors.append(model.encode(TEXTS[:2]))
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert np.abs(vectors[0] - vectors[2]).max() > 0.01
    with pytest.raises(UsageError, match="has one adapter, which is merged"):
        export(adapted, tmp_path / "other", Options(flags=Flags(adapter="none")))


@pytest.mark.hub
@pytest.mark.parametrize("local", [True, False])
def test_the_base_of_an_adapter_alone_may_be_a_hub_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    alone = Path(shutil.copytree(folder, tmp_path / "alone"))
    for name in ("config.json", "model.safetensors"):
        (alone / name).unlink()
    write_adapter(alone, base_model_name_or_path="org/base", revision="v1")
    beside = write_adapter(Path(shutil.copytree(folder, tmp_path / "beside")))
    export(beside, tmp_path / "expected")
    hub = HubOptions(cache_dir=tmp_path / "cache")
    with HubServer({"org/base": {"v1": folder}, "org/adapter": {"main": alone}}) as server:
        server.answer(monkeypatch)
        model = alone if local else "org/adapter"
        manifest = export(model, tmp_path / "out", hub=hub)
        assert commands.inspect(model, cache_dir=tmp_path / "cache").model.adapter == manifest.model.adapter
        if find_spec("peft") and find_spec("sentence_transformers"):
            assert verify(tmp_path / "out", hub=hub).verification
        commit = server.commit("org/base", "v1")
    assert manifest.model.adapter is not None
    assert f"merged into org/base at {commit}, scaled" in manifest.model.adapter.reason
    vectors = []
    for name in ("out", "expected"):
        with OnnxEmbedder(tmp_path / name, providers="cpu") as embedder:
            vectors.append(embedder.encode(TEXTS[:2]))
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


def test_vectors_are_pefts(folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="needs peft, which applies adapters for transformers")
    transformers, torch = import_module("transformers"), import_module("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft and what it imports
        base = transformers.AutoModel.from_pretrained(folder)
        model = peft.PeftModel.from_pretrained(base, write_adapter(tmp_path / "adapter")).eval()
    write_adapter(folder)
    export(folder, tmp_path / "out", Options(flags=Flags(normalize=False)))
    with OnnxEmbedder(tmp_path / "out", providers="cpu") as embedder:
        for text in TEXTS[:2]:
            ids = torch.tensor(np.array(embedder.tokenize([text])[0].ids))[None]
            with torch.no_grad():
                expected = model(input_ids=ids).last_hidden_state.mean(1).numpy()
            np.testing.assert_allclose(embedder.encode([text]), expected, atol=1e-5)


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_that_peft_saved_gives_pefts_vectors(folder: Path, tmp_path: Path, dora: bool) -> None:
    """DoRA included: each row of the sum has the length that was trained for it."""
    peft = pytest.importorskip("peft", reason="needs peft, which makes and applies the adapter")
    transformers, torch = import_module("transformers"), import_module("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft and what it imports
        base = transformers.AutoModel.from_pretrained(folder)
        config = peft.LoraConfig(r=4, target_modules=["query", "dense"], use_dora=dora)
        model = peft.get_peft_model(base, config).eval()
        torch.manual_seed(0)
        for name, parameter in model.named_parameters():
            if "lora_magnitude" in name:
                torch.nn.init.uniform_(parameter, 0.5, 2.0)
            elif "lora_" in name:
                torch.nn.init.normal_(parameter, 0, 0.2)
        model.save_pretrained(tmp_path / "adapter")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(tmp_path / "adapter" / name, folder / name)
    manifest = export(folder, tmp_path / "out", Options(flags=Flags(normalize=False)))
    assert manifest.model.adapter is not None
    assert ("DoRA" in manifest.model.adapter.reason) is dora
    with OnnxEmbedder(tmp_path / "out", providers="cpu") as embedder:
        for text in TEXTS[:2]:
            ids = torch.tensor(np.array(embedder.tokenize([text])[0].ids))[None]
            with torch.no_grad():
                expected = model(input_ids=ids).last_hidden_state.mean(1).numpy()
            np.testing.assert_allclose(embedder.encode([text]), expected, atol=2e-6)


def test_doras_rows_have_their_trained_lengths(folder: Path) -> None:
    lengths = np.linspace(0.5, 3, 32, dtype=np.float32)
    factors = {name: tensor for name, tensor in FACTORS.items() if QUERY in name}
    tensors = {**factors, f"base_model.model.{QUERY}.lora_magnitude_vector": lengths}
    read = open_weights(read_facts(write_adapter(folder, tensors, use_dora=True)), "bert.").read(f"{QUERY}.weight")
    np.testing.assert_allclose(np.linalg.norm(read, axis=1), lengths, rtol=1e-5)
    for more, config, words in (
        ({}, {}, "use_dora says otherwise"),
        (FACTORS, {"use_dora": True}, "has no lora_magnitude_vector for embeddings.word_embeddings"),
    ):
        with pytest.raises(ModelFilesError, match=words):
            open_weights(read_facts(write_adapter(folder, {**tensors, **more}, **config)), "bert.")


@pytest.mark.parametrize("replaced", [False, True])
def test_an_adapter_of_a_table_that_the_head_shares_is_refused(tmp_path: Path, replaced: bool) -> None:
    """peft adapts the embeddings alone, and the decoder of the masked language model keeps the base's table."""
    folder = write_masked_lm(tmp_path / "model", pooling={"pooling_strategy": "max"})
    words = {name: tensor for name, tensor in FACTORS.items() if WORDS in name}
    if replaced:
        words = {f"base_model.model.bert.{WORDS}.weight": random(len(VOCAB), 32)}
    write_adapter(folder, {name.replace("model.embeddings", "model.bert.embeddings"): words[name] for name in words})
    with pytest.raises(UnsupportedError, match=r"changes embeddings\.word_embeddings\.weight, which .* shares"):
        export(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"brand_new": 1}, "keys that onnxembed does not know: brand_new"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(folder: Path, config: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        read_facts(write_adapter(folder, **config))


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("encoder.layer.9.query.lora_A.weight", {}, "lack"),
        (f"{QUERY}.lora_B.weight", {}, "do not fit"),
        ("", {"r": 3}, "rank 4, but adapter_config.json says 3"),
    ],
)
def test_factors_that_do_not_fit_are_refused(folder: Path, name: str, config: dict[str, Any], words: str) -> None:
    tensors = {**FACTORS, f"base_model.model.{name}": random(31, 4)} if name else FACTORS
    with pytest.raises(ModelFilesError, match=words):
        open_weights(read_facts(write_adapter(folder, tensors, **config)), "bert.")
