"""MPNet against stock transformers: its positions, and its bias by distance beyond every bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.architectures.mpnet import MAX_DISTANCE, distance_buckets
from onnxembed.facts.facts import read_facts
from onnxembed.manifest import Precision
from parity import (
    SMALL,
    Family,
    Shape,
    assert_half_precision_is_near,
    batch,
    load_reference,
    make_graph,
    max_difference,
    open_folder,
    run,
    torch,
)
from tiny import change_json

pytestmark = pytest.mark.torch

TOLERANCE = 5e-6
MPNET = Family("mpnet", {**SMALL, "max_position_embeddings": 330})

# The bias is needed with and without padding, so attention has no branch.
PER_LAYER = {"MatMul": 6, "MultiHeadAttention": 1, "Add": 4, "LayerNormalization": 2, "BiasGelu": 1}


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
    assert max_difference(MPNET.save(tmp_path / "checkpoint", **change), tmp_path) <= TOLERANCE


@pytest.mark.parametrize("task", ["AutoModelForMaskedLM", "AutoModelForSequenceClassification"])
def test_takes_the_encoder_out_of_a_task_checkpoint(task: str, tmp_path: Path) -> None:
    assert max_difference(MPNET.save(tmp_path / "checkpoint", task), tmp_path) <= TOLERANCE


@pytest.mark.parametrize("length", [8, 9, 16, 17, 91, 92, 128, 129, 130, 300])
def test_equals_the_reference_at_the_edges_of_buckets(length: int, tmp_path: Path) -> None:
    """With a bias large enough that attention follows it."""
    folder = MPNET.save(tmp_path / "checkpoint", num_hidden_layers=1)
    model = load_reference(folder)
    with torch.no_grad():
        model.encoder.relative_attention_bias.weight.normal_(0, 3)
    model.save_pretrained(folder)
    session = open_folder(folder, tmp_path)
    for side in (None, "left", "right"):
        feeds = batch(read_facts(folder), (3, length, side))
        ids, mask = feeds["input_ids"], feeds["attention_mask"]
        with torch.no_grad():
            expected = model(torch.from_numpy(ids), torch.from_numpy(mask)).last_hidden_state.numpy()
        assert np.abs(run(session, "token_embeddings", feeds) - expected)[mask == 1].max() <= TOLERANCE


def test_buckets_equal_the_reference() -> None:
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    distances = torch.arange(-1000, 1001)
    bucket: Any = MPNetEncoder.relative_position_bucket
    expected = bucket(distances).numpy()
    clipped = np.clip(distances.numpy(), -MAX_DISTANCE, MAX_DISTANCE) + MAX_DISTANCE
    np.testing.assert_array_equal(distance_buckets()[clipped], expected)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_layer_is_made_of_fused_operators_only(precision: Precision, tmp_path: Path) -> None:
    layer, operators = MPNET.count_layer(tmp_path, precision)
    assert layer == PER_LAYER
    assert operators["LayerNormalization"] == 3 * 2 + 1
    assert operators["Gather"] == 4  # words, positions, and the bias, once for all layers
    assert not {"Softmax", "Transpose", "SkipLayerNormalization", "If"} & operators.keys()


@pytest.mark.parametrize("shape", [(3, 17, "left"), (2, 300, None)])
def test_half_precision_gives_nearly_the_same_vectors(shape: Shape, tmp_path: Path) -> None:
    assert_half_precision_is_near(MPNET.save(tmp_path / "checkpoint"), tmp_path, shape)


@pytest.mark.parametrize(
    ("key", "value"),
    [("pad_token_id", 0), ("relative_attention_num_buckets", 64), ("is_decoder", True), ("add_cross_attention", True)],
)
def test_a_setting_that_is_not_built_is_named(key: str, value: Any, tmp_path: Path) -> None:
    folder = MPNET.save(tmp_path / "checkpoint")
    change_json(folder / "config.json", **{key: value})
    with pytest.raises(UnsupportedError, match=f"sets {key} to {value}"):
        make_graph(folder)


def test_an_unknown_key_and_a_table_of_another_size_are_named(tmp_path: Path) -> None:
    folder = MPNET.save(tmp_path / "checkpoint")
    change_json(folder / "config.json", relative_attention_max_distance=64)
    with pytest.raises(UnsupportedError, match="relative_attention_max_distance"):
        make_graph(folder)
    change_json(folder / "config.json", relative_attention_max_distance=None, num_attention_heads=3)
    with pytest.raises(ModelFilesError, match=r"relative_attention_bias\.weight has the shape \(32, 4\)"):
        make_graph(folder)
