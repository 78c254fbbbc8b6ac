"""Requests that the hub refuses, and settings from the environment."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest

from hub_files import ABSENT_COMMIT, CHECKPOINT, MODEL, PLAIN, contents, fetch, push, run, write
from hub_server import HubServer
from models.hub_server import Handler
from onnxembed.errors import HubError, NetworkError, OnnxEmbedError, UsageError
from onnxembed.hub.checkpoint_files import fetch_checkpoint
from onnxembed.hub.model_files import open_model_files
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
        assert f"{hub.url} is busy ({status} " in str(error)


@pytest.mark.hub
def test_a_hub_that_is_not_there_is_not_waited_for(nowhere: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    for error in both(cache):
        assert waits == []
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


# A hub that is busy, slow, or elsewhere


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch, hub: HubServer) -> list[float]:
    """The seconds that were waited, one by one; no time passes."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_hub_is_asked_again(
    hub: HubServer, cached: HubOptions, tmp_path: Path, waits: list[float], status: int
) -> None:
    commit = push(hub, PLAIN, tmp_path)
    hub.refusals = [(status, {})] * 3
    assert fetch_checkpoint(MODEL, cached).revision == commit
    assert waits == [1, 2, 4]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"ratelimit": '"api";r=0;t=9'}, 9),
        ({"Retry-After": "0"}, 1),
        ({"Retry-After": "soon"}, 1),
    ],
)
def test_a_busy_hub_says_how_long_to_wait(
    hub: HubServer, cache: Path, waits: list[float], headers: dict[str, str], seconds: int
) -> None:
    hub.push(MODEL, write(cache.with_name("source"), PLAIN))
    hub.refusals = [(429, headers)]
    cached = HubOptions(cache_dir=cache)
    said = pytest.warns(UserWarning, match=f"asks to wait {seconds} seconds") if seconds > 1 else nullcontext()
    with said:
        fetch_checkpoint(MODEL, cached)
    assert waits == [seconds]


def test_a_date_to_wait_for_is_understood(
    hub: HubServer, cached: HubOptions, tmp_path: Path, waits: list[float]
) -> None:
    push(hub, PLAIN, tmp_path)
    hub.refusals = [(503, {"Retry-After": formatdate(time.time() + 20, usegmt=True)})]
    with pytest.warns(UserWarning, match=r"asks to wait (19|20) seconds"):
        fetch_checkpoint(MODEL, cached)


def test_a_hub_that_asks_for_a_long_wait_is_not_waited_for(
    hub: HubServer, cached: HubOptions, waits: list[float]
) -> None:
    hub.refusals = [(429, {"Retry-After": "3600"})] * 10
    with pytest.raises(NetworkError, match=r"is busy \(429 Too Many Requests; it asks to wait 3600 seconds\)"):
        fetch_checkpoint(MODEL, cached)
    assert waits == []
    assert len(hub.requests) == 1


def test_a_hub_that_stays_busy_is_given_up(hub: HubServer, cached: HubOptions, waits: list[float]) -> None:
    hub.status = 503
    with pytest.raises(NetworkError, match=r"is busy \(503 Service Unavailable\)"):
        fetch_checkpoint(MODEL, cached)
    assert waits == [1, 2, 4, 8]


def test_a_busy_hub_is_not_waited_for_where_the_cache_serves(
    hub: HubServer, cached: HubOptions, tmp_path: Path, waits: list[float]
) -> None:
    push(hub, PLAIN, tmp_path)
    first = fetch_checkpoint(MODEL, cached)
    hub.refusals = [(429, {"Retry-After": "7"})]
    with pytest.warns(UserWarning, match="using the cached copy"):
        assert fetch_checkpoint(MODEL, cached) == first
    assert waits == []


def test_downloads_of_a_busy_hub_are_tried_again(
    hub: HubServer, cached: HubOptions, tmp_path: Path, waits: list[float]
) -> None:
    commit = push(hub, PLAIN, tmp_path)
    files = open_model_files(MODEL, cached)
    hub.refusals = [(503, {}), (429, {}), (502, {})]
    files.get(["config.json"])
    assert (files.folder / "config.json").read_bytes() == PLAIN["config.json"]
    assert files.revision == commit


def test_a_hub_that_hangs_costs_seconds_where_the_cache_serves(
    hub: HubServer, cached: HubOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(hub, PLAIN, tmp_path)
    first = fetch_checkpoint(MODEL, cached)
    monkeypatch.setattr("onnxembed.hub.client.QUICK", 0.2)
    hub.delay = 5
    start = time.monotonic()
    with pytest.warns(UserWarning, match=r"could not reach .* \(ReadTimeout.*; using the cached copy"):
        assert fetch_checkpoint(MODEL, cached) == first
    assert time.monotonic() - start < 4


def test_a_machine_without_sockets_uses_the_cache(
    hub: HubServer, cached: HubOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import close_session

    def refuse(*_: object, **__: object) -> socket.socket:
        raise PermissionError(13, "no sockets here")

    push(hub, PLAIN, tmp_path)
    first = fetch_checkpoint(MODEL, cached)
    close_session()
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.warns(UserWarning, match=r"could not reach .*; using the cached copy"):
        assert fetch_checkpoint(MODEL, cached) == first
    assert fetch_checkpoint(MODEL, replace(cached, local_files_only=True)) == first


def test_an_answer_of_something_else_than_a_hub_leaves_the_cached_copy(
    hub: HubServer, cached: HubOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a hotel's login page answers: every request, with 200 and HTML."""
    push(hub, PLAIN, tmp_path)
    first = fetch_checkpoint(MODEL, cached)
    monkeypatch.setattr(Handler, "route", lambda self: self.send(200, b"<html>Please log in</html>"))
    with pytest.warns(UserWarning, match=r"could not get the list of files .*; using the cached copy of org/model"):
        assert fetch_checkpoint(MODEL, cached) == first


def test_a_renamed_model_is_found_by_its_old_name(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    commit = push(hub, PLAIN, tmp_path)
    hub.renamed = {"old/name": MODEL}
    fetched = fetch_checkpoint("old/name", cached)
    assert (fetched.model, fetched.revision) == ("old/name", commit)
    assert contents(fetched.folder) == PLAIN


def test_a_branch_that_was_deleted_is_an_error_and_not_the_cached_copy(
    hub: HubServer, cached: HubOptions, tmp_path: Path
) -> None:
    push(hub, PLAIN, tmp_path, "v1")
    v1 = replace(cached, revision="v1")
    fetch_checkpoint(MODEL, v1)
    del hub.repositories[MODEL].revisions["v1"]
    with pytest.raises(HubError, match="has no revision 'v1'"):
        fetch_checkpoint(MODEL, v1)


@pytest.mark.parametrize("revision", ["", "../../../x", "/etc", "a b", "a\\b", "x/", "a/../../b"])
def test_a_revision_that_is_no_name_is_an_error(hub: HubServer, cached: HubOptions, revision: str) -> None:
    with pytest.raises(UsageError, match="is not the name of a branch or tag"):
        fetch_checkpoint(MODEL, replace(cached, revision=revision))
    assert hub.requests == []


def test_a_saved_token_that_is_not_there_is_an_error(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    push(hub, PLAIN, tmp_path)
    with pytest.raises(UsageError, match=r"token=True asks for the saved token, and there is none: set HF_TOKEN"):
        fetch_checkpoint(MODEL, replace(cached, token=True))


def test_what_a_hub_says_is_one_line_that_a_terminal_does_not_obey(
    hub: HubServer, cached: HubOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Pay\x1b[2J here"}
    hub.refusals = [(403, headers)]
    with pytest.raises(HubError) as caught:
        fetch_checkpoint(MODEL, cached)
    assert str(caught.value).isprintable()
    assert "Pay[2J here" in str(caught.value)


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
