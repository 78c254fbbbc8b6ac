"""Models whose pooling leaves out the prompt (include_prompt: false), against sentence-transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreign import foreign
from onnxembed import OnnxEmbedder
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ManifestError, ModelFilesError, UnsupportedError, UsageError, VerificationError
from onnxembed.explain.explain import explain
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import FILE_NAME, POOLING_MODES, PoolingMode, read_manifest
from onnxembed.manifest.describe import describe
from onnxembed.verify.verify import verify
from tiny import change_json, write_encoder, write_json, write_sentence_bert
from tiny_embedders import DENSE, LONG, assert_vectors_equal

pytestmark = pytest.mark.filterwarnings("ignore:.* longer than max_length")

PROMPTS = {"query": "to be: ", "document": "of "}
TEXTS = ["the cat", "a", "it was that of the and to in is", "", LONG, "Mouse"]


def write_checkpoint(folder: Path, **options: Any) -> Path:
    """A checkpoint whose Pooling leaves out the prompt."""
    write_sentence_bert(folder, prompts=PROMPTS, **options)
    change_json(folder / "1_Pooling/config.json", include_prompt=False)
    return folder


def reference(checkpoint: Path) -> Any:
    module = pytest.importorskip("sentence_transformers")
    return module.SentenceTransformer(str(checkpoint), device="cpu", local_files_only=True)


@pytest.mark.torch
@pytest.mark.parametrize("mode", POOLING_MODES)
def test_the_prompt_is_left_out_as_in_sentence_transformers(tmp_path: Path, mode: PoolingMode) -> None:
    name = "mean_sqrt_len_tokens" if mode == "mean_sqrt_len" else mode
    theirs = reference(write_checkpoint(tmp_path / "checkpoint", pooling=name))
    export(tmp_path / "checkpoint", tmp_path / "artifact")
    with OnnxEmbedder(tmp_path / "artifact") as model:
        assert_vectors_equal(model.encode_query(TEXTS), theirs.encode_query(TEXTS))
        assert_vectors_equal(model.encode_document(TEXTS), theirs.encode_document(TEXTS))
        for prompt in ("", " ", "the cat [SEP]", "Mouse: the ", LONG):  # the last one leaves no room for a text
            expected = theirs.encode(TEXTS, prompt=prompt)
            assert_vectors_equal(model.encode(TEXTS, prompt=prompt), expected)
            for text, vector in zip(TEXTS, expected, strict=True):
                assert_vectors_equal(model.encode(text, prompt=prompt), vector)
        if mode != "lasttoken":
            assert np.abs(model.encode("a", prompt="the ") - model.encode("the a", prompt="")).max() > 0.01


@pytest.mark.torch
@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_that_are_cut_lose_as_many_tokens_as_in_sentence_transformers(tmp_path: Path, side: str) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", max_length=6)
    change_json(checkpoint / "tokenizer_config.json", truncation_side=side)
    theirs = reference(checkpoint)
    export(checkpoint, tmp_path / "artifact")
    for prompt in ("the ", "it was that of the and to "):  # the second one is longer than a text may be
        with OnnxEmbedder(tmp_path / "artifact") as model:
            assert_vectors_equal(model.encode(TEXTS, prompt=prompt), theirs.encode(TEXTS, prompt=prompt))
        theirs.max_seq_length = 4
        with OnnxEmbedder(tmp_path / "artifact", max_length=4) as model:
            theirs[0]._prompt_length_mapping.clear()
            assert_vectors_equal(model.encode(TEXTS, prompt=prompt), theirs.encode(TEXTS, prompt=prompt))
        theirs.max_seq_length = 6
        theirs[0]._prompt_length_mapping.clear()


@pytest.mark.torch
def test_dense_layers_and_other_families_follow(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "dense", dense=DENSE)
    write_encoder(tmp_path / "roberta", "roberta")
    write_sentence_bert(tmp_path / "files", prompts=PROMPTS)
    for name in ("modules.json", "1_Pooling/config.json", "config_sentence_transformers.json"):
        (tmp_path / "roberta" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "roberta" / name).write_bytes((tmp_path / "files" / name).read_bytes())
    change_json(tmp_path / "roberta/1_Pooling/config.json", include_prompt=False)
    for kind in ("dense", "roberta"):
        theirs = reference(tmp_path / kind)
        export(tmp_path / kind, tmp_path / f"{kind}-artifact")
        with OnnxEmbedder(tmp_path / f"{kind}-artifact") as model:
            texts = [text for text in TEXTS if text != LONG]
            assert_vectors_equal(model.encode_query(texts), theirs.encode_query(texts), atol=2e-6)


@pytest.mark.torch
def test_an_adopted_graph_of_tokens_leaves_the_prompt_out(tmp_path: Path) -> None:
    theirs = reference(write_checkpoint(tmp_path / "checkpoint"))
    folder = foreign(tmp_path / "checkpoint", tmp_path / "foreign", "", "token_embeddings")
    with OnnxEmbedder(folder) as model:
        assert_vectors_equal(model.encode_query(TEXTS), theirs.encode_query(TEXTS))


@pytest.mark.torch
def test_verification_compares_texts_after_prompts(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    artifact = tmp_path / "artifact"
    left_out = export(checkpoint, artifact).require_embedding().prompt_left_out
    assert left_out is not None
    assert left_out.value == (0, 1, 2, 3, 4)
    assert left_out.reason == "1_Pooling/config.json: include_prompt is false"
    assert verify(artifact, against=checkpoint).verification["fp32"].max_abs_diff < 1e-5
    manifest = json.loads((artifact / FILE_NAME).read_text())
    manifest["embedding"]["prompt_left_out"]["value"] = []  # so that the last token of a prompt is counted, too
    (artifact / FILE_NAME).write_text(json.dumps(manifest))
    with pytest.raises(VerificationError, match=r"after the prompt 'to be: '"):
        verify(artifact, against=checkpoint)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("left_out")
    export(write_checkpoint(folder / "checkpoint"), folder / "artifact")
    return folder / "artifact"


def test_the_server_leaves_out_the_prompt_of_each_request(artifact: Path) -> None:
    pytest.importorskip("msgspec", reason="needs the extra [serve]")
    from starlette.testclient import TestClient

    from onnxembed.serve import app

    bodies: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "/embed": ({"inputs": TEXTS, "input_type": "query"}, {"prompt_name": "query"}),
        "/v1/embeddings": ({"input": TEXTS, "input_type": "document"}, {"prompt_name": "document"}),
    }
    with TestClient(app(str(artifact))) as client, OnnxEmbedder(artifact) as model:
        for path, (body, options) in bodies.items():
            answer = client.post(path, json=body).json()
            vectors = [row["embedding"] for row in answer["data"]] if isinstance(answer, dict) else answer
            assert_vectors_equal(np.array(vectors, np.float32), model.encode(TEXTS, **options))
        answer = client.post("/embed", json={"inputs": TEXTS})
        assert_vectors_equal(np.array(answer.json(), np.float32), model.encode(TEXTS, prompt=""))
        answer = client.post("/vectors", json={"text": "the cat", "config": {"task_type": "query"}})
        assert_vectors_equal(np.array(answer.json()["vector"], np.float32), model.encode_query("the cat"))
        sentences = {"source_sentence": "the cat", "sentences": ["a"]}
        asked = {"inputs": sentences, "parameters": {"prompt_name": "query"}}
        expected = float(model.encode_query("the cat") @ model.encode_query("a"))
        assert client.post("/similarity", json=asked).json() == pytest.approx([expected], abs=1e-6)
        (answer,) = client.post("/embed_kinds", json={"inputs": ["a"], "input_type": "query"}).json()["dense"]
        assert_vectors_equal(np.array(answer, np.float32), model.encode_query("a"))
        ids = model.tokenize("the cat").ids.tolist()
        mixed = client.post("/embed", json={"inputs": ["the cat", ids], "input_type": "query"})
        assert mixed.status_code == 422
        assert "need a request each" in mixed.text
        whole = client.post("/embed", json={"inputs": [ids], "input_type": "query"}).json()
        assert_vectors_equal(np.array(whole, np.float32), model.encode(["the cat"], prompt=""))


def test_jobs_leave_out_the_prompt(artifact: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra [bulk]")
    from onnxembed.bulk.batches import EmbedBatch
    from onnxembed.bulk.making import VectorOptions

    made = EmbedBatch(str(artifact), vectors=VectorOptions(prompt_name="query"))({"text": TEXTS})
    with OnnxEmbedder(artifact) as model:
        assert_vectors_equal(np.stack(made["vector"]), model.encode_query(TEXTS))


def test_explain_says_that_it_does_not_replay_such_prompts(artifact: Path) -> None:
    with OnnxEmbedder(artifact) as model:
        texts = ["the cat", "It was That", "they have not had this from one by his with"]
        with pytest.raises(UsageError, match="include_prompt is false"):
            explain(model, texts, model.encode_query(texts), prompt_name="query")
        assert not explain(model, texts, model.encode(texts, prompt=""), prompt="").causes


def test_a_prompt_that_is_left_out_makes_another_space(artifact: Path, tmp_path: Path) -> None:
    plain = export(write_sentence_bert(tmp_path / "plain", prompts=PROMPTS), tmp_path / "out")
    assert plain.require_embedding().prompt_left_out is None
    manifest = read_manifest(artifact)
    assert manifest.spaces != plain.spaces
    shown = " ".join(" ".join(describe(manifest)).split())
    assert "prompt left out of the pooling (file: 1_Pooling/config.json: include_prompt is false)" in shown


def test_what_no_graph_can_do_is_refused_by_name(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    with pytest.raises(UnsupportedError, match=r"--packed: .*include_prompt is false"):
        export(checkpoint, tmp_path / "artifact", Options(packed=True))
    folder = foreign(write_sentence_bert(tmp_path / "other"), tmp_path / "foreign", "sentence_embedding", "")
    change_json(folder / "1_Pooling/config.json", include_prompt=False)
    with pytest.raises(UnsupportedError, match=r"include_prompt is false.*token_embeddings"):
        OnnxEmbedder(folder)
    modules = json.loads((checkpoint / "modules.json").read_text())
    shutil.copytree(checkpoint / "1_Pooling", checkpoint / "9_Pooling")
    change_json(checkpoint / "9_Pooling/config.json", include_prompt=True)
    two = [*modules[:2], {**modules[1], "name": "9", "path": "9_Pooling"}]
    write_json(checkpoint / "modules.json", two)
    with pytest.raises(UnsupportedError, match=r"Pooling modules with and without the prompt \(include_prompt\)"):
        export(checkpoint, tmp_path / "artifact", Options(flags=Flags(pooling=("mean",))))
    write_json(checkpoint / "modules.json", modules)
    change_json(checkpoint / "1_Pooling/config.json", include_prompt="no")
    with pytest.raises(ModelFilesError, match="include_prompt is 'no'"):
        export(checkpoint, tmp_path / "artifact")


def test_a_manifest_that_leaves_the_prompt_to_the_graph_is_refused(artifact: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(artifact, tmp_path / "copy")
    manifest = json.loads((folder / FILE_NAME).read_text())
    manifest["embedding"]["pooled_by"] = "graph"
    (folder / FILE_NAME).write_text(json.dumps(manifest))
    with pytest.raises(ManifestError, match=r"prompt_left_out is for what the runtime pools, but .*'graph'"):
        OnnxEmbedder(folder)
