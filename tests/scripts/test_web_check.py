"""onnxruntime-web and transformers.js give the vectors of a portable artifact: `scripts/web_check` on tiny models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from tiny import write_encoder
from web.check import LIMIT, ask

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / ".web"


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "mpnet"])
def test_programs_in_javascript_give_the_vectors(model_type: str, tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (PACKAGES / "node_modules").is_dir():
        pytest.skip("the packages of scripts/web are not installed: ./scripts/web_check installs them")
    source = write_encoder(tmp_path / "source", model_type, max_length=250, max_position_embeddings=330)
    export(source, tmp_path / "out", Options(form="portable"))
    answers = {answer.name: answer for answer in ask(tmp_path / "out", PACKAGES)}
    wanted = json.loads((ROOT / "scripts/web/package.json").read_text(encoding="utf-8"))["dependencies"]
    assert {name: answer.version for name, answer in answers.items()} == wanted
    assert all(answer.difference <= LIMIT for answer in answers.values()), answers
