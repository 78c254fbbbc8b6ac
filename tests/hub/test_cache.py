"""Requests that the hub refuses, and settings from the environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hub_files import ABSENT_COMMIT, CHECKPOINT, MODEL, PLAIN, contents, fetch, push, run
from hub_server import HubServer
from onnxembed.errors import HubError, NetworkError, OnnxEmbedError
from onnxembed.hub.checkpoint_files import fetch_checkpoint
from onnxembed.hub.source import Fetched, HubOptions

# What the hub refuses


def both(cache: Path, model: str = MODEL, revision: str | None = None) -> list[OnnxEmbedError]:
    """The errors of both functions; each must be one line that huggingface_hub's error explains."""
    errors = []
    attempts: list[Callable[[], Fetched]] = [
        lambda: fetch(model, HubOptions(revision=revision, cache_dir=cache), wanted=["config.json"]),
        lambda: fetch_checkpoint(model, HubOptions(revision=revision, cache_dir=cache)),
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
        assert type(error) is HubError
        assert f"no folder '{model}' here and no such model on {hub.url}" in str(error)
        assert "HF_TOKEN" in str(error)


def test_an_unknown_revision(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    push(hub, PLAIN, tmp_path)
    for revision in ("v9", ABSENT_COMMIT):
        for error in both(cache, revision=revision):
            assert type(error) is HubError
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
def test_a_refusal_without_an_explanation(hub: HubServer, cache: Path, status: int) -> None:
    hub.status = status
    for error in both(cache):
        assert isinstance(error, HubError)
        assert f"{MODEL} is gated or private (out of order): set HF_TOKEN" in str(error)


def test_a_private_model_needs_its_token(
    hub: HubServer, cache: Path, cached: HubOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(hub, PLAIN, tmp_path)
    hub.tokens[MODEL] = "hf_secret"
    for error in both(cache):
        assert "if it is private, set HF_TOKEN or run `hf auth login`" in str(error)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert contents(fetch_checkpoint(MODEL, cached).folder) == PLAIN


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
        assert isinstance(error, NetworkError)
        assert str(error).startswith(f"could not get the config.json of {MODEL} from {hub.url} (")
        assert "503" in str(error)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_answers_with_a_server_error(hub: HubServer, cache: Path, status: int) -> None:
    hub.status = status
    for error in both(cache):
        assert isinstance(error, NetworkError)
        assert f"could not reach {hub.url} (" in str(error)
        assert str(status) in str(error)


def test_a_hub_that_is_not_there(nowhere: str, cache: Path) -> None:
    for error in both(cache):
        assert isinstance(error, NetworkError)
        assert str(error).startswith(f"no folder {MODEL} here; ")
        assert f"could not reach {nowhere} (ConnectError: " in str(error)
        assert f"has no copy of {MODEL} at main" in str(error)


def test_a_hub_that_is_slow(hub: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.05)
    hub.delay = 0.3
    for error in both(cache):
        assert f"could not reach {hub.url} (ReadTimeout: " in str(error)


def test_an_endpoint_that_is_not_a_hub_is_an_error(
    hub: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"{hub.url}/elsewhere")
    for error in both(cache):
        assert isinstance(error, HubError)
        assert f"no such model on {hub.url}/elsewhere" in str(error)


# The environment, which huggingface_hub reads when it is imported


def test_the_environment_is_honored(hub: HubServer, tmp_path: Path) -> None:
    push(hub, CHECKPOINT, tmp_path)
    hub.tokens[MODEL] = "hf_secret"
    home = tmp_path / "home"
    environment = {"HF_HOME": str(home), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    code = "import sys; from onnxembed.hub.checkpoint_files import fetch_checkpoint as f; print(f(sys.argv[1]).folder)"
    folder = Path(run(code, MODEL, HF_TOKEN="hf_secret", **environment))
    assert folder == home / "hub/models--org--model/snapshots" / hub.commit(MODEL)
    assert contents(folder) == CHECKPOINT
    assert hub.authorizations == {"Bearer hf_secret"}
    hub.requests.clear()
    assert Path(run(code, MODEL, HF_HUB_OFFLINE="1", **environment)) == folder
    assert hub.requests == []


def test_offline_mode_says_what_the_cache_lacks(hub: HubServer, cache: Path) -> None:
    code = (
        "import sys; from onnxembed import errors; from onnxembed.hub import checkpoint_files\n"
        "try: checkpoint_files.fetch_checkpoint(sys.argv[1])\n"
        "except errors.HubError as error: print(error)"
    )
    printed = run(code, MODEL, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(cache), HF_ENDPOINT=hub.url)
    assert "HF_HUB_OFFLINE" in printed
    assert f"the cache {cache} has no copy of {MODEL} at main" in printed
    assert hub.requests == []
