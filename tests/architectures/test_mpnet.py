"""MPNet against stock transformers: its positions, and its bias by distance beyond every bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.architectures.mpnet import MAX_DISTANCE, distance_buckets
from onnxembed.export.artifact import write_graph
from onnxembed.export.graph import Graph
from onnxembed.export.pipeline import Options, build
from onnxembed.facts import read_facts
from onnxembed.manifest import Precision
from onnxembed.resolve import Flags, resolve
from parity import batch, max_difference, random_checkpoint, torch, transformers
from tiny import change_json

pytestmark = pytest.mark.torch

TOLERANCE = 5e-6
SMALL: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "intermediate_size": 70,
    "max_position_embeddings": 330,
}

# The bias is needed with and without padding, so attention has no branch.
PER_LAYER = {"MatMul": 6, "MultiHeadAttention": 1, "Add": 4, "LayerNormalization": 2, "BiasGelu": 1}


def checkpoint(folder: Path, task: str = "AutoModel", **change: Any) -> Path:
    return random_checkpoint(folder, transformers.MPNetConfig(**{**SMALL, **change}), task=task)


def make(folder: Path, precision: Precision = "fp32") -> Graph:
    facts = read_facts(folder)
    return build(facts, resolve(facts, Flags(pooling=("mean",), normalize=True)), Options(), precision)


def session(folder: Path, workdir: Path, precision: Precision = "fp32") -> onnxruntime.InferenceSession:
    path = workdir / write_graph(make(folder, precision), workdir, precision, lambda stage, done, total: None).file
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options)


def feeds(folder: Path, shape: tuple[int, int, str | None], session: onnxruntime.InferenceSession) -> dict[str, Any]:
    names = {value.name for value in session.get_inputs()}
    return {name: value for name, value in batch(read_facts(folder), shape).items() if name in names}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"hidden_act": "gelu_new"},
        {"hidden_act": "relu"},
        {"layer_norm_eps": 1e-2},
        {"num_attention_heads": 1},
        {"num_attention_heads": 12, "num_hidden_layers": 1},
    ],
    ids=str,
)
def test_equals_the_reference(change: dict[str, Any], tmp_path: Path) -> None:
    assert max_difference(checkpoint(tmp_path / "checkpoint", **change), tmp_path) <= TOLERANCE


@pytest.mark.parametrize("task", ["AutoModelForMaskedLM", "AutoModelForSequenceClassification"])
def test_takes_the_encoder_out_of_a_task_checkpoint(task: str, tmp_path: Path) -> None:
    assert max_difference(checkpoint(tmp_path / "checkpoint", task), tmp_path) <= TOLERANCE


@pytest.mark.parametrize("length", [8, 9, 16, 17, 91, 92, 128, 129, 130, 300])
def test_equals_the_reference_at_the_edges_of_buckets(length: int, tmp_path: Path) -> None:
    """With a bias large enough that attention follows it."""
    folder = checkpoint(tmp_path / "checkpoint", num_hidden_layers=1)
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        model.encoder.relative_attention_bias.weight.normal_(0, 3)
    model.save_pretrained(folder)
    run = session(folder, tmp_path)
    for side in (None, "left", "right"):
        given = feeds(folder, (3, length, side), run)
        with torch.no_grad():
            expected = model(**{name: torch.from_numpy(value) for name, value in given.items()}).last_hidden_state
        difference = np.abs(run.run(["token_embeddings"], given)[0] - expected.numpy())
        assert difference[given["attention_mask"] == 1].max() <= TOLERANCE


def test_buckets_are_the_references() -> None:
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    distances = torch.arange(-1000, 1001)
    bucket: Any = MPNetEncoder.relative_position_bucket
    expected = bucket(distances).numpy()
    clipped = np.clip(distances.numpy(), -MAX_DISTANCE, MAX_DISTANCE) + MAX_DISTANCE
    np.testing.assert_array_equal(distance_buckets()[clipped], expected)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_layer_is_made_of_fused_operators_only(precision: Precision, tmp_path: Path) -> None:
    two = make(checkpoint(tmp_path / "two", num_hidden_layers=2), precision).operators()
    three = make(checkpoint(tmp_path / "three"), precision).operators()
    assert {name: three[name] - two[name] for name in three if three[name] != two[name]} == PER_LAYER
    assert three["LayerNormalization"] == 3 * 2 + 1
    assert three["Gather"] == 4  # words, positions, and the bias, once for all layers
    assert not {"Softmax", "Transpose", "SkipLayerNormalization", "If"} & three.keys()


def test_half_precision_gives_nearly_the_same_vectors(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint")
    single, half = session(folder, tmp_path), session(folder, tmp_path, "fp16")
    for shape in ((3, 17, "left"), (2, 300, None)):
        given = feeds(folder, shape, single)
        vectors = [run.run(["sentence_embedding"], given)[0] for run in (single, half)]
        assert (vectors[0] * vectors[1]).sum(axis=1).min() >= 0.999


@pytest.mark.parametrize(
    ("key", "value"),
    [("pad_token_id", 0), ("relative_attention_num_buckets", 64), ("is_decoder", True), ("add_cross_attention", True)],
)
def test_a_setting_that_is_not_built_is_named(key: str, value: Any, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint")
    change_json(folder / "config.json", **{key: value})
    with pytest.raises(UnsupportedError, match=f"sets {key} to {value}"):
        make(folder)


def test_an_unknown_key_and_a_table_of_another_size_are_named(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint")
    change_json(folder / "config.json", relative_attention_max_distance=64)
    with pytest.raises(UnsupportedError, match="relative_attention_max_distance"):
        make(folder)
    change_json(folder / "config.json", relative_attention_max_distance=None, num_attention_heads=3)
    with pytest.raises(ModelFilesError, match=r"relative_attention_bias\.weight has the shape \(32, 4\)"):
        make(folder)
