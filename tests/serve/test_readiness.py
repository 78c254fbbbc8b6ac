"""Whether a served model computes what it should, which decides about a server's readiness."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("msgspec", reason="pip install 'onnxembed[serve]'")

from onnxembed.errors import ModelFilesError, ProofError
from onnxembed.execution.cpu import CpuBackend
from onnxembed.execution.providers import Placement
from onnxembed.execution.session import Session
from onnxembed.manifest import FILE_NAME, PROOF_FILE
from onnxembed.serve.model import ServedModel
from onnxembed.serve.readiness import check
from onnxembed.serve.settings import ModelOptions, ModelSource
from onnxembed.tokenizer.texts import pad


def served(folder: Path, **options: Any) -> ServedModel:
    return ServedModel(ModelSource(str(folder)), ModelOptions(**options))


@pytest.fixture
def unproved(artifact: Path, tmp_path: Path) -> Path:
    """An artifact without a proof."""
    folder = Path(shutil.copytree(artifact, tmp_path / "copy"))
    (folder / PROOF_FILE).unlink()
    manifest = json.loads((folder / FILE_NAME).read_text())
    del manifest["files"][PROOF_FILE]
    (folder / FILE_NAME).write_text(json.dumps(manifest))
    return folder


def spoil(monkeypatch: pytest.MonkeyPatch, texts: int, factor: float) -> None:
    """Let runs of at least so many texts return other numbers."""
    run = Session.run

    def running(self: Session, outputs: Any, feeds: Any, **options: Any) -> Any:
        results = run(self, outputs, feeds, **options)
        return [each * np.float32(factor) for each in results] if len(feeds["input_ids"]) >= texts else results

    monkeypatch.setattr(Session, "run", running)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_model_is_ready_when_it_gives_what_its_proof_says(
    artifact: Path, unproved: Path, reranker: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    models = [served(artifact, precision=precision), served(unproved, precision=precision), served(reranker)]
    for model in models:
        check(model)
    spoil(monkeypatch, 1, -1.0)  # the same wrong numbers alone and among others
    with pytest.raises(ProofError, match="does not give the model's own vectors"):
        check(models[0])
    with pytest.raises(ProofError, match="does not give the model's own scores"):
        check(models[2])


def test_a_session_that_is_opened_later_must_give_it_too(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = served(artifact, placement=Placement("cpu", threads=2))
    check(model)
    spoil(monkeypatch, 1, -1.0)
    backend = model.opened.backend
    assert isinstance(backend, CpuBackend)
    feeds = pad(model.opened.tokenize(["hello"]), 0)
    while backend.opening is None:
        backend.run(["sentence_embedding"], feeds)
    backend.opening.result()
    with pytest.warns(UserWarning, match="does not give the model's own vectors"):
        backend.run(["sentence_embedding"], feeds)
    assert backend.open_sessions == ("side_by_side",)


def test_where_no_text_of_the_proof_is_short_enough_they_are_compared_with_each_other(
    reranker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = served(reranker, max_length=6, precision="fp32")
    spoil(monkeypatch, 2, 0.5)
    with pytest.warns(UserWarning, match="nothing of at most 6 tokens"), pytest.raises(ModelFilesError, match="other"):
        check(model)


@pytest.mark.parametrize("factor", [0.9, np.nan])
@pytest.mark.parametrize("prove", [None, False])
def test_without_a_proof_texts_must_have_the_same_finite_numbers_alone_and_among_others(
    artifact: Path, unproved: Path, monkeypatch: pytest.MonkeyPatch, factor: float, prove: bool | None
) -> None:
    """So it is where the operator wants no proof."""
    model = served(unproved if prove is None else artifact, prove=prove)
    check(model)
    spoil(monkeypatch, 2, factor)
    with pytest.raises(ModelFilesError, match=r"other numbers alone than among other texts on this machine .*CPU"):
        check(model)
