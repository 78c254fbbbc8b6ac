"""Fetching a local folder, or named files of a model on the hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hub_files import ARTIFACT, MODEL, PLAIN, UNWANTED, contents, fetch, names, push, run, write
from hub_server import HubServer
from onnxembed.errors import HubError, ModelFilesError, UsageError
from onnxembed.hub.checkpoint_files import fetch_checkpoint
from onnxembed.hub.model_files import is_local, open_model_files
from onnxembed.hub.source import Fetched, HubOptions

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
def test_a_name_that_can_only_be_a_path_is_local(model: str | Path, local: bool) -> None:
    assert is_local(model) is local


def test_an_existing_path_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert fetch(model, HubOptions(), wanted=list(ARTIFACT), optional=["absent.json"]) == expected
    assert fetch_checkpoint(model) == expected


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "model", ARTIFACT)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch_checkpoint("~/model").folder == tmp_path / "model"


def test_a_folder_that_lacks_wanted_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"model has no a\.json, b\.json$"):
        fetch(write(tmp_path / "model", ARTIFACT), HubOptions(), wanted=["a.json", "onnxembed.json", "b.json"])


def test_paths_that_cannot_be_a_model_are_errors(tmp_path: Path) -> None:
    file = write(tmp_path, ARTIFACT) / "onnx/model.onnx"
    with pytest.raises(UsageError, match=r"no folder at .*absent"):
        fetch_checkpoint(tmp_path / "absent")
    with pytest.raises(UsageError, match=r"^the model is None, not a path or a hub id$"):
        fetch_checkpoint(None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is a file; give the folder"):
        fetch(str(file), HubOptions(), wanted=["onnxembed.json"])
    with pytest.raises(UsageError, match="has no revision 'v1'"):
        fetch_checkpoint(tmp_path, HubOptions(revision="v1"))


@pytest.mark.parametrize("model", ["", "name/", "two words", "org/na:me", "a--b", "org/.name", "org/name.git", "ä"])
def test_a_name_that_is_neither_a_path_nor_an_id_is_an_error(hub: HubServer, cached: HubOptions, model: str) -> None:
    with pytest.raises(UsageError, match="neither a folder nor the name of a model"):
        fetch_checkpoint(model, cached)
    assert hub.requests == []


def test_a_local_folder_imports_no_hub_library(tmp_path: Path) -> None:
    write(tmp_path, ARTIFACT)
    run(
        "import sys; from onnxembed.hub import checkpoint_files, model_files, source; "
        "model_files.open_model_files(sys.argv[1], source.HubOptions()).get(['onnxembed.json']); "
        "checkpoint_files.fetch_checkpoint(sys.argv[1]); assert 'huggingface_hub' not in sys.modules",
        tmp_path,
    )


# Files by name


def test_fetch_downloads_the_named_files_and_no_others(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    commit = push(hub, UNWANTED | ARTIFACT, tmp_path)
    fetched = fetch(MODEL, cached, wanted=list(ARTIFACT))
    assert (fetched.model, fetched.revision) == (MODEL, commit)
    assert contents(fetched.folder) == ARTIFACT
    assert sorted(hub.downloaded()) == sorted(ARTIFACT)


@pytest.mark.parametrize("revision", [None, "main", "v1"])
def test_a_branch_or_tag_is_asked_for_once_whenever_a_model_is_opened(
    hub: HubServer, cached: HubOptions, tmp_path: Path, revision: str | None
) -> None:
    cached, name = replace(cached, revision=revision), revision or "main"
    push(hub, ARTIFACT, tmp_path, name)
    first = fetch(MODEL, cached, wanted=list(ARTIFACT), optional=["absent.json"])
    hub.requests.clear()
    assert fetch(MODEL, cached, wanted=list(ARTIFACT), optional=["absent.json"]) == first
    assert hub.requests == [f"GET /api/models/{MODEL}/revision/{name}"]
    commit = push(hub, ARTIFACT | {"onnxembed.json": b'{"newer": 1}'}, tmp_path, name)
    hub.requests.clear()
    second = fetch(MODEL, cached, wanted=list(ARTIFACT), optional=["absent.json"])
    assert second.revision == commit
    assert contents(second.folder) == ARTIFACT | {"onnxembed.json": b'{"newer": 1}'}
    assert hub.downloaded() == ["onnxembed.json"]


def test_nothing_is_asked_for_a_cached_commit_or_if_that_is_forbidden(
    hub: HubServer, cached: HubOptions, tmp_path: Path
) -> None:
    commit = push(hub, ARTIFACT, tmp_path)
    first = fetch(MODEL, cached, wanted=list(ARTIFACT), optional=["absent.json"])
    hub.requests.clear()
    for options in (replace(cached, revision=commit), replace(cached, local_files_only=True)):
        assert fetch(MODEL, options, wanted=list(ARTIFACT), optional=["absent.json"]) == first
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
        fetched = fetch(MODEL, HubOptions(revision=revision, cache_dir=cache), wanted=["onnxembed.json"])
        assert fetched.revision == commit
        assert (fetched.folder / "onnxembed.json").read_bytes() == content


def test_a_name_without_an_organization_is_an_id(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    commit = hub.push("gpt2", write(tmp_path / "source", PLAIN))
    assert fetch("gpt2", cached, wanted=["config.json"]) == fetch_checkpoint("gpt2", cached)
    assert fetch_checkpoint("gpt2", cached).revision == commit


def test_fetch_names_all_missing_files_before_downloading(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    push(hub, ARTIFACT, tmp_path)
    with pytest.raises(ModelFilesError, match=rf"{MODEL} at [0-9a-f]+ has no a\.json, b\.json"):
        fetch(MODEL, cached, wanted=[*ARTIFACT, "a.json", "b.json"])
    assert hub.downloaded() == []


def test_fetch_remembers_that_an_optional_file_is_absent(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    push(hub, ARTIFACT, tmp_path)
    optional = ["tokenizer.json", "1_Pooling/config.json"]
    first = fetch(MODEL, cached, wanted=["onnxembed.json"], optional=optional)
    assert names(first) == {"onnxembed.json", "tokenizer.json"}
    hub.requests.clear()
    commit = replace(cached, revision=first.revision)
    assert fetch(MODEL, commit, wanted=["onnxembed.json"], optional=optional) == first
    assert hub.requests == []


def test_an_optional_file_is_looked_for_beside_the_cached_ones(
    hub: HubServer, cached: HubOptions, tmp_path: Path
) -> None:
    commit = push(hub, ARTIFACT, tmp_path)
    first = fetch(MODEL, cached, wanted=["onnxembed.json"])
    push(hub, ARTIFACT | {"tokenizer.json": b"newer"}, tmp_path)
    with pytest.warns(UserWarning, match=r"cache does not say whether org/model has tokenizer\.json; taken as absent"):
        offline = fetch(
            MODEL,
            replace(cached, local_files_only=True),
            wanted=["onnxembed.json"],
            optional=["tokenizer.json"],
        )
    assert offline == first
    assert names(offline) == {"onnxembed.json"}
    second = fetch(MODEL, replace(cached, revision=commit), wanted=["onnxembed.json"], optional=["tokenizer.json"])
    assert second == first
    assert (second.folder / "tokenizer.json").read_bytes() == ARTIFACT["tokenizer.json"]


def test_without_a_network_the_cache_serves_which_is_said_once(
    hub: HubServer, cached: HubOptions, tmp_path: Path
) -> None:
    push(hub, ARTIFACT, tmp_path)
    first = fetch(MODEL, cached, wanted=["onnxembed.json"], optional=["tokenizer.json"])
    hub.status = 503
    hub.requests.clear()
    with pytest.warns(UserWarning, match=r"is busy .503 .*; using the cached copy of org/model") as said:
        files = open_model_files(MODEL, cached)
    files.get(["onnxembed.json"], ["tokenizer.json"])
    assert files.first(["onnxembed.json"]) == "onnxembed.json"
    assert (files.folder, files.revision) == (first.folder, first.revision)
    assert len(said) == 1
    assert len(hub.requests) == 1


def test_fetch_offline_without_the_files_is_an_error(
    hub: HubServer, cache: Path, cached: HubOptions, tmp_path: Path
) -> None:
    push(hub, ARTIFACT, tmp_path)
    fetch(MODEL, cached, wanted=["onnxembed.json"])
    hub.requests.clear()
    with pytest.raises(HubError, match=r"local_files_only.*cache .* has no tokenizer\.json of org/model at main"):
        fetch(MODEL, replace(cached, local_files_only=True), wanted=["onnxembed.json", "tokenizer.json"])
    with pytest.raises(HubError, match=r"has no copy of org/model at v1"):
        fetch(MODEL, replace(cached, revision="v1", local_files_only=True), wanted=["onnxembed.json"])
    assert hub.requests == []
