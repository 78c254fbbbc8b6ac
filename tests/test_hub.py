from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from hub_server import HubServer, ask
from onnxembed.errors import HubError, IntegrityError, ModelFilesError, OnnxEmbedError, UsageError
from onnxembed.hub import Fetched, fetch, fetch_checkpoint, is_local

MODEL = "org/model"
ABSENT_COMMIT = "0" * 40

ARTIFACT = {
    "onnxembed.json": b"{}",
    "tokenizer.json": b'{"model": {}}',
    "onnx/model.onnx": os.urandom(300_000),
}
MODULES = json.dumps(
    [
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
        {"idx": 3, "path": "3_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
).encode()
PLAIN = {
    "config.json": b'{"model_type": "bert"}',
    "tokenizer.json": b'{"version": "1.0"}',
    "model.safetensors": os.urandom(200_000),
}
CHECKPOINT = PLAIN | {
    "modules.json": MODULES,
    "config_sentence_transformers.json": b'{"prompts": {}}',
    "sentence_bert_config.json": b'{"max_seq_length": 512}',
    "vocab.txt": b"[PAD]\n[UNK]\n",
    "merges.txt": b"a b\n",
    "sentencepiece.bpe.model": os.urandom(5_000),
    "1_Pooling/config.json": b'{"pooling_mode": "mean"}',
    "2_Dense/config.json": b'{"in_features": 8}',
    "2_Dense/model.safetensors": os.urandom(10_000),
}
UNWANTED = dict.fromkeys(
    [
        ".gitattributes",
        "README.md",
        "train_script.py",
        "pytorch_model.bin",
        "tf_model.h5",
        "flax_model.msgpack",
        "rust_model.ot",
        "model-q4.gguf",
        "consolidated.safetensors",
        "original/consolidated.00.pth",
        "coreml/model.mlmodel",
        "2_Dense/pytorch_model.bin",
        "onnx/model.onnx",
        "onnx/config.json",
        "openvino/openvino_model.bin",
        "openvino/config.json",
        "checkpoint-10/config.json",
        "checkpoint-10/model.safetensors",
    ],
    b"not needed",
)
SHARDS = {f"model-0000{part}-of-00002.safetensors": os.urandom(50_000) for part in (1, 2)}
INDEX = json.dumps({"weight_map": dict(zip("abcd", sorted(SHARDS) * 2, strict=True))}).encode()
SHARDED = {name: PLAIN[name] for name in ("config.json", "tokenizer.json")} | SHARDS
SHARDED["model.safetensors.index.json"] = INDEX


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(fetched: Fetched) -> set[str]:
    return set(contents(fetched.folder))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty hub that huggingface_hub asks, without a token; `push` fills it."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with HubServer({}) as server:
        server.answer(monkeypatch)
        yield server


def push(hub: HubServer, files: Mapping[str, bytes], tmp_path: Path, revision: str = "main") -> str:
    """Commit these files and no others to MODEL."""
    return hub.push(MODEL, write(tmp_path / f"source-{len(os.listdir(tmp_path))}", files), revision)


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> str:
    """A hub that does not answer."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    ask(url, monkeypatch)
    return url


# Paths and ids


@pytest.mark.parametrize(
    ("model", "local"),
    [
        ("gpt2", False),
        ("org/name", False),
        ("name/", False),
        (Path("org/name"), True),
        ("/abs/name", True),
        ("./name", True),
        ("../name", True),
        ("~/name", True),
        ("a/b/c", True),
        ("a\\b", True),
    ],
)
def test_what_can_only_be_a_path_is_local(model: str | Path, local: bool) -> None:
    assert is_local(model) is local


def test_what_exists_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"org/name/config.json": b"{}"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert is_local("org/name")
    assert is_local("org/name/config.json")
    assert is_local(".")
    assert is_local("~")


@pytest.mark.parametrize("given", [str, Path])
def test_a_folder_is_used_as_it_lies(tmp_path: Path, given: type[str] | type[Path]) -> None:
    model = given(write(tmp_path / "model", ARTIFACT))
    expected = Fetched(str(model), Path(model), None)
    assert fetch(model, wanted=list(ARTIFACT), optional=["absent.json"]) == expected
    assert fetch_checkpoint(model) == expected


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "model", ARTIFACT)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch_checkpoint("~/model").folder == tmp_path / "model"


def test_a_folder_that_lacks_wanted_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"model has no a\.json, b\.json$"):
        fetch(write(tmp_path / "model", ARTIFACT), wanted=["a.json", "onnxembed.json", "b.json"])


def test_paths_that_cannot_be_a_model_are_errors(tmp_path: Path) -> None:
    file = write(tmp_path, ARTIFACT) / "onnx/model.onnx"
    with pytest.raises(UsageError, match=r"no folder at .*absent"):
        fetch_checkpoint(tmp_path / "absent")
    with pytest.raises(UsageError, match="is a file; give the folder"):
        fetch(str(file), wanted=["onnxembed.json"])
    with pytest.raises(UsageError, match="has no revision 'v1'"):
        fetch_checkpoint(tmp_path, revision="v1")
    with pytest.raises(UsageError, match="at least one wanted file"):
        fetch(tmp_path, wanted=[])


@pytest.mark.parametrize("model", ["", "name/", "two words", "org/na:me", "a--b", "org/.name", "org/name.git", "ä"])
def test_what_is_neither_a_path_nor_an_id_is_an_error(hub: HubServer, cache: Path, model: str) -> None:
    with pytest.raises(UsageError, match="neither a folder nor the name of a model"):
        fetch_checkpoint(model, cache_dir=cache)
    assert hub.requests == []


def test_a_local_folder_imports_no_hub_library(tmp_path: Path) -> None:
    write(tmp_path, ARTIFACT)
    run(
        "import sys; from onnxembed import hub; hub.fetch(sys.argv[1], wanted=['onnxembed.json']); "
        "hub.fetch_checkpoint(sys.argv[1]); assert 'huggingface_hub' not in sys.modules",
        tmp_path,
    )


# Files by name


def test_fetch_downloads_the_named_files_and_no_others(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    commit = push(hub, UNWANTED | ARTIFACT, tmp_path)
    fetched = fetch(MODEL, wanted=list(ARTIFACT), cache_dir=cache)
    assert (fetched.model, fetched.revision) == (MODEL, commit)
    assert contents(fetched.folder) == ARTIFACT
    assert sorted(hub.downloaded()) == sorted(ARTIFACT)


def test_fetch_asks_nothing_for_what_is_cached(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    commit = push(hub, ARTIFACT, tmp_path)
    first = fetch(MODEL, wanted=["onnxembed.json"], cache_dir=cache)
    second = fetch(MODEL, wanted=list(ARTIFACT), revision=first.revision, cache_dir=cache)
    push(hub, ARTIFACT | {"onnxembed.json": b'{"newer": 1}'}, tmp_path)
    hub.requests.clear()
    assert fetch(MODEL, wanted=list(ARTIFACT), cache_dir=cache) == second
    assert fetch(MODEL, wanted=list(ARTIFACT), revision="main", cache_dir=cache) == second
    assert fetch(MODEL, wanted=list(ARTIFACT), revision=commit, cache_dir=cache) == second
    assert fetch(MODEL, wanted=list(ARTIFACT), cache_dir=cache, local_files_only=True) == second
    assert hub.requests == []


def test_fetch_takes_branches_tags_and_commits(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    old = push(hub, {"onnxembed.json": b"old"}, tmp_path, "v1")
    request = push(hub, {"onnxembed.json": b"request"}, tmp_path, "refs/pr/1")
    push(hub, {"onnxembed.json": b"new"}, tmp_path)
    for revision, commit, content in [
        ("v1", old, b"old"),
        (old, old, b"old"),
        ("refs/pr/1", request, b"request"),
        (None, hub.commit(MODEL), b"new"),
    ]:
        fetched = fetch(MODEL, wanted=["onnxembed.json"], revision=revision, cache_dir=cache)
        assert fetched.revision == commit
        assert (fetched.folder / "onnxembed.json").read_bytes() == content


def test_a_name_without_an_organisation_is_an_id(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    commit = hub.push("gpt2", write(tmp_path / "source", PLAIN))
    assert fetch("gpt2", wanted=["config.json"], cache_dir=cache) == fetch_checkpoint("gpt2", cache_dir=cache)
    assert fetch_checkpoint("gpt2", cache_dir=cache).revision == commit


def test_fetch_names_all_missing_files_before_downloading(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    push(hub, ARTIFACT, tmp_path)
    with pytest.raises(ModelFilesError, match=rf"{MODEL} at [0-9a-f]+ has no a\.json, b\.json"):
        fetch(MODEL, wanted=[*ARTIFACT, "a.json", "b.json"], cache_dir=cache)
    assert hub.downloaded() == []


def test_fetch_remembers_that_an_optional_file_is_absent(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    push(hub, ARTIFACT, tmp_path)
    optional = ["tokenizer.json", "1_Pooling/config.json"]
    first = fetch(MODEL, wanted=["onnxembed.json"], optional=optional, cache_dir=cache)
    assert names(first) == {"onnxembed.json", "tokenizer.json"}
    hub.requests.clear()
    assert fetch(MODEL, wanted=["onnxembed.json"], optional=optional, cache_dir=cache) == first
    assert hub.requests == []


def test_fetch_looks_for_an_optional_file_beside_the_cached_ones(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    push(hub, ARTIFACT, tmp_path)
    first = fetch(MODEL, wanted=["onnxembed.json"], cache_dir=cache)
    push(hub, ARTIFACT | {"tokenizer.json": b"newer"}, tmp_path)
    offline = fetch(
        MODEL, wanted=["onnxembed.json"], optional=["tokenizer.json"], cache_dir=cache, local_files_only=True
    )
    assert offline == first
    assert names(offline) == {"onnxembed.json"}
    second = fetch(MODEL, wanted=["onnxembed.json"], optional=["tokenizer.json"], cache_dir=cache)
    assert second == first
    assert (second.folder / "tokenizer.json").read_bytes() == ARTIFACT["tokenizer.json"]


def test_fetch_without_a_network_goes_on_without_an_optional_file(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    push(hub, ARTIFACT, tmp_path)
    first = fetch(MODEL, wanted=["onnxembed.json"], cache_dir=cache)
    hub.status = 503
    with pytest.warns(UserWarning, match=r"could not reach .*503.*; using the cached copy of org/model"):
        assert fetch(MODEL, wanted=["onnxembed.json"], optional=["tokenizer.json"], cache_dir=cache) == first


def test_fetch_offline_without_the_files_is_an_error(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    push(hub, ARTIFACT, tmp_path)
    fetch(MODEL, wanted=["onnxembed.json"], cache_dir=cache)
    hub.requests.clear()
    with pytest.raises(HubError, match=r"local_files_only.*cache .* has no tokenizer\.json of org/model at main"):
        fetch(MODEL, wanted=["onnxembed.json", "tokenizer.json"], cache_dir=cache, local_files_only=True)
    with pytest.raises(HubError, match=r"has no onnxembed\.json of org/model at v1"):
        fetch(MODEL, wanted=["onnxembed.json"], revision="v1", cache_dir=cache, local_files_only=True)
    assert hub.requests == []


# A checkpoint


def test_a_checkpoint_is_what_an_export_reads(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    commit = push(hub, CHECKPOINT | UNWANTED, tmp_path)
    fetched = fetch_checkpoint(MODEL, cache_dir=cache)
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
    hub: HubServer, cache: Path, tmp_path: Path, vocabulary: list[str]
) -> None:
    files = {**PLAIN, **dict.fromkeys([*vocabulary, "added_tokens.json"], b"{}")}
    del files["tokenizer.json"]
    push(hub, files | UNWANTED, tmp_path)
    assert contents(fetch_checkpoint(MODEL, cache_dir=cache).folder) == files


def test_shards_are_those_of_the_index(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    more = {"model.fp16-00001-of-00001.safetensors": b"", "pytorch_model-00001-of-00001.bin": b""}
    push(hub, SHARDED | more | {"pytorch_model.bin.index.json": b"{}"}, tmp_path)
    fetched = fetch_checkpoint(MODEL, cache_dir=cache)
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
    hub: HubServer, cache: Path, tmp_path: Path, weights: dict[str, bytes]
) -> None:
    files = {name: PLAIN[name] for name in ("config.json", "tokenizer.json")} | weights
    push(hub, files | {"tf_model.h5": b"", "onnx/model.onnx": b""}, tmp_path)
    assert contents(fetch_checkpoint(MODEL, cache_dir=cache).folder) == files


def test_a_transformer_in_a_folder_of_its_own(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    modules = [{"path": "0_Transformer", "type": "models.Transformer"}, {"path": "1_Pooling/", "type": "Pooling"}]
    files = {f"0_Transformer/{name}": content for name, content in PLAIN.items()}
    files |= {"modules.json": json.dumps(modules).encode(), "1_Pooling/config.json": b"{}"}
    push(hub, files | {"pytorch_model.bin": b"", "0_Transformer/tf_model.h5": b""}, tmp_path)
    assert contents(fetch_checkpoint(MODEL, cache_dir=cache).folder) == files


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_repository_that_is_no_checkpoint_is_an_error(hub: HubServer, cache: Path, tmp_path: Path, lost: str) -> None:
    push(hub, {name: content for name, content in PLAIN.items() if name != lost}, tmp_path)
    with pytest.raises(ModelFilesError, match=rf"{MODEL} at [0-9a-f]+ has no {lost}$"):
        fetch_checkpoint(MODEL, cache_dir=cache)


def test_an_index_that_names_an_absent_shard_is_an_error(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    lost = sorted(SHARDS)[0]
    push(hub, {name: content for name, content in SHARDED.items() if name != lost}, tmp_path)
    with pytest.raises(ModelFilesError, match=f"{MODEL} at main has no {lost}"):
        fetch_checkpoint(MODEL, cache_dir=cache)


@pytest.mark.parametrize("broken", ["model.safetensors.index.json", "modules.json"])
def test_files_that_name_others_must_be_readable(hub: HubServer, cache: Path, tmp_path: Path, broken: str) -> None:
    push(hub, SHARDED | {broken: b"{]"}, tmp_path)
    with pytest.raises(ModelFilesError, match=rf"{broken} is not the {broken} of a model: JSONDecodeError"):
        fetch_checkpoint(MODEL, cache_dir=cache)


def test_a_branch_means_its_newest_commit(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    push(hub, PLAIN, tmp_path)
    old = fetch_checkpoint(MODEL, cache_dir=cache)
    hub.requests.clear()
    assert fetch_checkpoint(MODEL, cache_dir=cache) == old
    assert hub.requests == [f"GET /api/models/{MODEL}/revision/main"]
    commit = push(hub, PLAIN | {"config.json": b'{"model_type": "new"}'}, tmp_path)
    hub.requests.clear()
    assert fetch_checkpoint(MODEL, cache_dir=cache).revision == commit
    assert hub.downloaded() == ["config.json"]


@pytest.mark.parametrize("files", [CHECKPOINT, SHARDED], ids=["modules", "plain"])
def test_a_cached_commit_asks_nothing(hub: HubServer, cache: Path, tmp_path: Path, files: dict[str, bytes]) -> None:
    commit = push(hub, files, tmp_path)
    first = fetch_checkpoint(MODEL, revision=commit, cache_dir=cache)
    hub.requests.clear()
    assert fetch_checkpoint(MODEL, revision=commit, cache_dir=cache) == first
    assert hub.requests == []


def test_a_commit_that_another_program_cached_in_part_is_completed(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    commit = push(hub, CHECKPOINT, tmp_path)
    for name in PLAIN:
        hf_hub_download(MODEL, name, revision=commit, cache_dir=cache)
    assert contents(fetch_checkpoint(MODEL, revision=commit, cache_dir=cache).folder) == CHECKPOINT


def test_a_snapshot_of_another_program_serves_offline(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    push(hub, CHECKPOINT | UNWANTED, tmp_path)
    folder = snapshot_download(MODEL, cache_dir=cache)
    hub.requests.clear()
    fetched = fetch_checkpoint(MODEL, cache_dir=cache, local_files_only=True)
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
    hub: HubServer, cache: Path, tmp_path: Path, files: dict[str, bytes], lost: str
) -> None:
    push(hub, files, tmp_path)
    fetched = fetch_checkpoint(MODEL, cache_dir=cache)
    (fetched.folder / lost).unlink()
    with pytest.raises(HubError, match=rf"local_files_only.* has no {lost} of {MODEL} at main"):
        fetch_checkpoint(MODEL, cache_dir=cache, local_files_only=True)
    assert fetch_checkpoint(MODEL, revision=fetched.revision, cache_dir=cache) == fetched
    assert contents(fetched.folder) == files


def test_an_empty_cache_is_an_error_offline(hub: HubServer, cache: Path) -> None:
    with pytest.raises(HubError, match=r"has no config\.json, model\.safetensors, tokenizer\.json of org/model"):
        fetch_checkpoint(MODEL, cache_dir=cache, local_files_only=True)
    assert hub.requests == []
    assert not cache.exists()


def test_a_hub_out_of_reach_is_a_warning_with_a_complete_copy(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    push(hub, CHECKPOINT, tmp_path)
    first = fetch_checkpoint(MODEL, cache_dir=cache)
    hub.status = 500
    with pytest.warns(UserWarning, match=f"could not reach {hub.url} .*500.*; using the cached copy") as warned:
        assert fetch_checkpoint(MODEL, cache_dir=cache) == first
    assert len(warned) == 1
    assert warned[0].filename == __file__


def test_a_read_only_cache_serves(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is read-only to root")
    push(hub, PLAIN, tmp_path)
    first = fetch_checkpoint(MODEL, cache_dir=cache)
    (cache / "models--org--model/refs/main").unlink()
    folders = [cache, *(path for path in cache.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    try:
        assert fetch_checkpoint(MODEL, cache_dir=cache) == first
    finally:
        for folder in folders:
            folder.chmod(0o700)


# Damage


def test_a_wrong_hash_is_an_error_and_the_file_is_downloaded_again(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    push(hub, CHECKPOINT, tmp_path)
    hub.corrupted = {"model.safetensors"}
    with pytest.raises(IntegrityError, match=r"model\.safetensors of org/model is damaged \(sha256 \w{64} instead of"):
        fetch_checkpoint(MODEL, cache_dir=cache)
    with pytest.raises(HubError, match=r"has no"):
        fetch_checkpoint(MODEL, cache_dir=cache, local_files_only=True)
    hub.corrupted.clear()
    assert contents(fetch_checkpoint(MODEL, cache_dir=cache).folder) == CHECKPOINT


def test_damage_in_the_cache_is_found(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    commit = push(hub, CHECKPOINT, tmp_path)
    weights = fetch_checkpoint(MODEL, cache_dir=cache).folder / "2_Dense/model.safetensors"
    weights.write_bytes(bytes(10_000))
    with pytest.raises(IntegrityError, match=r"2_Dense/model\.safetensors"):
        fetch_checkpoint(MODEL, revision=commit, cache_dir=cache)
    assert contents(fetch_checkpoint(MODEL, revision=commit, cache_dir=cache).folder) == CHECKPOINT


def test_a_blob_in_a_shared_store_is_hashed_by_its_own_name(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    """Newer caches link blobs to a store whose files are named by another hash of 64 digits."""
    push(hub, PLAIN, tmp_path)
    fetched = fetch_checkpoint(MODEL, cache_dir=cache)
    blob = (fetched.folder / "model.safetensors").resolve()
    stored = cache / "blobs/ab" / ("ab" * 32)
    stored.parent.mkdir(parents=True)
    blob.rename(stored)
    blob.symlink_to(stored)
    assert fetch_checkpoint(MODEL, cache_dir=cache) == fetched
    stored.write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        fetch_checkpoint(MODEL, cache_dir=cache)
    assert not stored.exists()
    assert contents(fetch_checkpoint(MODEL, cache_dir=cache).folder) == PLAIN


def test_a_broken_connection_is_resumed(
    hub: HubServer, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    push(hub, PLAIN, tmp_path)
    hub.cut_at = {"model.safetensors": 100_000}
    hub.cuts = 1
    assert contents(fetch_checkpoint(MODEL, cache_dir=cache).folder) == PLAIN
    assert hub.ranges == ["bytes=100000-"]


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "2_Dense/model.safetensors"])
def test_an_interrupted_download_is_not_complete_and_can_be_repeated(
    hub: HubServer, cache: Path, tmp_path: Path, file: str
) -> None:
    push(hub, CHECKPOINT, tmp_path)
    hub.cut_at = {file: len(CHECKPOINT[file]) // 2}
    with pytest.raises(HubError, match=rf"could not get the {file} of {MODEL} from {hub.url}") as caught:
        fetch_checkpoint(MODEL, cache_dir=cache)
    assert "\n" not in str(caught.value)
    with pytest.raises(HubError, match="has no"):
        fetch_checkpoint(MODEL, cache_dir=cache, local_files_only=True)
    hub.cut_at = {}
    assert contents(fetch_checkpoint(MODEL, cache_dir=cache).folder) == CHECKPOINT


def test_an_interrupted_update_leaves_the_older_copy(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    push(hub, PLAIN, tmp_path)
    old = fetch_checkpoint(MODEL, cache_dir=cache)
    push(hub, PLAIN | {"model.safetensors": os.urandom(200_000)}, tmp_path)
    hub.cut_at = {"model.safetensors": 1_000}
    with pytest.raises(HubError):
        fetch_checkpoint(MODEL, cache_dir=cache)
    assert fetch_checkpoint(MODEL, cache_dir=cache, local_files_only=True) == old


def test_fetch_after_an_interruption(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    push(hub, ARTIFACT, tmp_path)
    hub.cut_at = {"onnx/model.onnx": 1_000}
    with pytest.raises(HubError, match=r"could not get the onnx/model\.onnx"):
        fetch(MODEL, wanted=list(ARTIFACT), cache_dir=cache)
    hub.cut_at = {}
    assert contents(fetch(MODEL, wanted=list(ARTIFACT), cache_dir=cache).folder) == ARTIFACT


# What the hub refuses


def both(cache: Path, model: str = MODEL, revision: str | None = None) -> list[OnnxEmbedError]:
    """The errors of both functions; each must be one line that huggingface_hub's error explains."""
    errors = []
    attempts: list[Callable[[], Fetched]] = [
        lambda: fetch(model, wanted=["config.json"], revision=revision, cache_dir=cache),
        lambda: fetch_checkpoint(model, revision=revision, cache_dir=cache),
    ]
    for attempt in attempts:
        with pytest.raises(OnnxEmbedError) as caught:
            attempt()
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is not None
        errors.append(caught.value)
    return errors


@pytest.mark.parametrize("token", [None, "hf_stranger"])
@pytest.mark.parametrize("model", ["gpt2", "org/absent"])
def test_an_unknown_model(
    hub: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, model: str
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    for error in both(cache, model):
        assert isinstance(error, HubError)
        assert f"no folder '{model}' here and no such model on {hub.url}" in str(error)
        assert "HF_TOKEN" in str(error)


def test_an_unknown_revision(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    push(hub, PLAIN, tmp_path)
    for revision in ("v9", ABSENT_COMMIT):
        for error in both(cache, revision=revision):
            assert isinstance(error, HubError)
            assert f"{MODEL} has no revision '{revision}' on {hub.url}" in str(error)


@pytest.mark.parametrize("token", [None, "hf_stranger"])
def test_a_gated_model(
    hub: HubServer, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    push(hub, PLAIN, tmp_path)
    hub.gated = {MODEL}
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    for error in both(cache):
        assert isinstance(error, HubError)
        assert f"{MODEL} is gated or private" in str(error)
        assert f"accept the model's terms at {hub.url}/{MODEL}" in str(error)


@pytest.mark.parametrize("status", [401, 403])
def test_a_plain_refusal(hub: HubServer, cache: Path, status: int) -> None:
    hub.status = status
    for error in both(cache):
        assert isinstance(error, HubError)
        assert f"{MODEL} is gated or private (out of order): set HF_TOKEN" in str(error)


def test_a_private_model_needs_its_token(
    hub: HubServer, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(hub, PLAIN, tmp_path)
    hub.tokens[MODEL] = "hf_secret"
    for error in both(cache):
        assert "if it is private, set HF_TOKEN or run `hf auth login`" in str(error)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert contents(fetch_checkpoint(MODEL, cache_dir=cache).folder) == PLAIN


def test_a_hub_that_goes_away_halfway(
    hub: HubServer, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi, ModelInfo

    ask = HfApi.model_info

    def last_answer(self: HfApi, repo_id: str, *, revision: str, timeout: float) -> ModelInfo:
        hub.status = None
        info = ask(self, repo_id, revision=revision, timeout=timeout)
        hub.status = 503
        return info

    push(hub, PLAIN, tmp_path)
    monkeypatch.setattr(HfApi, "model_info", last_answer)
    for error in both(cache):
        assert isinstance(error, HubError)
        assert str(error).startswith(f"could not get the config.json of {MODEL} from {hub.url} (")
        assert "503" in str(error)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_out_of_order(hub: HubServer, cache: Path, status: int) -> None:
    hub.status = status
    for error in both(cache):
        assert isinstance(error, HubError)
        assert f"could not reach {hub.url} (" in str(error)
        assert str(status) in str(error)


def test_a_hub_that_is_not_there(nowhere: str, cache: Path) -> None:
    for error in both(cache):
        assert isinstance(error, HubError)
        assert str(error).startswith(f"no folder {MODEL} here; ")
        assert f"could not reach {nowhere} (ConnectError: " in str(error)
        assert "has no config.json" in str(error)


def test_a_hub_that_is_slow(hub: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.05)
    hub.delay = 0.3
    for error in both(cache):
        assert f"could not reach {hub.url} (ReadTimeout: " in str(error)


def test_an_endpoint_that_is_no_hub(hub: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"{hub.url}/elsewhere")
    for error in both(cache):
        assert isinstance(error, HubError)
        assert f"no such model on {hub.url}/elsewhere" in str(error)


# The environment, which huggingface_hub reads when it is imported


def run(code: str, *arguments: object, **environment: str) -> str:
    """Run code in a fresh interpreter, which must print what it found and warn of nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        env={name: value for name, value in os.environ.items() if not name.startswith("HF_")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_environment_is_honoured(hub: HubServer, tmp_path: Path) -> None:
    push(hub, CHECKPOINT, tmp_path)
    hub.tokens[MODEL] = "hf_secret"
    home = tmp_path / "home"
    environment = {"HF_HOME": str(home), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    code = "import sys; from onnxembed import hub; print(hub.fetch_checkpoint(sys.argv[1]).folder)"
    folder = Path(run(code, MODEL, HF_TOKEN="hf_secret", **environment))
    assert folder == home / "hub/models--org--model/snapshots" / hub.commit(MODEL)
    assert contents(folder) == CHECKPOINT
    assert hub.authorizations == {"Bearer hf_secret"}
    hub.requests.clear()
    assert Path(run(code, MODEL, HF_HUB_OFFLINE="1", **environment)) == folder
    assert hub.requests == []


def test_offline_mode_says_what_the_cache_lacks(hub: HubServer, cache: Path) -> None:
    code = (
        "import sys; from onnxembed import hub, errors\n"
        "try: hub.fetch_checkpoint(sys.argv[1])\n"
        "except errors.HubError as error: print(error)"
    )
    said = run(code, MODEL, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(cache), HF_ENDPOINT=hub.url)
    assert "HF_HUB_OFFLINE" in said
    assert f"the cache {cache} has no config.json" in said
    assert hub.requests == []
