"""Portable graphs: standard operators only. That they give the reference's values is tested with each architecture.

`parity.max_difference` compares both forms of every architecture with its reference, and tests of heads do too.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from onnxembed import OnnxEmbedder
from onnxembed.errors import UnsupportedError, UsageError
from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.export.graph.graph import ACTIVATIONS, BOUNDED_ACTIVATIONS, MICROSOFT, Graph
from onnxembed.export.graph.portable import PortableGraph
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import CARD_FILE, Precision, graph_file, read_manifest
from onnxembed.manifest.describe import describe
from portable import check_portable, evaluate, nodes_of
from running import Run
from tiny import BERT_LIKE, TEXTS, write_encoder, write_sentence_bert
from tiny_embedders import DENSE, assert_vectors_equal
from tiny_rerankers import write_reranker

PORTABLE = Options(form="portable")
LONG = [*TEXTS, "the cat is in " * 7]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentence_bert(tmp_path_factory.mktemp("portable") / "source", dense=DENSE, max_length=60)


@pytest.fixture(scope="module")
def folder(source: Path) -> Path:
    export(source, source.parent / "out", Options(("fp32", "fp16"), form="portable"))
    return source.parent / "out"


def padded(length: int, *, side: str) -> dict[str, NDArray[np.int64]]:
    """Three texts of different lengths, padded on one side."""
    ids = np.random.default_rng(length).integers(5, 60, (3, length))
    mask = np.ones_like(ids)
    mask[1, : length // 3] = mask[2, : length // 2] = 0
    mask = mask if side == "left" else mask[:, ::-1].copy()
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def outputs(file: Path, feeds: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    values = session.run(None, {value.name: feeds[value.name] for value in session.get_inputs()})
    return dict(zip((value.name for value in session.get_outputs()), values, strict=True))


def test_a_portable_artifact_says_so_and_is_embedded_with_like_any_other(source: Path, folder: Path) -> None:
    for precision in ("fp32", "fp16"):
        check_portable(folder / graph_file(precision))
    manifest = read_manifest(folder)
    assert manifest.model.form == "portable"
    assert "form             portable" in "\n".join(describe(manifest))
    assert "| form | portable" in (folder / CARD_FILE).read_text(encoding="utf-8")
    fused = export(source, source.parent / "fused")
    assert fused.model.form == "fused"
    assert manifest.spaces == fused.spaces
    with OnnxEmbedder(folder) as portable, OnnxEmbedder(source.parent / "fused") as model:
        assert_vectors_equal(portable.encode(LONG), model.encode(LONG))
        assert_vectors_equal(np.stack([portable.encode(text) for text in LONG]), model.encode(LONG))


def test_a_manifest_from_before_has_no_form(folder: Path, tmp_path: Path) -> None:
    text = (folder / "onnxembed.json").read_text(encoding="utf-8")
    (tmp_path / "onnxembed.json").write_text(text.replace(',\n    "form": "portable"', ""), encoding="utf-8")
    assert read_manifest(tmp_path).model.form is None


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("length", [1, 7, 50])
def test_onnxs_own_evaluator_gives_onnx_runtimes_values(folder: Path, length: int, side: str) -> None:
    feeds = padded(length, side=side)
    ours, theirs = outputs(folder / graph_file("fp32"), feeds), evaluate(folder / graph_file("fp32"), feeds)
    real = feeds["attention_mask"] == 1
    np.testing.assert_allclose(ours["sentence_embedding"], theirs["sentence_embedding"], atol=2e-6, rtol=0)
    np.testing.assert_allclose(ours["token_embeddings"][real], theirs["token_embeddings"][real], atol=1e-5, rtol=0)


def test_half_precision_is_near(folder: Path) -> None:
    with OnnxEmbedder(folder) as full, OnnxEmbedder(folder, precision="fp16") as half:
        wide, narrow = full.encode(LONG), half.encode(LONG)
    assert 0 < np.abs(wide - narrow).max() < 5e-3
    assert (wide * narrow).sum(axis=1).min() > 0.9999


@pytest.mark.parametrize("form", ["fused", "portable"])
@pytest.mark.parametrize("activation", ["GELU", "ReLU6"])
def test_a_head_stays_in_single_precision_whatever_the_graphs_type(form: Any, activation: str, tmp_path: Path) -> None:
    """Constants of its activations have the type of what they meet."""
    dense = ((32, 8, f"torch.nn.modules.activation.{activation}"),)
    source = write_sentence_bert(tmp_path / "source", dense=dense, max_length=60)
    export(source, tmp_path / "out", Options(("fp32", "fp16"), form=form))
    with OnnxEmbedder(tmp_path / "out") as full, OnnxEmbedder(tmp_path / "out", precision="fp16") as half:
        assert np.abs(full.encode(TEXTS) - half.encode(TEXTS)).max() < 5e-3


@pytest.mark.parametrize("name", [*ACTIVATIONS, *BOUNDED_ACTIVATIONS])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_activation_is_what_its_operator_computes(name: str, precision: Precision, tmp_path: Path) -> None:
    import onnxruntime

    x = np.concatenate([np.linspace(-12, 12, 481), [0.0, -300.0, 300.0]]).astype(np.float32)[None]
    values = []
    for make in (Graph, PortableGraph):
        g = make(Checkpoint.__new__(Checkpoint), precision)
        given = g.from_float32(g.input("x", onnx.TensorProto.FLOAT, (1, x.shape[1])))
        g.output("y", g.to_float32(g.activation(given, name)), (1, x.shape[1]))
        model = helper.make_model(
            g.proto("activation"),
            ir_version=8,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in g.opsets.items()],
        )
        for weight in g.initializers.values():
            model.graph.initializer.append(onnx.numpy_helper.from_array(weight.read(), weight.name))
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        values.append(session.run(None, {"x": x})[0])
        assert all(node.domain in g.opsets for node in nodes_of(model.graph))
    fused, portable = values
    tolerance = 2e-6 if precision == "fp32" else 2e-3
    np.testing.assert_allclose(portable, fused, rtol=tolerance, atol=tolerance)


def test_the_table_of_activations_has_all_of_onnx_runtimes_own() -> None:
    from onnxembed.export.graph import portable

    assert set(portable.ACTIVATIONS) == {op_type for op_type, domain, _ in ACTIVATIONS.values() if domain == MICROSOFT}


def test_an_operator_of_onnx_runtimes_own_is_refused() -> None:
    g = PortableGraph(Checkpoint.__new__(Checkpoint), "fp32")
    with pytest.raises(UnsupportedError, match=r"com\.microsoft\.MatMulNBits is no standard operator"):
        g.op("MatMulNBits", "x", domain=MICROSOFT)
    with pytest.raises(UnsupportedError, match="has Attention"):
        g.append_nodes([helper.make_node("Attention", ["x"], ["y"], domain=MICROSOFT)], [], 18)
    with pytest.raises(UnsupportedError, match="opset 23, not 18"):
        g.append_nodes([], [], 23)


@pytest.mark.parametrize("precision", ["bf16", "int16", "int8", "int8w"])
def test_a_precision_without_standard_operators_is_refused(run: Run, source: Path, precision: Precision) -> None:
    outcome = run("export", source, "-o", "out", "--form", "portable", "--precision", f"fp32,{precision}")
    assert outcome.code == 2
    assert f"--form portable: standard operators give fp32 and fp16 only, not {precision}" in outcome.err
    assert not Path("out").exists()


def test_a_packed_form_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--packed is made of CUDA's own operators"):
        export(source, tmp_path / "out", Options(form="portable", packed=True))


def test_a_reranker_is_scored_with_like_any_other(tmp_path: Path) -> None:
    from onnxembed import OnnxReranker

    source = write_reranker(tmp_path / "source")
    export(source, tmp_path / "fused")
    export(source, tmp_path / "portable", PORTABLE)
    check_portable(tmp_path / "portable" / graph_file("fp32"))
    with OnnxReranker(tmp_path / "fused") as fused, OnnxReranker(tmp_path / "portable") as portable:
        ours, theirs = (model.score("the cat of that", TEXTS) for model in (portable, fused))
    np.testing.assert_allclose(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("model_type", [*BERT_LIKE, "mpnet"])
def test_openvino_computes_it(model_type: str, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="computes with OpenVINO; needs its package, openvino")
    export(write_encoder(tmp_path / "source", model_type, max_position_embeddings=330), tmp_path / "out", PORTABLE)
    core = importlib.import_module("openvino").Core()
    compiled = core.compile_model(tmp_path / "out" / graph_file("fp32"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert openvino is not None
    for length, side in ((1, "left"), (7, "right"), (50, "left"), (256, "right")):
        feeds = padded(length, side=side)
        request = compiled({value.any_name: feeds[value.any_name] for value in compiled.inputs})
        theirs = {value.any_name: request[value] for value in compiled.outputs}
        ours = outputs(tmp_path / "out" / graph_file("fp32"), feeds)
        np.testing.assert_allclose(theirs["sentence_embedding"], ours["sentence_embedding"], atol=2e-6, rtol=0)
