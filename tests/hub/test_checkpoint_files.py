"""Which files of a model are its checkpoint, and what a cache that has them serves."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from hub_files import CHECKPOINT, MODEL, PLAIN, SHARDED, SHARDS, UNWANTED, contents, push
from hub_server import HubServer
from onnxembed.errors import HubError, ModelFilesError, OnnxEmbedError
from onnxembed.hub.checkpoint_files import fetch_checkpoint
from onnxembed.hub.source import HubOptions
from tiny import write_json, write_sentence_bert


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
    assert not [path for path in cache.rglob("refs/*") if path.is_file()]  # a commit stands for itself


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


def test_a_module_whose_name_no_file_system_takes_is_refused(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "model")
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[0]["path"] = "x" * 20_000
    write_json(folder / "modules.json", modules)
    with pytest.raises(ModelFilesError, match=r"is not the modules\.json of a model: .*name too long"):
        fetch_checkpoint(folder)
