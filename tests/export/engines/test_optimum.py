"""The engine `optimum`, in the environment where it is installed; elsewhere, how it is refused."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from onnxembed import OnnxEmbedder
from onnxembed.errors import MissingExtraError, UnsupportedError
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.verify.verify import self_check
from tiny import TEXTS, write_encoder, write_sentence_bert

HERE = find_spec("optimum") is not None
only_here = pytest.mark.skipif(not HERE, reason="needs the [optimum] extra, in an environment of its own")
SHORT = [text for text in TEXTS if len(text) < 15]


@only_here
@pytest.mark.torch
@pytest.mark.parametrize("model_type", ["bert", "distilbert", "electra", "roberta", "camembert"])
def test_equals_the_built_graph(tmp_path: Path, model_type: str) -> None:
    folder = write_encoder(tmp_path / "model", model_type, type_vocab_size=1 + (model_type in ("bert", "electra")))
    manifest = export(folder, tmp_path / "optimum", Options(engine="optimum"))
    export(folder, tmp_path / "built")
    assert manifest.model.engine == "optimum"
    assert "optimum-onnx" in manifest.created_with
    assert self_check(tmp_path / "optimum").startswith("run on")
    with OnnxEmbedder(tmp_path / "optimum") as theirs, OnnxEmbedder(tmp_path / "built") as ours:
        assert np.abs(theirs.encode(SHORT) - ours.encode(SHORT)).max() <= 1e-5


@only_here
@pytest.mark.torch
def test_half_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="optimum writes fp32 only"):
        export(write_sentence_bert(tmp_path / "model"), tmp_path / "out", Options(("fp16",), engine="optimum"))


@pytest.mark.skipif(HERE, reason="optimum is installed")
def test_an_environment_without_it_names_the_extra_and_why_it_stands_alone(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"\[cpu,optimum\]', in an environment of its own"):
        export(write_sentence_bert(tmp_path / "model"), tmp_path / "out", Options(engine="optimum"))
    assert not (tmp_path / "out").exists()
