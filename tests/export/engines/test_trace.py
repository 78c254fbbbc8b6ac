"""Traced graphs against the stock class they were traced from, and against built ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file

from onnxembed import OnnxEmbedder
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.architectures import ARCHITECTURES
from onnxembed.export.artifact import graph_file
from onnxembed.export.artifact.graph_file import write_graph
from onnxembed.export.build_graph import build
from onnxembed.export.graph.graph import Graph
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options, make_plan
from onnxembed.facts.facts import read_facts
from onnxembed.hub.source import Fetched
from onnxembed.manifest import AttentionMode, Manifest, Precision
from onnxembed.verify.comparison import Comparison
from onnxembed.verify.verify import verify_against
from parity import batch, max_difference, random_checkpoint, torch, transformers
from stock_models import write_sentence_albert
from tiny import TEXTS, change_json, change_weights, write_sentence_bert

pytestmark = pytest.mark.torch

TOLERANCE = 1e-5

SMALL: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 70,
    "max_position_embeddings": 230,
}
DEBERTA: dict[str, Any] = {
    **SMALL,
    "relative_attention": True,
    "position_buckets": 16,
    "max_relative_positions": -1,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
ROTARY: dict[str, Any] = {**SMALL, "num_key_value_heads": 2, "head_dim": 10}

CASES: list[tuple[str, dict[str, Any], AttentionMode | None]] = [
    ("albert", {**SMALL, "embedding_size": 20}, None),
    (
        "albert",
        {**SMALL, "embedding_size": 48, "num_hidden_groups": 2, "inner_group_num": 2, "hidden_act": "gelu"},
        None,
    ),
    ("deberta-v2", DEBERTA, None),
    ("deberta-v2", {**DEBERTA, "conv_kernel_size": 3, "conv_act": "gelu", "share_att_key": False}, None),
    ("deberta-v2", {**DEBERTA, "position_biased_input": True, "type_vocab_size": 2, "embedding_size": 32}, None),
    ("deberta-v2", {**SMALL, "relative_attention": False}, None),
    ("bert", SMALL, None),
    ("camembert", SMALL, None),
    (
        "distilbert",
        {"vocab_size": 99, "dim": 48, "n_heads": 4, "n_layers": 2, "hidden_dim": 70, "max_position_embeddings": 210},
        None,
    ),
    ("electra", {**SMALL, "embedding_size": 32}, None),
    ("modernbert", {**SMALL, "local_attention": 12, "global_attn_every_n_layers": 2, "pad_token_id": 0}, None),
    ("mpnet", SMALL, None),
    ("qwen2", {**SMALL, "num_key_value_heads": 2}, "causal"),
    ("qwen2", {**SMALL, "num_key_value_heads": 2}, "bidirectional"),
    ("qwen3", ROTARY, "causal"),
    ("qwen3", ROTARY, "bidirectional"),
    ("roberta", {**SMALL, "type_vocab_size": 1}, None),
    ("xlm-roberta", {**SMALL, "pad_token_id": 1, "type_vocab_size": 1}, None),
]


def silent(stage: str, done: int, total: int) -> None:
    """A progress callback that does nothing."""


def run(file: Path, feeds: dict[str, Any]) -> dict[str, Any]:
    """The outputs by their names."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options)
    values = session.run(None, {value.name: feeds[value.name] for value in session.get_inputs()})
    return dict(zip((value.name for value in session.get_outputs()), values, strict=True))


def graph(folder: Path, precision: Precision = "fp32") -> Graph:
    facts = read_facts(folder)
    return build(make_plan(facts, None, Options(flags=Flags(("mean",), normalize=True), engine="trace")), precision)


def checkpoint(folder: Path, model_type: str, change: dict[str, Any], task: str = "AutoModel") -> Path:
    return random_checkpoint(folder, transformers.AutoConfig.for_model(model_type, **change), task=task)


@pytest.mark.parametrize(("model_type", "config", "attention"), CASES, ids=str)
def test_equals_the_reference(
    model_type: str, config: dict[str, Any], attention: AttentionMode | None, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "checkpoint", model_type, config)
    assert max_difference(folder, tmp_path, attention=attention, engine="trace") <= TOLERANCE


@pytest.mark.parametrize("model_type", ["albert", "deberta-v2"])
def test_half_precision_is_traced_in_half_precision(model_type: str, tmp_path: Path) -> None:
    """Weights and computation: half the bytes, and vectors in the same direction."""
    folder = checkpoint(tmp_path / "checkpoint", model_type, DEBERTA if model_type == "deberta-v2" else SMALL)
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    files = [tmp_path / write_graph(graph(folder, name), tmp_path, name, silent).file for name in precisions]
    facts = read_facts(folder)
    assert files[1].stat().st_size < 0.6 * files[0].stat().st_size
    for shape in ((1, 1, None), (5, 19, "both"), (2, 200, "left")):
        exact, half = (run(file, batch(facts, shape))["sentence_embedding"] for file in files)
        assert (exact * half).sum(axis=1).min() > 0.9999
        assert np.abs(exact - half).max() > 0


def test_weights_that_half_precision_cannot_hold_are_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint", "albert", SMALL)
    change_weights(folder, **{"embeddings.LayerNorm.bias": np.full(128, 1e6, np.float32)})
    with pytest.raises(UnsupportedError, match=r"embeddings\.LayerNorm\.bias has values that fp16 cannot hold"):
        graph(folder, "fp16")


# ---- the whole journey


def test_a_traced_artifact_is_verified_against_sentence_transformers(tmp_path: Path) -> None:
    folder = write_sentence_albert(tmp_path / "model")

    def verify(draft: Path, made: Manifest, source: Fetched) -> Manifest:
        return verify_against(Comparison(draft, made, source.folder))

    options = Options(("fp32", "fp16"), engine="trace")
    manifest = export(folder, tmp_path / "out", options, verify=verify)
    assert manifest.verification["fp32"].max_abs_diff <= TOLERANCE
    assert (manifest.verification["fp16"].min_cosine or 0) > 0.9999
    assert manifest.model.inputs == ("input_ids", "attention_mask", "token_type_ids")


def test_traced_and_built_graphs_give_the_same_vectors(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "model", dense=((32, 8, "torch.nn.modules.activation.Tanh"),))
    vectors = []
    for options in (Options(engine="build"), Options(engine="trace"), Options(engine="trace", pooling_out=True)):
        export(folder, tmp_path / "out", replace(options, force=True))
        with OnnxEmbedder(tmp_path / "out", providers="cpu") as model:
            vectors.append(model.encode(TEXTS[:4]))
    assert np.abs(vectors[0] - vectors[1]).max() <= TOLERANCE
    assert np.abs(vectors[0] - vectors[2]).max() <= TOLERANCE


@pytest.mark.parametrize("limit", [0, 2**28])
def test_tracing_twice_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """With weights inside or beside the graph, and no trace of the machine that made it."""
    monkeypatch.setattr(graph_file, "INLINE_LIMIT", limit)
    folder = write_sentence_bert(tmp_path / "model")
    for name in ("one", "two"):
        export(folder, tmp_path / name, Options(engine="trace"))
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert (Path("onnx/model.onnx_data") in files) == (limit == 0)
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert b"site-packages" not in (tmp_path / "one/onnx/model.onnx").read_bytes()


def test_a_bin_checkpoint_is_read_without_opening_its_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint(tmp_path / "checkpoint", "albert", SMALL)
    weights = {name: torch.from_numpy(tensor) for name, tensor in load_file(folder / "model.safetensors").items()}
    torch.save(weights, folder / "pytorch_model.bin")
    reference = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(torch, "load", None)
    assert max_difference(folder, tmp_path, reference=reference) <= TOLERANCE


def test_a_bfloat16_checkpoint_is_traced_in_float32(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint", "albert", SMALL)
    transformers.AutoModel.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    assert max_difference(folder, tmp_path) <= TOLERANCE


def test_the_encoder_is_taken_out_of_a_task_checkpoint(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint", "deberta-v2", DEBERTA, "AutoModelForMaskedLM")
    assert max_difference(folder, tmp_path) <= TOLERANCE


# ---- refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"encoder.layer.0.lora_A.weight": np.zeros((2, 2), np.float32)},
            r"does not use \(1, as encoder\.layer\.0\.lora_A",
        ),
        ({"embeddings.LayerNorm.bias": None}, r"lacks tensors of a AlbertModel \(1, as embeddings\.LayerNorm\.bias"),
        ({"embeddings.LayerNorm.bias": np.zeros(3, np.float32)}, r"embeddings\.LayerNorm\.bias"),
    ],
    ids=["left over", "missing", "of another shape"],
)
def test_tensors_must_be_those_of_the_stock_class(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    folder = checkpoint(tmp_path / "checkpoint", "albert", SMALL)
    change_weights(folder, **changes)
    with pytest.raises(ModelFilesError, match=words):
        graph(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"novelty": 1}, "--ignore-config-key novelty"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder"),
    ],
    ids=str,
)
def test_keys_that_the_stock_class_does_not_read_are_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    folder = checkpoint(tmp_path / "checkpoint", "albert", SMALL)
    change_json(folder / "config.json", **change)
    with pytest.raises(UnsupportedError, match=words):
        graph(folder)


def test_every_model_type_that_can_be_traced_is_tested() -> None:
    traceable = {model_type for model_type, architecture in ARCHITECTURES.items() if architecture.traceable}
    assert {model_type for model_type, _, _ in CASES} == traceable
