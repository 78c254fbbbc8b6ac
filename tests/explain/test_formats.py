"""Rounding that cannot be given back: bf16 and integers, by the direction in which it moves vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxembed import OnnxEmbedder
from onnxembed.arrays import FloatArray
from onnxembed.explain import Report, explain
from onnxembed.explain.formats import agreement
from onnxembed.export.pipeline import export
from running import needs_torch
from tiny import write_sentence_bert
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
