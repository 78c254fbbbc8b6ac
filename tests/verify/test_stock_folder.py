"""The folder that transformers loads as the reference of a checkpoint published with its own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed.errors import NoReferenceError
from onnxembed.verify.references.stock_folder import stock_folder
from tiny import write_bert, write_json

NEW: dict[str, Any] = {
    "model_type": "new",
    "hidden_size": 32,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "rope_theta": 160000,
    "rope_scaling": {"type": "ntk", "factor": 2.0},
    "pack_qkv": True,
    "auto_map": {"AutoModel": "modeling.NewModel"},
}


@pytest.mark.torch
@pytest.mark.parametrize("texts", ["batch", "long100"])
def test_the_translated_class_computes_what_the_original_code_did(shared_data: Path, texts: str) -> None:
    torch = pytest.importorskip("torch", reason="runs torch; needs the [torch] extra")
    transformers = pytest.importorskip("transformers", reason="runs transformers; needs the [torch] extra")
    checkpoint = shared_data / "reference/newimpl-tiny/a_gte_large_en_v15_like"
    with stock_folder(checkpoint) as folder:
        model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    expected = np.load(checkpoint / "reference.npz")
    names = ("input_ids", "attention_mask", "token_type_ids")
    with torch.no_grad():
        hidden = model(**{name: torch.from_numpy(expected[f"{texts}.{name}"]) for name in names}).last_hidden_state
    real = expected[f"{texts}.attention_mask"] == 1
    assert np.abs(hidden.numpy() - expected[f"{texts}.last_hidden_state"])[real].max() <= 1e-5


def test_most_checkpoints_are_loaded_as_they_are(tmp_path: Path) -> None:
    folder = write_bert(tmp_path)
    with stock_folder(folder) as stock:
        assert stock == folder


def test_the_checkpoint_itself_is_left_alone(tmp_path: Path) -> None:
    folder = write_bert(tmp_path, **NEW)
    before = (folder / "config.json").read_bytes()
    with stock_folder(folder) as stock:
        assert (stock / "model.safetensors").samefile(folder / "model.safetensors")
        assert b"auto_map" not in (stock / "config.json").read_bytes()
    assert (folder / "config.json").read_bytes() == before
    assert not stock.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"pack_qkv": False},
        {"layer_norm_type": "rms_norm"},
        {"rope_scaling": {"type": "ntk", "factor": 2.0, "mixed_b": 0.7}},
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        {"model_type": "nomic_bert", "n_embd": 32},
    ],
)
def test_a_checkpoint_that_no_class_computes_has_no_reference(change: dict[str, Any], tmp_path: Path) -> None:
    folder = write_bert(tmp_path)
    write_json(folder / "config.json", {**NEW, **change})
    with pytest.raises(NoReferenceError, match=r"transformers'"), stock_folder(folder):
        pass
