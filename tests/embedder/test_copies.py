"""A model pickles and copies as the arguments that it was opened with."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from held_runs import one_text_each
from hub_server import HubServer
from onnxembed import OnnxEmbedder, OnnxReranker
from onnxembed.errors import IntegrityError, UsageError
from onnxembed.execution.backend import Backend, GraphFiles
from onnxembed.execution.opening import open_backend
from onnxembed.execution.providers import Place, Placement
from onnxembed.export.pipeline import export
from onnxembed.manifest import FILE_NAME
from onnxembed.runtime.open_model import OpenModel
from tiny_rerankers import DOCUMENTS, QUERY, write_reranker

TEXTS = ["the cat", "a", "it was that of the and"]


@pytest.mark.parametrize("again", [lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy, copy.copy])
def test_a_copy_opens_the_same_folder_in_the_same_way(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, again: Callable[[Any], Any]
) -> None:
    monkeypatch.chdir(artifact.parent)
    with OnnxEmbedder(artifact.name, precision="fp16", max_length=9, threads=1) as model:
        expected = model.encode(TEXTS)
        monkeypatch.chdir("/")
        with again(model) as copied:
            assert (copied.folder, copied.max_length, copied.threads) == (artifact, 9, 1)
            assert np.array_equal(copied.encode(TEXTS), expected)


def test_a_reranker_pickles_as_its_arguments(tmp_path: Path) -> None:
    export(write_reranker(tmp_path / "checkpoint"), tmp_path / "artifact")
    model = OnnxReranker(model=tmp_path / "artifact", truncation="only_second", threads=1)
    with model, pickle.loads(pickle.dumps(model)) as copied:
        assert np.array_equal(copied.score(QUERY, DOCUMENTS), model.score(QUERY, DOCUMENTS))
        assert copied.threads == 1


@pytest.mark.hub
def test_a_pickle_of_a_hub_model_names_its_commit(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HubServer({"org/model": {"main": artifact}}) as hub:
        hub.answer(monkeypatch)
        with OnnxEmbedder("org/model", cache_dir=tmp_path / "cache") as model:
            first, expected = hub.commit("org/model"), model.encode(TEXTS)
            assert model.revision == first
            (tmp_path / "newer").mkdir()
            hub.push("org/model", tmp_path / "newer")
            with pickle.loads(pickle.dumps(model)) as copied:
                assert copied.revision == first
                assert np.array_equal(copied.encode(TEXTS), expected)


def test_what_cannot_be_opened_again_says_so(artifact: Path) -> None:
    with one_text_each(artifact) as model, pytest.raises(UsageError, match="a backend of your own"):
        pickle.dumps(model)
    with pytest.raises(UsageError, match="this model is closed"):
        copy.deepcopy(model)


def test_a_model_outlives_a_change_of_the_working_directory(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(artifact.parent)
    with OnnxEmbedder(artifact.name, providers="cpu", threads=2) as model:
        monkeypatch.chdir("/")
        for _ in range(400):  # the second session is opened meanwhile; if it cannot be, that is a warning
            model.encode(["the cat"])
        assert model.folder == artifact


def test_the_graph_is_closed_when_a_file_has_another_hash(artifact: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifact, tmp_path / "damaged"))
    manifest = json.loads((folder / FILE_NAME).read_text())
    manifest["files"]["tokenizer.json"]["sha256"] = "0" * 64
    (folder / FILE_NAME).write_text(json.dumps(manifest))
    opened: list[Backend] = []

    def watched(graph: GraphFiles, place: Place) -> Backend:
        opened.append(open_backend(graph, place))
        return opened[-1]

    with pytest.raises(IntegrityError, match=r"tokenizer\.json has sha256"):
        OpenModel(folder, ("embedding",), Placement("cpu"), open_backend=watched)
    assert [backend.closed for backend in opened] == [True]
