"""WeightedLayerPooling, the average of layers, against sentence-transformers on the same folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from onnxembed import OnnxEmbedder
from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.verify.verify import verify
from tiny import VOCAB, change_json, write_encoder, write_json
from tiny_embedders import D, assert_vectors_equal

TEXTS = ["the cat", "a", "it was that of the and to in is", "", "Mouse"]
SIZES = {
    "vocab_size": len(VOCAB),
    "hidden_size": D,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
STOCK: dict[str, dict[str, Any]] = {
    "mistral": {**SIZES, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": None},
    "eurobert": {**SIZES, "num_key_value_heads": 2, "head_dim": 8, "mask_token_id": 4},
    "modernbert": {**SIZES, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
}
PATH = "sentence_transformers.sentence_transformer.modules.WeightedLayerPooling"


def averaging(folder: Path, model_type: str = "bert", start: int = 1, *weights: float) -> Path:
    """A tiny model of two layers whose token embeddings are an average of the layers from `start` on."""
    write_encoder(folder, "bert" if model_type in STOCK else model_type, num_hidden_layers=2)
    if model_type in STOCK:
        from parity import stock_checkpoint

        stock_checkpoint(folder, model_type, STOCK[model_type])
        change_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    entries = json.loads((folder / "modules.json").read_text())
    write_json(folder / "modules.json", [entries[0], {"name": "w", "path": "w", "type": PATH}, *entries[1:]])
    write_json(folder / "w/config.json", {"embedding_dimension": D, "num_hidden_layers": 2, "layer_start": start})
    given = np.array(weights or (0.3, 1.1, -0.4)[start:], np.float32)
    save_file({"layer_weights": given}, folder / "w/model.safetensors")
    change_json(folder / "config.json", output_hidden_states=True)
    return folder


@pytest.mark.torch
@pytest.mark.parametrize(
    ("model_type", "start"),
    [
        ("bert", 0),
        ("bert", 1),
        ("bert", 2),
        ("roberta", 1),
        ("distilbert", 0),
        ("mpnet", 1),
        ("electra", 0),
        ("mistral", 0),
        ("eurobert", 1),
        ("modernbert", 0),
    ],
)
def test_the_average_of_layers_is_that_of_sentence_transformers(tmp_path: Path, model_type: str, start: int) -> None:
    st = pytest.importorskip("sentence_transformers")
    checkpoint = averaging(tmp_path / "checkpoint", model_type, start)
    theirs = st.SentenceTransformer(str(checkpoint), device="cpu", local_files_only=True).encode(TEXTS)
    export(checkpoint, tmp_path / "artifact", Options(precisions=("fp32", "fp16")))
    with OnnxEmbedder(tmp_path / "artifact") as model:
        assert_vectors_equal(model.encode(TEXTS), theirs, atol=2e-6)
        assert_vectors_equal(np.stack([model.encode(text) for text in TEXTS]), theirs, atol=2e-6)
    with OnnxEmbedder(tmp_path / "artifact", precision="fp16") as model:
        assert_vectors_equal(model.encode(TEXTS), theirs, atol=4e-3)
    copied = json.loads((tmp_path / "artifact/modules.json").read_text())
    assert [module["type"].rpartition(".")[2] for module in copied][:2] == ["Transformer", "WeightedLayerPooling"]


@pytest.mark.torch
def test_pooling_out_and_verification_average_too(tmp_path: Path) -> None:
    checkpoint = averaging(tmp_path / "checkpoint")
    export(checkpoint, tmp_path / "plain")
    export(checkpoint, tmp_path / "out", Options(pooling_out=True))
    assert verify(tmp_path / "plain", against=checkpoint).verification["fp32"].max_abs_diff < 1e-5
    assert verify(tmp_path / "out", against=checkpoint).verification["fp32"].max_abs_diff < 1e-5


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"layer_start": 0}, ModelFilesError, r"layer_weights is \(2,\), but config.json says \(3,\)"),
        ({"num_hidden_layers": 3, "layer_start": 2}, ModelFilesError, "averages 2 layers from layer_start 2.*has 1"),
        ({"layer_start": -1}, ModelFilesError, "layer_start is -1 of num_hidden_layers 2"),
        ({"layer_start": 3}, ModelFilesError, "layer_start is 3 of num_hidden_layers 2"),
        ({"layer_weights": [1, 1]}, UnsupportedError, "layer_weights"),
    ],
)
def test_layers_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    checkpoint = averaging(tmp_path / "checkpoint")
    change_json(checkpoint / "w/config.json", **changes)
    with pytest.raises(error, match=words):
        export(checkpoint, tmp_path / "artifact")


def test_weights_without_a_sum_are_refused(tmp_path: Path) -> None:
    checkpoint = averaging(tmp_path / "checkpoint", "bert", 1, 1.0, -1.0)
    with pytest.raises(ModelFilesError, match="the sum of layer_weights is 0"):
        export(checkpoint, tmp_path / "artifact")


@pytest.mark.torch
def test_a_traced_graph_does_not_tell_its_layers(tmp_path: Path) -> None:
    checkpoint = averaging(tmp_path / "checkpoint")
    with pytest.raises(UnsupportedError, match=r"averages the layers .*engine than build"):
        export(checkpoint, tmp_path / "artifact", Options(engine="trace"))
