"""A plan refuses an unsupported checkpoint before anything is built: here the checkpoints have no weights at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from onnxembed.decisions.flags import Flags
from onnxembed.errors import OnnxEmbedError, UnsupportedError, UsageError
from onnxembed.export.architectures import ARCHITECTURES
from onnxembed.export.engines.engine import TOOLS
from onnxembed.export.plan import Options, make_plan
from onnxembed.facts.facts import read_facts
from onnxembed.manifest import Engine, Precision
from tiny import write_sentence_bert
from tiny_heads import write_masked_lm
from tiny_rerankers import write_reranker

WRITE: dict[str, Callable[[Path], Path]] = {
    "embedder": write_sentence_bert,
    "reranker": write_reranker,
    "splade": lambda folder: write_masked_lm(folder, pooling={"pooling_strategy": "max"}),
}


def without_weights(folder: Path, model: str) -> Path:
    WRITE[model](folder)
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize(
    ("model", "options", "error", "words"),
    [
        ("embedder", Options(("int8",), min_cosine=2.0), UsageError, "--min-cosine: 2.0 is not a cosine"),
        ("embedder", Options(calibration=Path("texts.txt")), UsageError, "leave --calibration, --min-cosine and"),
        ("reranker", Options(min_agreement=0.9), UsageError, "min_agreement are for integer graphs"),
        ("embedder", Options(("fp32", "bf16"), packed=True), UnsupportedError, "--packed: .*not for bf16"),
        ("embedder", Options(packed=True, pooling_out=True), UnsupportedError, "cannot be had with --pooling-out"),
        ("embedder", Options(engine="optimum", precisions=("fp16",)), OnnxEmbedError, "--engine optimum"),
        ("embedder", Options(flags=Flags(task="sparse")), OnnxEmbedError, "ForMaskedLM"),
        ("reranker", Options(pooling_out=True), UsageError, "--pooling-out is for embeddings"),
        ("reranker", Options(packed=True), UnsupportedError, "--packed: only graphs whose one output"),
        ("splade", Options(packed=True), UnsupportedError, "--packed: only graphs whose one output"),
    ],
    ids=str,
)
def test_an_unsupported_checkpoint_is_refused_without_its_weights(
    tmp_path: Path, model: str, options: Options, error: type[OnnxEmbedError], words: str
) -> None:
    facts = read_facts(without_weights(tmp_path / "model", model))
    with pytest.raises(error, match=words):
        make_plan(facts, None, options)


@pytest.mark.parametrize(
    ("engine", "precision", "words"), [("trace", "bf16", "fp32 and fp16 only"), ("optimum", "fp16", "fp32 only")]
)
def test_a_type_that_the_engine_does_not_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine, precision: Precision, words: str
) -> None:
    monkeypatch.setitem(TOOLS, engine, {})  # as if everything it needs were installed
    facts = read_facts(without_weights(tmp_path / "model", "embedder"))
    with pytest.raises(UnsupportedError, match=f"--engine {engine} writes {words}, not {precision}"):
        make_plan(facts, None, Options((precision,), engine=engine))


@pytest.mark.parametrize("model", ["reranker", "splade"])
def test_a_head_that_is_not_built_is_refused_without_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    facts = read_facts(without_weights(tmp_path / "model", model))
    monkeypatch.setitem(ARCHITECTURES, "bert", replace(ARCHITECTURES["bert"], classifier=None, masked_lm=None))
    with pytest.raises(UnsupportedError, match=r"onnxembed does not build the .* head of bert"):
        make_plan(facts, None, Options())


def test_a_plan_names_its_tasks_and_precisions(tmp_path: Path) -> None:
    facts = read_facts(without_weights(tmp_path / "model", "embedder"))
    plan = make_plan(facts, None, Options(("int8", "fp16", "int16", "fp32"), pooling_out=True))
    assert plan.float_precisions == ("fp16", "fp32")
    assert plan.integer_precisions == ("int8", "int16")
    assert plan.tasks == ("embedding",)
    assert plan.graph_tasks == ()
    assert plan.engine.value == "build"
