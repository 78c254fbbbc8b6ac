"""Integer graphs: what is rounded is measured, one text's vector does not depend on another's, floors hold."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import save_file

from onnxembed import OnnxEmbedder
from onnxembed.arrays import Array, row_cosines
from onnxembed.errors import ManifestError, MissingExtraError, UnsupportedError, UsageError, VerificationError
from onnxembed.execution.processor import Processor
from onnxembed.export.artifact.graph_file import write_graph
from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.export.graph.graph import Graph
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.export.quantize import quantize
from onnxembed.export.quantize.calibration_texts import TEXTS, read_texts
from onnxembed.export.quantize.int8 import Int8Graph
from onnxembed.export.quantize.int8w import Int8WGraph
from onnxembed.export.quantize.int16 import Int16Graph
from onnxembed.export.quantize.rounding import ActivationQuant, QuantPlan, rounded_residual, rounded_rows, row_scales
from onnxembed.manifest import FILE_NAME, Precision, Quality, parse_manifest, read_manifest
from onnxembed.progress import silent
from tiny import TEXTS as TINY_TEXTS
from tiny import VOCAB, write_json, write_sentence_bert, write_tokenizer

# The tiny BERT cuts texts to 20 tokens.
pytestmark = pytest.mark.filterwarnings(r"ignore:\d+ of \d+ texts? (was|were) longer")

PRODUCTS = 12  # of the tiny BERT: two layers of query, key, value, out, in, out
LOW = Options(precisions=("fp32", "int16", "int8", "int8w"), min_cosine=0.9)
KEY = "encoder.layer.0.intermediate.dense"


@pytest.fixture(scope="module")
def integers(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    output = tmp_path_factory.mktemp("integers") / "out"
    export(checkpoint, output, LOW)
    return output


def product(folder: Path, graph: Graph, width: int, x: Array) -> Array:
    """The product KEY of a graph, on x [B, T, K]."""
    value = graph.input("x", 1, ("batch", "sequence", width))
    graph.output("y", graph.product(value, KEY), ("batch", "sequence", "out"))
    variant = write_graph(graph, folder, graph.precision, silent)
    result: Array = onnxruntime.InferenceSession(folder / variant.file).run(["y"], {"x": x})[0]
    return result


@pytest.fixture
def x() -> Array:
    """Values [2, 5, 32], with an outlier channel and one token far larger than the others."""
    x = np.random.default_rng(3).standard_normal((2, 5, 32)).astype(np.float32)
    x[..., 7] *= 30
    x[1, 2] *= 1000
    return x


def exact(checkpoint: Path, x: Array) -> Array:
    result: Array = x @ Checkpoint(checkpoint).read(f"{KEY}.weight").T
    return result


def share(ours: Array, theirs: Array) -> float:
    """The worst token's error as a share of its length."""
    return float((np.linalg.norm(ours - theirs, axis=-1) / np.linalg.norm(theirs, axis=-1)).max())


SMOOTHING = np.where(np.arange(32) == 7, 10, 1).astype(np.float32)


@pytest.mark.exact_bytes
@pytest.mark.parametrize("high_precision", [frozenset[str](), frozenset({KEY})])
@pytest.mark.parametrize("quant", [ActivationQuant(), ActivationQuant(zero_point=100), ActivationQuant(SMOOTHING)])
def test_a_product_is_near_the_exact_one(
    tmp_path: Path, checkpoint: Path, x: Array, *, quant: ActivationQuant, high_precision: frozenset[str]
) -> None:
    graph = Int8Graph(Checkpoint(checkpoint), QuantPlan({KEY: quant}, high_precision))
    assert 0 < share(product(tmp_path, graph, 32, x), exact(checkpoint, x)) < 0.04


@pytest.mark.exact_bytes
def test_a_high_precision_weight_leaves_the_rounding_of_the_values(tmp_path: Path, checkpoint: Path) -> None:
    x = np.random.default_rng(0).integers(-127, 128, (1, 4, 32)).astype(np.float32)
    x[..., 0] = 127  # every token's scale is 1, so these values are not rounded at all
    errors = []
    for high_precision in (frozenset[str](), frozenset({KEY})):
        plan = QuantPlan({KEY: ActivationQuant(zero_point=128)}, high_precision)
        graph = Int8Graph(Checkpoint(checkpoint), plan)
        errors.append(share(product(tmp_path, graph, 32, x), exact(checkpoint, x)))
    assert errors[1] < errors[0] / 100


def test_a_large_token_leaves_others_alone(tmp_path: Path, checkpoint: Path, x: Array) -> None:
    graph = Int8Graph(Checkpoint(checkpoint), QuantPlan({KEY: ActivationQuant()}))
    together = product(tmp_path, graph, 32, x)
    again = Int8Graph(Checkpoint(checkpoint), QuantPlan({KEY: ActivationQuant()}))
    assert np.array_equal(product(tmp_path, again, 32, x[:1]), together[:1])


@pytest.mark.exact_bytes
def test_two_bytes_of_values_and_weights_are_nearly_exact(tmp_path: Path, checkpoint: Path, x: Array) -> None:
    assert 0 < share(product(tmp_path, Int16Graph(Checkpoint(checkpoint)), 32, x), exact(checkpoint, x)) < 2e-4


def test_an_integer_product_of_two_bytes_keeps_texts_apart(tmp_path: Path, checkpoint: Path, x: Array) -> None:
    together = product(tmp_path, Int16Graph(Checkpoint(checkpoint)), 32, x)
    assert np.array_equal(product(tmp_path, Int16Graph(Checkpoint(checkpoint)), 32, x[:1]), together[:1])


def test_weights_in_blocks(tmp_path: Path, checkpoint: Path, x: Array) -> None:
    assert 0 < share(product(tmp_path, Int8WGraph(Checkpoint(checkpoint)), 32, x), exact(checkpoint, x)) < 0.03


def test_two_bytes_hold_a_weight_to_a_five_hundredth_of_its_scale() -> None:
    tensor = np.random.default_rng(1).standard_normal((6, 40)).astype(np.float32)
    tensor[2] = 0
    scales = row_scales(tensor)[:, None]
    first, residual = rounded_rows(tensor), rounded_residual(tensor)
    assert np.abs(first).max() == 127
    assert np.abs(residual).max() <= 127
    assert np.abs((first + residual / 254) * scales - tensor).max() <= scales.max() / 254 / 2 * 1.01


def test_every_product_and_table_is_rounded(integers: Path) -> None:
    variants = read_manifest(integers).variants
    for precision, operator in (("int8", "MatMulIntegerToFloat"), ("int8w", "MatMulNBits")):
        variant = variants[precision]
        assert variant.quality is not None
        wider = [key for key in variant.quality.kept_wider if "embeddings" not in key]
        assert variant.operators[operator] == PRODUCTS + len(wider)
        # What is left pools the tokens.
        assert variant.operators["MatMul"] == variants["fp32"].operators["MatMul"] - PRODUCTS == 1
        assert variant.operators["Cast"] == variants["fp32"].operators["Cast"] + 2  # the tables of words and segments
    # Three readers of one value share its integers.
    assert variants["int8"].operators["QuantizeLinear"] == 8


@pytest.mark.exact_bytes
def test_quality_is_recorded_and_true(integers: Path) -> None:
    variants = read_manifest(integers).variants
    assert variants["fp32"].quality is None
    held_back = read_texts(None)[1::2]
    with OnnxEmbedder(integers, precision="fp32") as model:
        expected = model.encode(held_back)
    for precision, least, most in ("int16", 0.99999, 1), ("int8", 0.9, 0.99999), ("int8w", 0.9, 0.99999):
        quality = variants[precision].quality
        assert quality is not None
        assert (quality.texts, quality.required) == (len(held_back), 0.9)
        with OnnxEmbedder(integers, precision=precision) as model:  # type: ignore[arg-type]
            cosines = row_cosines(model.encode(held_back), expected)
        assert quality.min_cosine == pytest.approx(cosines.min(), abs=1e-5)
        assert quality.mean_cosine == pytest.approx(cosines.mean(), abs=1e-5)
        assert quality.min_cosine is not None
        assert least <= quality.min_cosine <= most


@pytest.mark.parametrize("precision", ["int16", "int8", "int8w"])
def test_a_vector_is_the_same_alone_and_among_others(integers: Path, precision: str) -> None:
    texts = [*TINY_TEXTS, *read_texts(None)]
    with OnnxEmbedder(integers, precision=precision, providers="cpu") as model:  # type: ignore[arg-type]
        together = model.encode(texts)
        alone = np.concatenate([model.encode([text]) for text in texts])
    # Much nearer than the rounding is to fp32: a run with padding in it would show.
    assert row_cosines(alone, together).min() >= 1 - 1e-10


def test_auto_takes_fp32(integers: Path) -> None:
    with OnnxEmbedder(integers) as auto, OnnxEmbedder(integers, precision="fp32") as full:
        assert np.array_equal(auto.encode(["the cat"]), full.encode(["the cat"]))


@pytest.mark.exact_bytes
def test_the_search_keeps_products_wider_to_meet_the_floor(tmp_path: Path, checkpoint: Path) -> None:
    loose = export(checkpoint, tmp_path / "loose", Options(precisions=("int8",), min_cosine=0.5)).variants["int8"]
    tight = export(checkpoint, tmp_path / "tight", Options(precisions=("int8",), min_cosine=0.99997)).variants["int8"]
    assert loose.quality is not None
    assert tight.quality is not None
    assert loose.quality.kept_wider == ()
    assert tight.quality.kept_wider
    assert tight.quality.min_cosine is not None
    assert loose.quality.min_cosine is not None
    assert tight.quality.min_cosine > loose.quality.min_cosine


@pytest.mark.parametrize("precision", ["int8", "int8w"])
def test_a_graph_under_its_floor_is_refused(tmp_path: Path, checkpoint: Path, precision: str) -> None:
    options = Options(precisions=(precision,), min_cosine=0.9999999)  # type: ignore[arg-type]
    with pytest.raises(
        VerificationError, match=rf"{precision} vectors are too far from those of fp32: min cosine 0\.\d+ "
    ):
        export(checkpoint, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("precision", "instructions", "said"),
    [
        ("int8", ("AVX2", "FMA"), True),
        ("int8", ("AVX2", "AVX-512", "AVX-512 VNNI"), False),
        ("int8", (), False),
        ("int8w", ("AVX2", "FMA"), False),
    ],
)
def test_the_error_names_a_processor_that_is_known_to_cut_off_sums(
    tmp_path: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    precision: Precision,
    instructions: tuple[str, ...],
    said: bool,
) -> None:
    monkeypatch.setattr(quantize, "read_processor", lambda: Processor("EPYC 7B12", instructions))
    with pytest.raises(VerificationError) as caught:
        export(checkpoint, tmp_path / "out", Options(precisions=(precision,), min_cosine=0.9999999))
    assert ("EPYC 7B12 has no VNNI" in str(caught.value)) is said


def test_the_error_says_what_costs_most(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(VerificationError, match=r"what costs most: \S+ \(\d\.\de-\d\d\)"):
        export(checkpoint, tmp_path / "out", Options(precisions=("int8",), min_cosine=0.9999999))


def test_the_callers_calibration_texts(tmp_path: Path, checkpoint: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(["the cat", "", "it was that of the and to in is"] * 10), encoding="utf-8")
    options = replace(LOW, precisions=("int8",), calibration=file)
    quality = export(checkpoint, tmp_path / "out", options).variants["int8"].quality
    assert quality is not None
    assert quality.texts == 10


def test_too_few_calibration_texts(tmp_path: Path, checkpoint: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("the cat\n" * 15, encoding="utf-8")
    with pytest.raises(UsageError, match=r"texts\.txt has 15 texts, one per line; at least 16 are needed"):
        export(checkpoint, tmp_path / "out", replace(LOW, calibration=file))


def test_an_invalid_min_cosine(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="--min-cosine: 2 is not a cosine"):
        export(checkpoint, tmp_path / "out", replace(LOW, min_cosine=2))


def test_pooling_left_to_the_runtime(tmp_path: Path, checkpoint: Path) -> None:
    manifest = export(checkpoint, tmp_path / "out", replace(LOW, pooling_out=True))
    assert manifest.variants["int8"].quality is not None
    with OnnxEmbedder(tmp_path / "out", precision="int8") as model, OnnxEmbedder(tmp_path / "out") as full:
        assert row_cosines(model.encode(TINY_TEXTS), full.encode(TINY_TEXTS)).min() > 0.9


def test_int8_alone(tmp_path: Path, checkpoint: Path) -> None:
    manifest = export(checkpoint, tmp_path / "out", replace(LOW, precisions=("int8",)))
    assert list(manifest.variants) == ["int8"]
    assert sorted(path.name for path in (tmp_path / "out/onnx").iterdir()) == ["model_int8.onnx"]
    with OnnxEmbedder(tmp_path / "out") as model:
        assert model.encode(["the cat"]).shape == (1, 32)


def test_quantizing_needs_onnxruntime(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'onnxembed\[cpu\]'"):
        export(checkpoint, tmp_path / "out", LOW)


def test_a_model_without_products(tmp_path: Path) -> None:
    folder = tmp_path / "static"
    folder.mkdir()
    write_tokenizer(folder)
    save_file({"embeddings": np.ones((len(VOCAB), 6), np.float32)}, folder / "model.safetensors")
    write_json(folder / "config.json", {"model_type": "model2vec", "hidden_dim": 6, "normalize": True})
    modules = [{"idx": 0, "name": "0", "path": ".", "type": "sentence_transformers.models.StaticEmbedding"}]
    write_json(folder / "modules.json", modules)
    with pytest.raises(UnsupportedError, match="--precision int8: this model has no matrix products"):
        export(folder, tmp_path / "out", replace(LOW, precisions=("int8",)))


def test_the_manifest_keeps_quality(integers: Path) -> None:
    text = (integers / FILE_NAME).read_text(encoding="utf-8")
    assert parse_manifest(text).to_json() == text
    quality = parse_manifest(text).variants["int8"].quality
    assert isinstance(quality, Quality)
    with pytest.raises(ManifestError, match=r"variants\.int8\.quality\.min_cosine is 'high'"):
        parse_manifest(text.replace(f'"min_cosine": {quality.min_cosine}', '"min_cosine": "high"'))


def test_our_texts_are_many_and_distinct() -> None:
    lines = read_texts(None)
    assert len(lines) == len(set(lines)) >= 64
    assert TEXTS.is_file()


def test_quantizing_twice_gives_the_same_bytes(tmp_path: Path, checkpoint: Path, integers: Path) -> None:
    export(checkpoint, tmp_path / "out", LOW)
    for name in ("model_int16.onnx", "model_int8.onnx", "model_int8w.onnx"):
        assert (tmp_path / "out/onnx" / name).read_bytes() == (integers / "onnx" / name).read_bytes()


def test_a_random_model_of_odd_width(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "odd", hidden_size=20, intermediate_size=37, num_attention_heads=2)
    export(folder, tmp_path / "out", LOW)
    assert read_manifest(tmp_path / "out").variants.keys() == {"fp32", "int16", "int8", "int8w"}
