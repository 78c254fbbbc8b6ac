"""Opening a model of the hub, with both classes: what is asked, what is downloaded, and what is open then."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import hf_hub_download, snapshot_download

from hub_server import HubServer
from onnxembed import OnnxEmbedder, OnnxReranker
from onnxembed.errors import HubError, IntegrityError, ModelFilesError, NetworkError, UsageError
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.hub.source import HubOptions
from onnxembed.loading.locate import SIMILARITY_FILE, read_model_manifest
from onnxembed.manifest import PROOF_FILE
from tiny_embedders import DENSE, assert_vectors_equal, export_tiny
from tiny_rerankers import write_reranker

MODEL = "org/model"
ASKED = [f"GET /api/models/{MODEL}/revision/main"]
"""The one question about a branch."""

Model = OnnxEmbedder | OnnxReranker
Kind = type[OnnxEmbedder] | type[OnnxReranker]
KINDS: tuple[Kind, ...] = (OnnxEmbedder, OnnxReranker)
BOTH = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory, artifact: Path) -> dict[Kind, Path]:
    """An artifact of each class."""
    folder = tmp_path_factory.mktemp("reranker")
    export(write_reranker(folder / "checkpoint"), folder / "onnx")
    return {OnnxEmbedder: artifact, OnnxReranker: folder / "onnx"}


def result(model: Model) -> Any:
    """What a model gives for a text."""
    with model:
        return model.encode("the cat") if isinstance(model, OnnxEmbedder) else model.score("the", ["cat", "a dog"])


def damage(file: Path) -> None:
    """Change a byte of a file in the cache."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.resolve().write_bytes(content)


def snapshot(cache: Path, hub: HubServer) -> Path:
    """The folder that the cache has for the main branch."""
    return cache / "models--org--model/snapshots" / hub.commit(MODEL)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer({}) as server:
        server.answer(monkeypatch)
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@BOTH
def test_only_what_is_read_is_downloaded(kind: Kind, artifacts: dict[Kind, Path], hub: HubServer, cache: Path) -> None:
    commit = hub.push(MODEL, artifacts[kind])
    with kind(MODEL, cache_dir=cache) as model:
        assert model.revision == commit
    read = {"onnxembed.json", "tokenizer.json", "onnx/model.onnx", SIMILARITY_FILE}
    assert set(hub.downloaded()) == {*read, PROOF_FILE}  # only an open model shows whether it has to be proved
    assert hub.requests[:1] == ASKED


def test_dense_layers_are_downloaded_too(tmp_path: Path, hub: HubServer, cache: Path) -> None:
    hub.push(MODEL, export_tiny(tmp_path / "made", Options(pooling_out=True), dense=DENSE[:1]))
    OnnxEmbedder(MODEL, cache_dir=cache).close()
    assert {"2_Dense/weight.npy", "2_Dense/bias.npy"} <= set(hub.downloaded())


@BOTH
def test_a_new_version_of_a_branch_is_open_at_the_next_opening(
    kind: Kind, artifacts: dict[Kind, Path], hub: HubServer, cache: Path, tmp_path: Path
) -> None:
    old = hub.push(MODEL, artifacts[kind])
    expected = result(kind(MODEL, cache_dir=cache))
    hub.requests.clear()
    assert np.array_equal(result(kind(MODEL, cache_dir=cache)), expected)
    assert hub.requests == ASKED
    newer = Path(shutil.copytree(artifacts[kind], tmp_path / "newer"))
    (newer / "NEWS.txt").write_text("another commit")
    new = hub.push(MODEL, newer)
    hub.requests.clear()
    with kind(MODEL, cache_dir=cache) as model:
        assert model.revision == new != old
    assert read_model_manifest(MODEL, HubOptions(cache_dir=cache), None).revision == new
    hub.requests.clear()
    with kind(MODEL, cache_dir=cache, revision=old) as model:
        assert model.revision == old
        assert pickle.loads(pickle.dumps(model)).revision == old
    assert hub.requests == []


@BOTH
def test_without_the_hub_the_cached_copy_is_open_which_is_said_once(
    kind: Kind, artifacts: dict[Kind, Path], hub: HubServer, cache: Path
) -> None:
    commit = hub.push(MODEL, artifacts[kind])
    expected = result(kind(MODEL, cache_dir=cache))
    hub.status = 503
    with pytest.warns(UserWarning, match=r" is busy .*; using the cached copy of org/model") as said:
        model = kind(MODEL, cache_dir=cache)
    assert (model.revision, len(said)) == (commit, 1)
    assert np.array_equal(result(model), expected)
    assert np.array_equal(result(kind(MODEL, cache_dir=cache, local_files_only=True)), expected)


@BOTH
def test_refresh_downloads_everything_anew_or_fails(
    kind: Kind, artifacts: dict[Kind, Path], hub: HubServer, cache: Path
) -> None:
    commit = hub.push(MODEL, artifacts[kind])
    expected = result(kind(MODEL, cache_dir=cache))
    first = hub.downloaded()
    for file in first:
        damage(snapshot(cache, hub) / file)
    hub.requests.clear()
    for revision in (None, commit):
        assert np.array_equal(result(kind(MODEL, cache_dir=cache, revision=revision, refresh=True)), expected)
        assert sorted(hub.downloaded()) == sorted(first)
        hub.requests.clear()
    hub.status = 503
    for revision in (None, commit):
        with pytest.raises(NetworkError, match=r" is busy \(503"):
            kind(MODEL, cache_dir=cache, revision=revision, refresh=True)
    with pytest.raises(UsageError, match="refresh asks the hub, and local_files_only"):
        kind(MODEL, cache_dir=cache, refresh=True, local_files_only=True)


@BOTH
def test_a_private_model_opens_with_its_token_and_then_from_the_cache(
    kind: Kind, artifacts: dict[Kind, Path], hub: HubServer, cache: Path
) -> None:
    hub.push(MODEL, artifacts[kind])
    hub.tokens[MODEL] = "hf_secret"
    for token in (None, "hf_other", False):
        with pytest.raises(HubError, match="if it is private, set HF_TOKEN or run"):
            kind(MODEL, cache_dir=cache, token=token)
    with kind(MODEL, cache_dir=cache, token="hf_secret") as model:
        assert b"hf_secret" not in pickle.dumps(model)
        assert "hf_secret" not in repr(model)
    with pytest.warns(UserWarning, match=r"if it is private, .*; using the cached copy of org/model"):
        kind(MODEL, cache_dir=cache, token=False).close()
    for unusable in ("", "hf_secret\n"):
        with pytest.raises(UsageError, match="the token is empty, or has characters"):
            kind(MODEL, cache_dir=cache, token=unusable)


@pytest.mark.parametrize("file", ["onnxembed.json", "tokenizer.json", "onnx/model.onnx"])
@BOTH
def test_a_damaged_file_of_the_cache_is_downloaded_anew_which_is_said(
    kind: Kind, artifacts: dict[Kind, Path], hub: HubServer, cache: Path, file: str
) -> None:
    hub.push(MODEL, artifacts[kind])
    expected = result(kind(MODEL, cache_dir=cache))
    damage(snapshot(cache, hub) / file)
    with pytest.raises(IntegrityError, match=rf"{file} of org/model is damaged in the cache, and cannot"):
        kind(MODEL, cache_dir=cache, local_files_only=True)
    with pytest.warns(UserWarning, match=rf"^{file} of org/model was damaged, and has been downloaded anew$"):
        model = kind(MODEL, cache_dir=cache)
    assert np.array_equal(result(model), expected)
    kind(MODEL, cache_dir=cache, local_files_only=True).close()


def test_several_damaged_files_are_each_downloaded_anew(artifact: Path, hub: HubServer, cache: Path) -> None:
    hub.push(MODEL, artifact)
    OnnxEmbedder(MODEL, cache_dir=cache).close()
    for file in ("tokenizer.json", "onnx/model.onnx"):
        damage(snapshot(cache, hub) / file)
    with pytest.warns(UserWarning, match="has been downloaded anew") as said:
        OnnxEmbedder(MODEL, cache_dir=cache).close()
    assert len(said) == 2


def test_a_link_to_a_copy_that_is_gone_is_no_missing_file(artifact: Path, hub: HubServer, cache: Path) -> None:
    hub.push(MODEL, artifact)
    OnnxEmbedder(MODEL, cache_dir=cache).close()
    folder = snapshot(cache, hub)
    for file in ("onnxembed.json", SIMILARITY_FILE, "onnx/model.onnx"):
        (folder / file).resolve().unlink()
        with pytest.raises(HubError, match=f"has no {file}"):
            OnnxEmbedder(MODEL, cache_dir=cache, local_files_only=True)
        OnnxEmbedder(MODEL, cache_dir=cache).close()
        OnnxEmbedder(MODEL, cache_dir=cache, local_files_only=True).close()


def test_a_file_that_is_wrong_on_the_hub_is_downloaded_twice_and_refused(
    artifact: Path, hub: HubServer, cache: Path, tmp_path: Path
) -> None:
    wrong = Path(shutil.copytree(artifact, tmp_path / "wrong"))
    damage(wrong / "onnx/model.onnx")
    hub.push(MODEL, wrong)
    with (
        pytest.warns(UserWarning, match="has been downloaded anew"),
        pytest.raises(IntegrityError, match=r"model\.onnx has sha256 \w{64}, not the manifest's"),
    ):
        OnnxEmbedder(MODEL, cache_dir=cache)


def test_a_repository_without_a_graph_names_the_command(checkpoint: Path, hub: HubServer, cache: Path) -> None:
    hub.push(MODEL, checkpoint)
    with pytest.raises(ModelFilesError, match=r"has no onnxembed\.json: .* onnxembed export org/model -o DIR"):
        OnnxEmbedder(MODEL, cache_dir=cache)


# ---- graphs that another program made


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory, artifact: Path) -> Path:
    """A repository with an ONNX graph and no manifest."""
    folder = Path(shutil.copytree(artifact, tmp_path_factory.mktemp("foreign") / "model"))
    (folder / "onnxembed.json").unlink()
    return folder


@pytest.mark.parametrize("with_list", [True, False])
def test_a_snapshot_of_another_program_is_adopted_offline(
    foreign: Path, hub: HubServer, cache: Path, with_list: bool
) -> None:
    commit = hub.push(MODEL, foreign)
    snapshot_download(MODEL, cache_dir=cache)
    if not with_list:  # as older releases of the hub client left it
        shutil.rmtree(cache / "models--org--model/trees", ignore_errors=True)
    hub.requests.clear()
    model = OnnxEmbedder(MODEL, cache_dir=cache, local_files_only=True)
    assert model.revision == model.manifest.source.revision == commit
    assert hub.requests == []
    assert_vectors_equal(result(model), result(OnnxEmbedder(foreign)))


def test_a_file_that_another_program_left_out_is_an_error_if_it_decides(
    foreign: Path, hub: HubServer, cache: Path
) -> None:
    hub.push(MODEL, foreign)
    snapshot_download(MODEL, cache_dir=cache, ignore_patterns=["sentence_bert_config.json", "README.md", "*.txt"])
    with pytest.raises(HubError, match=r"has no sentence_bert_config\.json of org/model at main: run once without it"):
        OnnxEmbedder(MODEL, cache_dir=cache, local_files_only=True)
    OnnxEmbedder(MODEL, cache_dir=cache).close()


def test_a_copy_of_which_nobody_knows_whether_it_is_whole_is_used_with_a_warning(
    foreign: Path, hub: HubServer, cache: Path
) -> None:
    hub.push(MODEL, foreign)
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "onnx/model.onnx"):
        hf_hub_download(MODEL, file, cache_dir=cache)
    offline: dict[str, Any] = {"cache_dir": cache, "local_files_only": True, "pooling": "mean", "normalize": True}
    with pytest.warns(UserWarning, match=r"does not say whether org/model has modules\.json, .* absent") as said:
        OnnxEmbedder(MODEL, **offline).close()
    assert len(said) == 1
    with pytest.raises(HubError, match=r"has no onnx/other\.onnx of org/model at main"):
        OnnxEmbedder(MODEL, **(offline | {"onnx_file": "onnx/other.onnx"}))


@pytest.mark.parametrize("file", ["onnx/model.onnx", "config.json"])
def test_a_damaged_file_of_an_adopted_model_is_downloaded_anew(
    foreign: Path, hub: HubServer, cache: Path, file: str
) -> None:
    hub.push(MODEL, foreign)
    expected = result(OnnxEmbedder(MODEL, cache_dir=cache))
    damage(snapshot(cache, hub) / file)
    with pytest.warns(UserWarning, match=f"^{file} of org/model was damaged, and has been downloaded anew$"):
        model = OnnxEmbedder(MODEL, cache_dir=cache)
    assert_vectors_equal(result(model), expected)
