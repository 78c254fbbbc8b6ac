"""Rounding that cannot be given back: bf16 and integers, by the direction in which it moves vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed import OnnxEmbedder
from onnxembed.arrays import FloatArray, row_cosines
from onnxembed.explain import Report, explain
from onnxembed.explain.candidates import Candidate
from onnxembed.explain.formats import FORMATS, Agreement, agreement, number_formats, quantize
from onnxembed.explain.search import likeliest
from onnxembed.explain.setup import Hypothesis
from onnxembed.export.pipeline import export
from running import needs_torch
from tiny import VOCAB, change_json, write_sentence_bert
from tiny_embedders import texts_of_many_lengths

TEXTS = texts_of_many_lengths(16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentence_bert(tmp_path_factory.mktemp("formats") / "checkpoint", hidden_size=64, num_hidden_layers=4)


@pytest.fixture(scope="module")
def onnx(folder: Path) -> Path:
    export(folder, folder.parent / "onnx")
    return folder.parent / "onnx"


def quantized(folder: Path, work: Path, *, channels: bool) -> FloatArray:
    """What ONNX Runtime makes of a traced BertModel whose weights and activations are integers; means, scaled."""
    import onnxruntime
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import AutoModel, AutoTokenizer

    transformer = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    fed = tokenizer(["a of the", "to"], padding=True, return_tensors="pt")
    names = list(fed)

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            hidden: torch.Tensor = self.transformer(**dict(zip(names, inputs, strict=True))).last_hidden_state
            return hidden

    whole, small = str(work / "whole.onnx"), str(work / "small.onnx")
    axes = {name: {0: "batch", 1: "sequence"} for name in (*names, "hidden")}
    torch.onnx.export(
        Hidden(),
        tuple(fed.values()),
        whole,
        input_names=names,
        output_names=["hidden"],
        dynamic_axes=axes,
        dynamo=False,
    )
    quantize_dynamic(whole, small, weight_type=QuantType.QInt8, per_channel=channels)
    session = onnxruntime.InferenceSession(small, providers=["CPUExecutionProvider"])
    vectors = []
    for text in TEXTS:
        feeds = tokenizer(text, truncation=True, max_length=20, return_tensors="np")
        hidden = session.run(None, {name: feeds[name].astype(np.int64) for name in names})[0][0]
        vectors.append(hidden.mean(0) / np.linalg.norm(hidden.mean(0)))
    return np.stack(vectors)


def causes(report: Report) -> list[str]:
    return [cause.name for cause in report.causes]


@needs_torch
@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("channels", [False, True])
def test_dynamic_int8_is_named_and_its_scales(folder: Path, onnx: Path, tmp_path: Path, *, channels: bool) -> None:
    theirs = quantized(folder, tmp_path, channels=channels)
    with OnnxEmbedder(onnx, threads=1) as model:
        report = explain(model, TEXTS, theirs)
        assert causes(report) == ["number format"], report.verdict
        assert report.explained or report.band
        assert f"dynamic int8, one scale for each {'channel' if channels else 'weight'}" in report.verdict


@needs_torch
@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_dynamic_int8_of_vectors_that_are_cut_is_named_with_the_cut(folder: Path, onnx: Path, tmp_path: Path) -> None:
    theirs = quantized(folder, tmp_path, channels=False)[:, :32]
    with OnnxEmbedder(onnx, threads=1) as model:
        report = explain(model, TEXTS, theirs / np.linalg.norm(theirs, axis=1, keepdims=True))
    assert sorted(causes(report)) == ["dimensions", "number format"], report.verdict
    assert report.explained or report.band


def test_a_row_that_moves_elsewhere_is_no_rounding() -> None:
    """Another cause beside it moves some rows more than others."""
    assert Agreement(mean=0.66, least=0.25, ratio=1.0).holds
    moved = Agreement(mean=0.66, least=0.09, ratio=1.0)
    assert moved.likely  # so that no change beside it is named in its place
    assert not moved.holds


def test_candidates_of_the_same_changes_can_be_told_apart() -> None:
    one, other = (Candidate((), np.ones(3), norms_fit=True) for _ in range(2))
    assert other not in [one]
    assert one in [one]


@needs_torch
@pytest.mark.torch
def test_bf16_is_named_alone_where_poolings_of_another_length_agree_as_well(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel, PreTrainedTokenizerFast

    from parity import stock_checkpoint

    sizes = {"vocab_size": len(VOCAB), "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    more = {"intermediate_size": 70, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0}
    prompts = {"query": "to be: "}
    checkpoint = write_sentence_bert(
        tmp_path / "checkpoint", hidden_size=48, prompts=prompts, default_prompt_name="query"
    )
    stock_checkpoint(
        checkpoint, "eurobert", {**sizes, **more, "mask_token_id": 4, "bos_token_id": 2, "eos_token_id": 3}
    )
    change_json(checkpoint / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    export(checkpoint, tmp_path / "onnx")
    transformer = AutoModel.from_pretrained(checkpoint, attn_implementation="eager").bfloat16().eval()
    tokenizer_class: Any = PreTrainedTokenizerFast
    tokenizer = tokenizer_class(tokenizer_file=str(checkpoint / "tokenizer.json"))
    vectors = []
    for text in TEXTS:
        ids = tokenizer("to be: " + text, truncation=True, max_length=20, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            mean = transformer(input_ids=ids).last_hidden_state.float().mean(1)
        vectors.append(torch.nn.functional.normalize(mean, dim=-1)[0].numpy())
    with OnnxEmbedder(tmp_path / "onnx", threads=1) as model:
        report = explain(model, TEXTS, np.stack(vectors))
    assert (report.band, causes(report)) == (True, ["number format"]), report.verdict
    assert "bf16" in report.verdict


def test_noise_of_the_size_of_int8_has_no_cause(onnx: Path) -> None:
    """As large as the rounding of int8, but in a direction of its own."""
    rng = np.random.default_rng(4)
    with OnnxEmbedder(onnx, threads=1) as model:
        vectors = model.encode(TEXTS)
        noise = rng.normal(0, 1, vectors.shape) * 0.05 / np.sqrt(vectors.shape[1])
        report = explain(model, TEXTS, (vectors + noise).astype(np.float32))
    assert (report.explained, report.band, causes(report)) == (False, False, []), report.verdict


def test_moves_agree_only_in_one_direction_and_size() -> None:
    rng = np.random.default_rng(1)
    exact, move = rng.normal(0, 1, (6, 40)).astype(np.float32), rng.normal(0, 1, (2, 6, 40)).astype(np.float32) * 1e-3
    assert agreement(exact, exact + move[0], exact + move[0]).holds
    assert agreement(exact, exact + move[0], exact + 2 * move[0]).holds
    assert not agreement(exact, exact + move[0], exact + move[1]).holds
    assert not agreement(exact, exact + move[0], exact + 20 * move[0]).holds
    assert not agreement(exact, exact, exact + move[0]).holds


@pytest.mark.parametrize(
    ("alone", "both", "likely"),
    [
        (Agreement(0.61, 0.3, 1.0), Agreement(0.62, 0.3, 1.0), 0),  # a pooling that differs in scale
        # Measured: dynamic int8 and doubled special tokens in all-MiniLM-L6-v2. Even alone, int8 agrees in every row.
        (Agreement(0.86, 0.51, 0.96), Agreement(0.91, 0.82, 1.0), 1),
    ],
    ids=["alike", "better"],
)
def test_a_change_beside_a_format_is_named_where_both_agree_better_than_the_format_alone(
    alone: Agreement, both: Agreement, likely: int
) -> None:
    rounding, other = number_formats()[1], Hypothesis("pooling", "use the sum of the tokens", "use their mean")
    made = [Candidate(changes, np.full(5, 0.99), norms_fit=True) for changes in ((rounding,), (other, rounding))]
    found = list(zip(made, (alone, both), strict=True))
    assert likeliest(found) == found[likely]
    assert likeliest(found[::-1]) == found[likely]


def test_nothing_is_likely_where_nothing_agrees() -> None:
    assert likeliest([]) is None


@pytest.mark.filterwarnings("ignore")
def test_a_change_that_only_rounds_is_not_named_beside_a_format(onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another pooling with the same directions, the format alone is refuted, and so is it beside that."""
    rng = np.random.default_rng(4)
    with OnnxEmbedder(onnx, threads=1) as model:
        own = np.asarray(model.encode(TEXTS))
        asked: list[FloatArray] = []

        def beside_the_same_directions_alone(exact: FloatArray, moved: FloatArray, theirs: FloatArray) -> Agreement:
            asked.append(exact)
            ours = own if len(exact) == len(own) else asked[0]
            agrees = len(asked) > len(FORMATS) and len(exact) == len(ours) and row_cosines(exact, ours).min() > 1 - 1e-6
            return Agreement(0.9, 0.9, 1.0) if agrees else Agreement(0.0, 0.0, 1.0)

        monkeypatch.setattr("onnxembed.explain.search.agreement", beside_the_same_directions_alone)
        noise = rng.normal(0, 1, own.shape) * 0.05 / np.sqrt(own.shape[1])
        report = explain(model, TEXTS, (own + noise).astype(np.float32))
    assert any(len(exact) == len(own) for exact in asked)  # some change agreed in a few texts
    assert (report.band, causes(report)) == (False, []), report.verdict


@pytest.mark.parametrize(
    ("name", "dtype", "levels", "scales"),
    [("int8", "int8", 254, 1), ("int8 per channel", "int8", 254, 8), ("uint8", "uint8", 127, 1)],
)
def test_integer_weights_are_of_the_type_that_a_format_names(
    tmp_path: Path, name: str, dtype: str, levels: int, scales: int
) -> None:
    from onnx import TensorProto, helper, load, numpy_helper, save

    weight = np.random.default_rng(0).normal(0, 1, (16, 8)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 8])],
        [numpy_helper.from_array(weight, "w")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "one.onnx")
    quantize(tmp_path / "one.onnx", name, external=False)
    kept = {each.name: numpy_helper.to_array(each) for each in load(tmp_path / "one.onnx").graph.initializer}
    whole = kept["w_quantized"]
    assert (whole.dtype.name, kept["w_scale"].size) == (dtype, scales)
    assert np.ptp(whole.astype(int)) == pytest.approx(levels, abs=levels // 10)
