"""Which engine exports a model, what that costs, and what the manifest records about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onnxembed.errors import MissingExtraError, UnsupportedError
from onnxembed.export.engines import engine as engines
from onnxembed.export.engines.engine import EngineOption, choose_engine
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.facts.facts import Facts, read_facts
from onnxembed.manifest import read_manifest
from onnxembed.manifest.describe import describe
from tiny import write_bert, write_sentence_bert

CODE = {"AutoConfig": "configuration.MyConfig", "AutoModel": "modeling.MyModel"}


@pytest.fixture
def all_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treats every engine as installed, so that only what it can export matters."""
    monkeypatch.setattr(engines, "find_spec", lambda module: module)


def facts(folder: Path, **config: Any) -> Facts:
    return read_facts(write_bert(folder, **config))


@pytest.mark.usefixtures("all_installed")
@pytest.mark.parametrize(
    ("model_type", "option", "engine", "origin"),
    [
        ("bert", "auto", "build", "architecture"),
        ("bert", "build", "build", "flag"),
        ("bert", "trace", "trace", "flag"),
        ("bert", "optimum", "optimum", "flag"),
        ("albert", "auto", "trace", "architecture"),
        ("albert", "optimum", "optimum", "flag"),
        ("qwen2", "trace", "trace", "flag"),
    ],
)
def test_the_engine_is_the_one_asked_for_else_the_builder_else_the_tracer(
    tmp_path: Path, model_type: str, option: EngineOption, engine: str, origin: str
) -> None:
    chosen = choose_engine(facts(tmp_path, model_type=model_type), option)
    assert (chosen.value, chosen.origin) == (engine, origin)


@pytest.mark.usefixtures("all_installed")
@pytest.mark.parametrize(
    ("model_type", "option", "words"),
    [
        ("albert", "build", "no builder for albert; this model can be exported with --engine trace or optimum"),
        ("qwen2", "optimum", "qwen2 is not proved with it; this model can be exported with --engine build or trace"),
        ("model2vec", "trace", "can be exported with --engine build"),
        ("t5", "auto", "model_type is 't5', which onnxembed cannot export: there is no builder for it"),
        ("t5", "trace", "model_type is 't5', which onnxembed cannot export: there is no builder for it"),
    ],
)
def test_an_engine_that_cannot_export_a_model_is_refused_with_those_that_can(
    tmp_path: Path, model_type: str, option: EngineOption, words: str
) -> None:
    with pytest.raises(UnsupportedError, match=words):
        choose_engine(facts(tmp_path, model_type=model_type), option)


@pytest.mark.parametrize("option", ["auto", "build", "trace", "optimum"])
def test_code_of_the_models_own_is_refused_by_name(tmp_path: Path, option: EngineOption) -> None:
    folder = write_sentence_bert(tmp_path / "model", model_type="mymodel", auto_map=CODE)
    with pytest.raises(UnsupportedError, match=r"auto_map: configuration\.MyConfig, modeling\.MyModel\) is never run"):
        export(folder, tmp_path / "out", Options(engine=option))
    assert not (tmp_path / "out").exists()


def test_a_model_with_a_builder_is_built_whatever_code_it_names(tmp_path: Path) -> None:
    manifest = export(write_sentence_bert(tmp_path / "model", auto_map=CODE), tmp_path / "out")
    assert (manifest.model.engine, manifest.model.engine_reason) == ("build", None)


@pytest.mark.parametrize(
    ("asked", "lacking", "words"),
    [
        (("albert", "auto"), "onnxscript", r"albert has no builder, .* needs onnxscript: .*'onnxembed\[torch\]'"),
        (("bert", "trace"), "torch", r"--engine trace needs torch: pip install 'onnxembed\[torch\]'"),
        (("bert", "trace"), "transformers.exporters", r"needs transformers: pip install"),
        (("bert", "optimum"), "optimum", r"needs optimum-onnx: .*\[cpu,optimum\]', in an environment of its own"),
    ],
)
def test_an_engine_that_is_not_installed_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, EngineOption], lacking: str, words: str
) -> None:
    def find(module: str) -> str:
        if module.startswith(lacking):
            raise ModuleNotFoundError(module)
        return module

    monkeypatch.setattr(engines, "find_spec", find)
    with pytest.raises(MissingExtraError, match=words):
        choose_engine(facts(tmp_path, model_type=asked[0]), asked[1])


@pytest.mark.torch
def test_auto_warns_of_the_cost_of_tracing_and_the_manifest_gives_the_reason(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="traces; needs the [torch] extra")
    from stock_models import write_sentence_albert

    folder = write_sentence_albert(tmp_path / "model")
    with pytest.warns(
        UserWarning, match=r"no builder for albert: .* takes longer, needs torch, and gives (\d+) nodes"
    ) as warned:
        manifest = export(folder, tmp_path / "out")
    assert f"gives {manifest.variants['fp32'].nodes} nodes" in str(warned[0].message)
    assert read_manifest(tmp_path / "out") == manifest
    assert (manifest.model.engine, manifest.model.engine_reason) == ("trace", "there is no builder for albert")
    assert {"torch", "transformers", "onnxscript"} < manifest.created_with.keys()
    assert any("trace (there is no builder for albert)" in line for line in describe(manifest))


@pytest.mark.torch
def test_an_explicit_tracer_is_recorded_as_the_reason(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="traces; needs the [torch] extra")
    manifest = export(write_sentence_bert(tmp_path / "model"), tmp_path / "out", Options(engine="trace"))
    assert (manifest.model.engine, manifest.model.engine_reason) == ("trace", "--engine trace")
