"""Models whose numbers fit into fp32, but not into fp16: no export gives such a graph, whatever the task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from onnxembed import OnnxEmbedder
from onnxembed.commands import export as export_command
from onnxembed.errors import VerificationError
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import Precision
from tiny import change_weights, write_sentence_bert
from tiny_heads import write_colbert_encoder, write_masked_lm
from tiny_rerankers import write_cross_encoder

WRITERS: dict[str, Callable[[Path], object]] = {
    "embedding": write_sentence_bert,
    "sparse": lambda folder: write_masked_lm(folder, pooling={}),
    "multi_vector": write_colbert_encoder,
    "reranking": write_cross_encoder,
}


def overflowing(folder: Path, task: str) -> Path:
    """A checkpoint whose first layer makes numbers near and above fp16's largest, 65504."""
    WRITERS[task](folder)
    tensors = load_file(folder / "model.safetensors")
    norms = {name: tensor * np.float32(2e4) for name, tensor in tensors.items() if "layer.0.output.LayerNorm.w" in name}
    assert len(norms) == 1
    change_weights(folder, **norms)
    return folder


@pytest.mark.parametrize("precisions", [("fp16",), ("fp32", "fp16")], ids="+".join)
@pytest.mark.parametrize("task", WRITERS)
def test_an_fp16_graph_that_overflows_is_not_exported(
    tmp_path: Path, task: str, precisions: tuple[Precision, ...]
) -> None:
    checkpoint = overflowing(tmp_path / "checkpoint", task)
    with pytest.raises(VerificationError, match="the fp16 graph does not give what the fp32 graph does"):
        export(checkpoint, tmp_path / "artifact", Options(precisions=precisions))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_the_command_says_so_too_and_fp32_is_exported(tmp_path: Path) -> None:
    checkpoint = overflowing(tmp_path / "checkpoint", "sparse")
    with pytest.raises(VerificationError, match="fp16 sparse embeddings are not"):
        export_command(str(checkpoint), tmp_path / "artifact", precision="fp16", verify=False)
    export(checkpoint, tmp_path / "artifact")
    with OnnxEmbedder(tmp_path / "artifact") as model:
        assert len(model.encode_sparse("the cat").values)
