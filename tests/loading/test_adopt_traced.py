"""Graphs as other programs really make them, against the reference."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from foreign import SHORT_TEXTS, command, vectors
from onnxembed import OnnxEmbedder
from onnxembed.errors import (
    ModelFilesError,
)
from onnxembed.export.adopt import AdoptOptions, adopt
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import read_manifest
from onnxembed.verify.comparison import Comparison
from onnxembed.verify.verify import verify_against
from tiny import change_json, write_sentence_bert
from tiny_embedders import assert_vectors_equal


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
    from stock_models import write_sentence_decoder

    checkpoint = write_sentence_decoder(tmp_path / "checkpoint", "llama", is_causal=causal)
    trace(checkpoint, checkpoint / "model.onnx")
    export(checkpoint, tmp_path / "artifact", Options())
    with OnnxEmbedder(checkpoint) as model, OnnxEmbedder(tmp_path / "artifact") as built:
        assert_vectors_equal(model.encode(SHORT_TEXTS), built.encode(SHORT_TEXTS), atol=1e-5)
        attention = model.manifest.model.attention
    assert attention.value == ("causal" if causal else "bidirectional")
    assert attention.reason.endswith("; measured in the graph")
    change_json(checkpoint / "config.json", is_causal=not causal)
    with pytest.raises(ModelFilesError, match=r"attends in the \w+ way, but the model is .*: is_causal is"):
        OnnxEmbedder(checkpoint)


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
