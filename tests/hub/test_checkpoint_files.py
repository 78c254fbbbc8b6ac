"""Fetching a whole checkpoint from the hub."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from hub_files import ARTIFACT, CHECKPOINT, MODEL, PLAIN, SHARDED, SHARDS, UNWANTED, contents, fetch, push, write
from hub_server import HubServer
from onnxembed.errors import HubError, IntegrityError, ModelFilesError, OnnxEmbedError, UnsupportedError
from onnxembed.hub.checkpoint_files import fetch_checkpoint
from onnxembed.hub.source import Fetched, HubOptions

# A checkpoint


def test_a_checkpoint_is_what_an_export_reads(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    commit = push(hub, CHECKPOINT | UNWANTED, tmp_path)
    fetched = fetch_checkpoint(MODEL, cached)
    assert fetched.revision == commit
    assert contents(fetched.folder) == CHECKPOINT
    assert sorted(hub.downloaded()) == sorted(CHECKPOINT)
    # A copy is complete when it has its weights, so everything else comes first.
    assert hub.downloaded()[-2:] == ["2_Dense/model.safetensors", "model.safetensors"]


@pytest.mark.parametrize(
    "vocabulary",
    [["vocab.txt"], ["vocab.json", "merges.txt"], ["sentencepiece.bpe.model"], ["spm.model"], ["tokenizer.model"]],
    ids=" ".join,
)
def test_an_older_vocabulary_stands_for_tokenizer_json(
    hub: HubServer, cached: HubOptions, tmp_path: Path, vocabulary: list[str]
) -> None:
    files = {**PLAIN, **dict.fromkeys([*vocabulary, "added_tokens.json"], b"{}")}
    del files["tokenizer.json"]
    push(hub, files | UNWANTED, tmp_path)
    assert contents(fetch_checkpoint(MODEL, cached).folder) == files


def test_chat_templates_are_fetched(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    """transformers saves them in files of their own, and a reranker without its template would score other texts."""
    files = {**PLAIN, "chat_template.jinja": b"{{ messages }}", "additional_chat_templates/tool_use.jinja": b"{{ 1 }}"}
    push(hub, files | UNWANTED, tmp_path)
    assert contents(fetch_checkpoint(MODEL, cached).folder) == files


def test_shards_are_those_of_the_index(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    more = {"model.fp16-00001-of-00001.safetensors": b"", "pytorch_model-00001-of-00001.bin": b""}
    push(hub, SHARDED | more | {"pytorch_model.bin.index.json": b"{}"}, tmp_path)
    fetched = fetch_checkpoint(MODEL, cached)
    assert contents(fetched.folder) == SHARDED | {"pytorch_model.bin.index.json": b"{}"}


@pytest.mark.parametrize(
    "weights",
    [
        {"pytorch_model.bin": b"weights"},
        {
            "pytorch_model.bin.index.json": b'{"weight_map": {"a": "pytorch_model-1.bin"}}',
            "pytorch_model-1.bin": b"w",
        },
        {"other.safetensors": b"weights"},
    ],
    ids=["single", "sharded", "other"],
)
def test_other_weights_are_taken_only_without_safetensors(
    hub: HubServer, cached: HubOptions, tmp_path: Path, weights: dict[str, bytes]
) -> None:
    files = {name: PLAIN[name] for name in ("config.json", "tokenizer.json")} | weights
    push(hub, files | {"tf_model.h5": b"", "onnx/model.onnx": b""}, tmp_path)
    assert contents(fetch_checkpoint(MODEL, cached).folder) == files


def test_a_transformer_in_a_folder_of_its_own(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    modules = [{"path": "0_Transformer", "type": "models.Transformer"}, {"path": "1_Pooling/", "type": "Pooling"}]
    files = {f"0_Transformer/{name}": content for name, content in PLAIN.items()}
    files |= {"modules.json": json.dumps(modules).encode(), "1_Pooling/config.json": b"{}"}
    push(hub, files | {"pytorch_model.bin": b"", "0_Transformer/tf_model.h5": b""}, tmp_path)
    assert contents(fetch_checkpoint(MODEL, cached).folder) == files


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_repository_that_is_not_a_checkpoint_is_an_error(
    hub: HubServer, cached: HubOptions, tmp_path: Path, lost: str
) -> None:
    push(hub, {name: content for name, content in PLAIN.items() if name != lost}, tmp_path)
    with pytest.raises(ModelFilesError, match=rf"{MODEL} at [0-9a-f]+ has no {lost}$"):
        fetch_checkpoint(MODEL, cached)


def test_an_index_that_names_an_absent_shard_is_an_error(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    lost = sorted(SHARDS)[0]
    push(hub, {name: content for name, content in SHARDED.items() if name != lost}, tmp_path)
    with pytest.raises(ModelFilesError, match=rf"{MODEL} at \w{{40}} has no {lost}"):
        fetch_checkpoint(MODEL, cached)


@pytest.mark.parametrize("broken", ["model.safetensors.index.json", "modules.json"])
def test_files_that_name_others_must_be_readable(
    hub: HubServer, cached: HubOptions, tmp_path: Path, broken: str
) -> None:
    push(hub, SHARDED | {broken: b"{]"}, tmp_path)
    with pytest.raises(ModelFilesError, match=rf"{broken} is not the {broken} of a model: Expecting property name"):
        fetch_checkpoint(MODEL, cached)


def test_a_branch_means_its_newest_commit(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    push(hub, PLAIN, tmp_path)
    old = fetch_checkpoint(MODEL, cached)
    hub.requests.clear()
    assert fetch_checkpoint(MODEL, cached) == old
    assert hub.requests == [f"GET /api/models/{MODEL}/revision/main"]
    commit = push(hub, PLAIN | {"config.json": b'{"model_type": "new"}'}, tmp_path)
    hub.requests.clear()
    assert fetch_checkpoint(MODEL, cached).revision == commit
    assert hub.downloaded() == ["config.json"]


@pytest.mark.parametrize("files", [CHECKPOINT, SHARDED], ids=["modules", "plain"])
def test_a_cached_commit_asks_nothing(hub: HubServer, cache: Path, tmp_path: Path, files: dict[str, bytes]) -> None:
    commit = push(hub, files, tmp_path)
    first = fetch_checkpoint(MODEL, HubOptions(revision=commit, cache_dir=cache))
    hub.requests.clear()
    assert fetch_checkpoint(MODEL, HubOptions(revision=commit, cache_dir=cache)) == first
    assert hub.requests == []


def test_a_commit_that_another_program_cached_in_part_is_completed(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    commit = push(hub, CHECKPOINT, tmp_path)
    for name in PLAIN:
        hf_hub_download(MODEL, name, revision=commit, cache_dir=cache)
    assert contents(fetch_checkpoint(MODEL, HubOptions(revision=commit, cache_dir=cache)).folder) == CHECKPOINT


def test_a_snapshot_of_another_program_serves_offline(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    push(hub, CHECKPOINT | UNWANTED, tmp_path)
    folder = snapshot_download(MODEL, cache_dir=cache)
    hub.requests.clear()
    fetched = fetch_checkpoint(MODEL, HubOptions(cache_dir=cache, local_files_only=True))
    assert str(fetched.folder) == folder
    assert hub.requests == []


@pytest.mark.parametrize(
    ("files", "lost"),
    [
        (CHECKPOINT, "config.json"),
        (CHECKPOINT, "model.safetensors"),
        (CHECKPOINT, "1_Pooling/config.json"),
        (CHECKPOINT, "2_Dense/model.safetensors"),
        (SHARDED, sorted(SHARDS)[1]),
    ],
)
def test_an_incomplete_cache_is_an_error_offline_and_completed_online(
    hub: HubServer, cached: HubOptions, tmp_path: Path, files: dict[str, bytes], lost: str
) -> None:
    push(hub, files, tmp_path)
    fetched = fetch_checkpoint(MODEL, cached)
    (fetched.folder / lost).unlink()
    with pytest.raises(HubError, match=rf"local_files_only.* has no {lost} of {MODEL} at main"):
        fetch_checkpoint(MODEL, replace(cached, local_files_only=True))
    assert fetch_checkpoint(MODEL, replace(cached, revision=fetched.revision)) == fetched
    assert contents(fetched.folder) == files


def test_an_empty_cache_is_an_error_offline(hub: HubServer, cache: Path) -> None:
    with pytest.raises(HubError, match=r"has no copy of org/model at main"):
        fetch_checkpoint(MODEL, HubOptions(cache_dir=cache, local_files_only=True))
    assert hub.requests == []
    assert not cache.exists()


def test_a_hub_out_of_reach_is_a_warning_with_a_complete_copy(
    hub: HubServer, cached: HubOptions, tmp_path: Path
) -> None:
    push(hub, CHECKPOINT, tmp_path)
    first = fetch_checkpoint(MODEL, cached)
    hub.status = 500
    with pytest.warns(UserWarning, match=rf"{hub.url} is busy \(500 .*; using the cached copy") as warned:
        assert fetch_checkpoint(MODEL, cached) == first
    assert len(warned) == 1
    assert warned[0].filename == __file__


def test_a_read_only_cache_serves(hub: HubServer, cache: Path, cached: HubOptions, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is read-only to root")
    push(hub, PLAIN, tmp_path)
    first = fetch_checkpoint(MODEL, cached)
    (cache / "models--org--model/refs/main").unlink()
    folders = [cache, *(path for path in cache.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    try:
        assert fetch_checkpoint(MODEL, cached) == first
    finally:
        for folder in folders:
            folder.chmod(0o700)


# Damage


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
    cannot = r"2_Dense/model\.safetensors of org/model is damaged in the cache, and cannot .*local_files_only is set"
    with pytest.raises(IntegrityError, match=cannot):
        fetch_checkpoint(MODEL, replace(cached, local_files_only=True))
    with pytest.warns(UserWarning, match=r"2_Dense/model\.safetensors of org/model was damaged"):
        fetched = fetch_checkpoint(MODEL, replace(cached, revision=commit))
    assert contents(fetched.folder) == CHECKPOINT
    assert fetch_checkpoint(MODEL, replace(cached, local_files_only=True)) == fetched


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


# Terms


TERMS = {"README.md": b"license: mit", "LICENSE": b"MIT", "NOTICE.txt": b"By us", "LICENSES/other.txt": b"no"}


def test_terms_come_with_a_checkpoint(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    push(hub, PLAIN | TERMS, tmp_path)
    wanted = PLAIN | {name: TERMS[name] for name in ("README.md", "LICENSE", "NOTICE.txt")}
    assert contents(fetch_checkpoint(MODEL, cached).folder) == wanted


def test_terms_that_cannot_be_had_are_no_error(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    push(hub, PLAIN | TERMS, tmp_path)
    hub.cut_at = dict.fromkeys(TERMS, 1)
    fetched = fetch_checkpoint(MODEL, cached)
    assert contents(fetched.folder) == PLAIN
    assert fetch_checkpoint(MODEL, replace(cached, local_files_only=True)) == fetched


# A LoRA adapter that lies alone


def adapter(base: object, **config: object) -> dict[str, bytes]:
    config = {"peft_type": "LORA", "base_model_name_or_path": base, **config}
    return {
        "adapter_config.json": json.dumps(config).encode(),
        "adapter_model.safetensors": os.urandom(100),
        "tokenizer.json": PLAIN["tokenizer.json"],
    }


def test_the_base_of_an_adapter_comes_from_the_hub(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    commit = hub.push("org/base", write(tmp_path / "base", PLAIN))
    push(hub, adapter("org/base"), tmp_path)
    fetched = fetch_checkpoint(MODEL, cached)
    assert contents(fetched.folder) == contents(tmp_path / "source-1")
    assert fetched.base is not None
    assert fetched.base.name == commit
    assert contents(fetched.base) == PLAIN
    hub.requests.clear()
    assert fetch_checkpoint(MODEL, replace(cached, local_files_only=True)) == fetched
    assert hub.requests == []
    local = fetch_checkpoint(write(tmp_path / "here", adapter("org/base")), cached)
    assert local.base == fetched.base


def test_the_base_is_at_the_revision_that_the_adapter_names(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    tagged = hub.push("org/base", write(tmp_path / "base", PLAIN), "v1")
    hub.push("org/base", write(tmp_path / "newer", PLAIN | {"config.json": b'{"model_type": "newer"}'}))
    for revision in ("v1", tagged):
        fetched = fetch_checkpoint(write(tmp_path / f"at-{revision}", adapter("org/base", revision=revision)), cached)
        assert fetched.base is not None
        assert fetched.base.name == tagged


def test_the_base_of_an_adapter_may_be_a_folder_or_lie_beside_it(
    hub: HubServer, cached: HubOptions, tmp_path: Path
) -> None:
    base = write(tmp_path / "base", PLAIN)
    assert fetch_checkpoint(write(tmp_path / "by-path", adapter(str(base))), cached).base is None
    assert fetch_checkpoint(write(tmp_path / "beside", PLAIN | adapter("org/base")), cached).base is None
    assert hub.requests == []


def test_a_refused_adapter_costs_no_weights(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    hub.push("org/base", write(tmp_path / "base", PLAIN))
    push(hub, adapter("org/base"), tmp_path)

    def refuse(checkpoint: Fetched) -> None:
        assert checkpoint.base is not None
        assert (checkpoint.base / "config.json").is_file()
        raise UnsupportedError("no")

    with pytest.raises(UnsupportedError):
        fetch_checkpoint(MODEL, cached, examine=refuse)
    assert not [name for name in hub.downloaded() if name.endswith(".safetensors")]


@pytest.mark.parametrize(
    ("base", "files", "message"),
    [
        ("org/absent", {}, "no such model on"),
        ("org/base", {"README.md": b""}, r"org/base, the base that .*adapter_config\.json names, has no config\.json"),
        ("org/base", {"config.json": b"{}"}, r"the base of the adapter, has no model\.safetensors"),
        ("two words", {}, "'two words' is neither a folder nor the name of a model on the hub"),
    ],
)
def test_a_base_that_cannot_be_had_is_an_error(
    hub: HubServer, tmp_path: Path, base: str, files: dict[str, bytes], message: str
) -> None:
    hub.push("org/base", write(tmp_path / "base", files))
    push(hub, adapter(base), tmp_path)
    with pytest.raises(OnnxEmbedError, match=message):
        fetch_checkpoint(MODEL, HubOptions(cache_dir=tmp_path / "cache"))


def test_the_revision_of_a_base_must_be_one(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    for revision in (7, "../../x"):
        push(hub, adapter("org/base", revision=revision), tmp_path)
        with pytest.raises(OnnxEmbedError, match=r"revision is 7, not the name|revision '\.\./\.\./x' is not the name"):
            fetch_checkpoint(MODEL, cached)


# A copy that another program left out files of


def test_a_decisive_file_that_another_program_left_out_is_an_error_offline(
    hub: HubServer, cached: HubOptions, tmp_path: Path
) -> None:
    push(hub, CHECKPOINT | {"train_results.json": b"{}"}, tmp_path)
    snapshot_download(MODEL, cache_dir=cached.cache_dir, ignore_patterns=["sentence_bert_config.json", "vocab.txt"])
    with pytest.raises(HubError, match=r"has no sentence_bert_config\.json of org/model at main: run once without it"):
        fetch_checkpoint(MODEL, replace(cached, local_files_only=True))


def test_files_that_decide_nothing_may_be_left_out_offline(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    push(hub, CHECKPOINT | {"train_results.json": b"{}", "README.md": b""}, tmp_path)
    left_out = ["train_results.json", "vocab.txt", "merges.txt", "*.model", "README.md"]
    snapshot_download(MODEL, cache_dir=cached.cache_dir, ignore_patterns=left_out)
    hub.requests.clear()
    fetch_checkpoint(MODEL, replace(cached, local_files_only=True))
    assert hub.requests == []


def test_a_link_to_a_copy_that_is_gone_is_an_error_offline(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    push(hub, CHECKPOINT, tmp_path)
    folder = fetch_checkpoint(MODEL, cached).folder
    for file in ("config_sentence_transformers.json", "1_Pooling/config.json", "model.safetensors"):
        (folder / file).resolve().unlink()
        with pytest.raises(OnnxEmbedError, match=f"{file} of org/model"):
            fetch_checkpoint(MODEL, replace(cached, local_files_only=True))
        assert contents(fetch_checkpoint(MODEL, cached).folder) == CHECKPOINT
