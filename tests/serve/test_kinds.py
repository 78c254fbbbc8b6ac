"""Sparse and multi-vector embeddings over HTTP are the library's, alone and together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("msgspec", reason="pip install 'onnxembed[serve]'")

import msgspec

from onnxembed import OnnxEmbedder
from onnxembed.export.pipeline import export
from onnxembed.serve import app
from onnxembed.serve.app import ENDPOINTS
from tiny_heads import write_bge_m3, write_colbert_encoder

TEXTS = ["the cat of that", "a", "it was that of the and to in is", "a"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kinds")
    for name, write in {"m3": write_bge_m3, "colbert": write_colbert_encoder}.items():
        write(folder / f"{name}-checkpoint")
        export(folder / f"{name}-checkpoint", folder / name)
    return {name: folder / name for name in ("m3", "colbert")}


@pytest.fixture(scope="module")
def client(folders: dict[str, Path]) -> Any:
    from starlette.testclient import TestClient

    with TestClient(app(*(f"{name}={path}" for name, path in folders.items()))) as client:
        yield client


def post(client: Any, path: str, **body: Any) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    msgspec.json.decode(answer.content, type=next(each.answered for each in ENDPOINTS if each.path == path))
    return answer.json()


def close(ours: Any, theirs: Any) -> None:
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(np.array(mine, np.float32), other, rtol=0, atol=1e-6)


def test_three_kinds_in_one_answer_and_each_alone(client: Any, folders: dict[str, Path]) -> None:
    with OnnxEmbedder(folders["m3"]) as model:
        wanted = model.encode_all(TEXTS)
    assert wanted.sparse is not None
    assert wanted.multi_vector is not None
    together = post(client, "/embed_kinds", inputs=TEXTS, model="m3")
    assert {*together} == {"dense", "sparse", "multi_vector"}
    close(together["dense"], wanted.dense)
    close(together["multi_vector"], wanted.multi_vector)
    sparse = post(client, "/embed_sparse", inputs=TEXTS)
    for answer in (together["sparse"], sparse):
        assert [[each["index"] for each in text] for text in answer] == [
            each.indices.tolist() for each in wanted.sparse
        ]
        close([[each["value"] for each in text] for text in answer], [each.values for each in wanted.sparse])
    close(post(client, "/embed_multi_vector", inputs=TEXTS, model="m3"), wanted.multi_vector)
    assert {*post(client, "/embed_kinds", inputs="a", model="m3", kinds=["sparse"])} == {"sparse"}


@pytest.mark.parametrize("kind", ["query", "document"])
def test_vectors_of_tokens_by_kind(client: Any, folders: dict[str, Path], kind: Any) -> None:
    with OnnxEmbedder(folders["colbert"]) as model:
        wanted = list(model.embed_multi_vector(TEXTS, kind=kind))
    close(post(client, "/embed_multi_vector", inputs=TEXTS, input_type=kind, model="colbert"), wanted)


def test_a_model_that_treats_kinds_differently_asks_for_one(client: Any) -> None:
    answer = client.post("/embed_multi_vector", json={"inputs": "a", "model": "colbert"})
    assert (answer.status_code, answer.json()["error_type"]) == (422, "Validation")
    assert "input_type" in answer.json()["error"]
    assert client.post("/embed_kinds", json={"inputs": "a", "model": "colbert", "kinds": ["dense"]}).status_code == 424


def test_the_embeddings_of_tokens_before_pooling(client: Any, folders: dict[str, Path]) -> None:
    """bge-m3 pools the first token and normalizes it."""
    with OnnxEmbedder(folders["m3"]) as model:
        vectors = model.encode(TEXTS)
    first = np.array([text[0] for text in post(client, "/embed_all", inputs=TEXTS, model="m3")], np.float32)
    close(first / np.linalg.norm(first, axis=1, keepdims=True), vectors)
