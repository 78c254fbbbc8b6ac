"""bf16 graphs: the range of fp32 for models that collapse in fp16, on CUDA only; elsewhere an error says so."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, numpy_helper

from onnxembed import OnnxEmbedder
from onnxembed.cli import cli
from onnxembed.errors import NoReferenceError, ProviderError
from onnxembed.execution import processor
from onnxembed.execution.backend import GraphFiles
from onnxembed.execution.opening import open_backend
from onnxembed.execution.processor import Processor
from onnxembed.execution.providers import Placement, decide
from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.export.graph.attention import attention, local_mask, prepare_mask
from onnxembed.export.graph.graph import FLOAT_TYPES, Graph
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import CUDA_ONLY, Precision, read_manifest
from onnxembed.verify.comparison import Comparison
from onnxembed.verify.verify import self_check, verify_against

# Operators of bf16 graphs that CUDA has kernels for, in onnxruntime-gpu 1.31.1 and its docs/OperatorKernels.md.
KERNELS = {
    *("Add", "BiasGelu", "Cast", "FastGelu", "Gather", "Gelu", "If", "LayerNormalization", "MatMul", "Mul"),
    *("MultiHeadAttention", "QuickGelu", "Reshape", "RotaryEmbedding", "SkipSimplifiedLayerNormalization", "Slice"),
    *("Where", "Unsqueeze", "RMSNormalization", "Identity"),
}


@pytest.fixture(scope="module")
def artifact16(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("bf16") / "tiny"
    export(checkpoint, output, Options(precisions=("fp32", "bf16")))
    return output


def test_weights_are_those_of_fp32_rounded(artifact16: Path) -> None:
    graphs = [onnx.load(artifact16 / f"onnx/model{suffix}.onnx").graph for suffix in ("", "_bf16")]
    fp32, bf16 = ({tensor.name: tensor for tensor in graph.initializer} for graph in graphs)
    floats = [name for name, tensor in bf16.items() if tensor.data_type == TensorProto.BFLOAT16]
    assert len(floats) > 30
    for name in floats:
        rounded = numpy_helper.to_array(fp32[name]).astype(ml_dtypes.bfloat16)
        assert np.array_equal(numpy_helper.to_array(bf16[name]), rounded)


def test_pooling_is_in_fp32(artifact16: Path) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load(artifact16 / "onnx/model_bf16.onnx")).graph
    assert [output.type.tensor_type.elem_type for output in graph.output] == [TensorProto.FLOAT] * 2
    casts = [node for node in graph.node if node.op_type == "Cast" and node.output[0] == "token_embeddings"]
    assert len(casts) == 1
    after = [node for node in graph.node if "token_embeddings" in node.input]
    assert {node.op_type for node in after} == {"MatMul"}  # the mean, of what has been cast


def test_types_fit_and_only_kernels_are_missing_on_the_cpu(artifact16: Path) -> None:
    """Types are checked before kernels are looked for."""
    with pytest.raises(Exception, match="NOT_IMPLEMENTED") as caught:
        onnxruntime.InferenceSession(artifact16 / "onnx/model_bf16.onnx", providers=["CPUExecutionProvider"])
    assert "Could not find an implementation for" in str(caught.value)


def test_cuda_has_kernels_for_all_that_is_in_bf16(artifact16: Path) -> None:
    graph = onnx.load(artifact16 / "onnx/model_bf16.onnx").graph
    halves = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.BFLOAT16}
    assert {node.op_type for node in graph.node if halves & {*node.input}} <= KERNELS


def test_windows_are_masked_rather_than_cut(checkpoint: Path) -> None:
    """CUDA has no Pad in bf16."""
    operators = {}
    for precision in ("fp16", "bf16"):
        graph = Graph(Checkpoint(checkpoint), precision)
        mask = prepare_mask(
            graph, graph.input("attention_mask", TensorProto.INT64, ("batch", "sequence")), causal=False
        )
        local_mask(graph, mask, 4)
        operators[precision] = graph.operators()
    assert "Pad" in operators["fp16"]
    assert "Pad" not in operators["bf16"]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_causal_attention_asks_for_keys_and_values(precision: Precision, checkpoint: Path) -> None:
    """CUDA's GroupQueryAttention fails at run time unless it is asked for present_key and present_value."""
    graph = Graph(Checkpoint(checkpoint), precision)
    mask = prepare_mask(graph, graph.input("attention_mask", TensorProto.INT64, ("batch", "sequence")), causal=True)
    attention(graph, "query", "key", "value", heads=4, head_dim=8, mask=mask)
    (choice,) = [node for node in graph.proto("test").node if node.op_type == "If"]
    (grouped,) = [
        node for attribute in choice.attribute for node in attribute.g.node if node.op_type == "GroupQueryAttention"
    ]
    assert len(grouped.output) == 3
    assert all(grouped.output)


@pytest.mark.parametrize("providers", ["cpu", "auto", "cuda"])
def test_the_cpu_refuses_graphs_of_bf16(checkpoint: Path, tmp_path: Path, providers: str) -> None:
    export(checkpoint, tmp_path / "out", Options(precisions=("bf16",)))
    words = "runs on CUDA only" if providers == "cpu" else "the installed onnxruntime is the CPU wheel"
    with pytest.raises(ProviderError, match=words):
        OnnxEmbedder(tmp_path / "out", precision="bf16", providers=providers)


@pytest.mark.parametrize("providers", ["cpu", "auto", "cuda"])
def test_nothing_takes_the_place_of_bf16(artifact16: Path, providers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU computes it from the fp32 graph, or says that it cannot."""
    monkeypatch.setattr(processor, "read_processor", lambda: Processor("an old one", ("AVX2",)))
    words = "the installed onnxruntime is the CPU wheel" if providers == "cuda" else "which an old one is not known to"
    with pytest.raises(ProviderError, match=words):
        OnnxEmbedder(artifact16, precision="bf16", providers=providers)
    assert OnnxEmbedder(artifact16, providers="cpu").encode("the cat").shape == (32,)  # auto is fp32


def test_auto_does_not_fall_back(artifact16: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = GraphFiles(artifact16 / "onnx/model_bf16.onnx", 1, cuda_only=True)
    with pytest.raises(ProviderError, match="CPU wheel"):
        open_backend(files, decide(Placement(threads=1)))


def test_the_output_says_that_it_is_not_verified(artifact16: Path) -> None:
    result = CliRunner().invoke(cli, ["inspect", str(artifact16)], catch_exceptions=False)
    assert "bf16: not verified (needs CUDA)" in result.output
    assert read_manifest(artifact16).on_cpu == ("fp32",)
    assert self_check(artifact16).startswith("run on")  # of fp32


def test_bf16_alone_cannot_be_verified(checkpoint: Path, tmp_path: Path) -> None:
    manifest = export(checkpoint, tmp_path / "out", Options(precisions=("bf16",)))
    with pytest.raises(NoReferenceError, match="bf16 graphs run on CUDA only; an export with --precision fp32"):
        verify_against(Comparison(tmp_path / "out", manifest, checkpoint))
    assert self_check(tmp_path / "out") == "not even run: bf16 graphs run on CUDA only"


def test_every_float_type_but_bf16_runs_on_the_cpu() -> None:
    assert {precision for precision in FLOAT_TYPES if precision not in CUDA_ONLY} == {"fp32", "fp16"}
