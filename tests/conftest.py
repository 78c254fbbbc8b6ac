"""Fixtures shared by all tests. Everything is built here; ../shared/data adds real files where it is present."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxembed.export.pipeline import Options, export
from tiny import write_sentence_bert

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real tokenizers, configs and evaluation sets; tests that need them skip where they are absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the founding documents' data folder beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny sentence-transformers BERT: mean pooling, normalised, 20 tokens, with prompts."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny-bert"
    return write_sentence_bert(folder, prompts={"query": "to be: ", "title": "of: "})


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The tiny BERT exported in fp32 and fp16."""
    output = tmp_path_factory.mktemp("artifact") / "tiny-bert-onnx"
    export(checkpoint, output, Options(precisions=("fp32", "fp16")))
    return output
