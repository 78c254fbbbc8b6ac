"""Files of a checkpoint that are damaged, in the cache or on the way, and downloads that break off."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from hub_files import ARTIFACT, CHECKPOINT, MODEL, PLAIN, contents, fetch, push
from hub_server import HubServer
from onnxembed.errors import HubError, IntegrityError
from onnxembed.hub.checkpoint_files import fetch_checkpoint
from onnxembed.hub.source import HubOptions


def test_a_file_that_comes_damaged_is_an_error_until_the_hub_sends_it_whole(
    hub: HubServer, cached: HubOptions, tmp_path: Path
) -> None:
    push(hub, CHECKPOINT, tmp_path)
    hub.corrupted = {"model.safetensors"}
    for _ in range(2):
        with pytest.raises(IntegrityError, match=r"model\.safetensors of org/model comes damaged .*\(sha256"):
            fetch_checkpoint(MODEL, cached)
    with pytest.raises(HubError, match=r"has no copy of org/model at main"):
        fetch_checkpoint(MODEL, replace(cached, local_files_only=True))
    hub.corrupted.clear()
    with pytest.warns(UserWarning, match=r"model\.safetensors of org/model was damaged, and has been downloaded anew"):
        assert contents(fetch_checkpoint(MODEL, cached).folder) == CHECKPOINT


def test_damage_in_the_cache_is_found(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    commit = push(hub, CHECKPOINT, tmp_path)
    weights = fetch_checkpoint(MODEL, cached).folder / "2_Dense/model.safetensors"
    weights.write_bytes(bytes(10_000))
    cannot = r"2_Dense/model\.safetensors of org/model is damaged in the cache, and cannot .*\(--offline\) is set"
    with pytest.raises(IntegrityError, match=cannot):
        fetch_checkpoint(MODEL, replace(cached, local_files_only=True))
    with pytest.warns(UserWarning, match=r"2_Dense/model\.safetensors of org/model was damaged"):
        fetched = fetch_checkpoint(MODEL, replace(cached, revision=commit))
    assert contents(fetched.folder) == CHECKPOINT
    assert fetch_checkpoint(MODEL, replace(cached, local_files_only=True)) == fetched


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("file", ["config.json", "modules.json", "2_Dense/config.json", "sentence_bert_config.json"])
def test_a_damaged_small_file_is_replaced_before_it_is_read(
    hub: HubServer, cached: HubOptions, tmp_path: Path, file: str, weights: bool
) -> None:
    push(hub, CHECKPOINT, tmp_path)
    folder = fetch_checkpoint(MODEL, cached).folder
    (folder / file).resolve().write_bytes(b"{")
    seen: list[bytes] = []
    with pytest.warns(UserWarning, match=rf"{file} of org/model was damaged, and has been downloaded anew"):
        fetch_checkpoint(MODEL, cached, lambda small: seen.append((small.folder / file).read_bytes()), weights=weights)
    assert seen == [CHECKPOINT[file]]


def test_a_blob_in_a_shared_store_is_hashed_by_its_own_name(
    hub: HubServer, cache: Path, cached: HubOptions, tmp_path: Path
) -> None:
    """Newer caches link blobs to a store whose files are named by another hash of 64 digits."""
    push(hub, PLAIN, tmp_path)
    fetched = fetch_checkpoint(MODEL, cached)
    blob = (fetched.folder / "model.safetensors").resolve()
    stored = cache / "blobs/ab" / ("ab" * 32)
    stored.parent.mkdir(parents=True)
    blob.rename(stored)
    blob.symlink_to(stored)
    assert fetch_checkpoint(MODEL, cached) == fetched
    stored.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"model\.safetensors of org/model was damaged"):
        assert contents(fetch_checkpoint(MODEL, cached).folder) == PLAIN


def test_a_broken_connection_is_resumed(
    hub: HubServer, cached: HubOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    push(hub, PLAIN, tmp_path)
    hub.cut_at = {"model.safetensors": 100_000}
    hub.cuts = 1
    assert contents(fetch_checkpoint(MODEL, cached).folder) == PLAIN
    assert hub.ranges == ["bytes=100000-"]


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "2_Dense/model.safetensors"])
def test_an_interrupted_download_is_not_complete_and_can_be_repeated(
    hub: HubServer, cached: HubOptions, tmp_path: Path, file: str
) -> None:
    push(hub, CHECKPOINT, tmp_path)
    hub.cut_at = {file: len(CHECKPOINT[file]) // 2}
    with pytest.raises(HubError, match=rf"could not get the {file} of {MODEL} from {hub.url}") as caught:
        fetch_checkpoint(MODEL, cached)
    assert "\n" not in str(caught.value)
    with pytest.raises(HubError, match="has no"):
        fetch_checkpoint(MODEL, replace(cached, local_files_only=True))
    hub.cut_at = {}
    assert contents(fetch_checkpoint(MODEL, cached).folder) == CHECKPOINT


def test_an_interrupted_update_leaves_the_older_copy(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    push(hub, PLAIN, tmp_path)
    old = fetch_checkpoint(MODEL, cached)
    push(hub, PLAIN | {"model.safetensors": os.urandom(200_000)}, tmp_path)
    hub.cut_at = {"model.safetensors": 1_000}
    with pytest.raises(HubError):
        fetch_checkpoint(MODEL, cached)
    assert fetch_checkpoint(MODEL, replace(cached, local_files_only=True)) == old


def test_fetch_after_an_interruption(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    push(hub, ARTIFACT, tmp_path)
    hub.cut_at = {"onnx/model.onnx": 1_000}
    with pytest.raises(HubError, match=r"could not get the onnx/model\.onnx"):
        fetch(MODEL, cached, wanted=list(ARTIFACT))
    hub.cut_at = {}
    assert contents(fetch(MODEL, cached, wanted=list(ARTIFACT)).folder) == ARTIFACT


def test_a_small_file_that_was_damaged_in_the_cache_is_found_and_fetched_anew(
    hub: HubServer, cached: HubOptions, tmp_path: Path
) -> None:
    push(hub, CHECKPOINT, tmp_path)
    file = fetch_checkpoint(MODEL, cached).folder / "sentence_bert_config.json"
    file.resolve().write_bytes(b'{"max_seq_length": 511}')
    with pytest.raises(IntegrityError, match=r"sentence_bert_config\.json of org/model is damaged"):
        fetch_checkpoint(MODEL, replace(cached, local_files_only=True))
    with pytest.warns(UserWarning, match=r"sentence_bert_config\.json of org/model was damaged"):
        assert contents(fetch_checkpoint(MODEL, cached).folder) == CHECKPOINT


@pytest.mark.parametrize("etag", ["0" * 64, "0" * 40, "strange-name"])
def test_a_name_of_a_file_that_is_not_its_hash(hub: HubServer, cached: HubOptions, tmp_path: Path, etag: str) -> None:
    """A hash that is wrong is damage; a name that is no hash says nothing."""
    push(hub, PLAIN, tmp_path)
    hub.etags = {"model.safetensors": etag}
    if etag == "strange-name":
        assert contents(fetch_checkpoint(MODEL, cached).folder) == PLAIN
        return
    with pytest.raises(IntegrityError, match=r"model\.safetensors of org/model comes damaged from the hub"):
        fetch_checkpoint(MODEL, cached)


def test_a_mirror_that_names_small_files_by_their_sha1(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    push(hub, PLAIN, tmp_path)
    hub.etags = {name: hashlib.sha1(content).hexdigest() for name, content in PLAIN.items()}
    assert contents(fetch_checkpoint(MODEL, cached).folder) == PLAIN
    assert contents(fetch_checkpoint(MODEL, cached).folder) == PLAIN
