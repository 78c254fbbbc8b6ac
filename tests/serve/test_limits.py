"""Keys, limits and what is said beyond them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msgspec", reason="pip install 'onnxembed[serve]'")

from onnxembed.errors import UsageError
from onnxembed.serve import ModelSource, QueueLimits, Settings, app
from onnxembed.serve.admission import Admission
from onnxembed.serve.errors import Refusal


def client_with(model: Path, **settings: Any) -> Any:
    from starlette.testclient import TestClient

    application = app(settings=Settings(models=[ModelSource(str(model), "tiny")], **settings))
    return TestClient(application, raise_server_exceptions=False)


def test_a_key_is_asked_for_everywhere_but_at_health_and_metrics(artifact: Path) -> None:
    with client_with(artifact, api_keys=["one", "two"]) as client:
        for headers in ({}, {"authorization": "Bearer three"}, {"authorization": "Bearer "}):
            answer = client.post("/v1/embeddings", json={"input": "a"}, headers=headers)
            assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")
        for shown in ("Bearer one", "bearer two", "two"):
            assert client.post("/embed", json={"inputs": "a"}, headers={"authorization": shown}).status_code == 200
        assert client.get("/info").status_code == 401
        for path in ("/health", "/metrics", "/"):
            assert client.get(path).status_code == 200


def test_behind_a_proxy_that_takes_a_path_away_the_same_paths_need_no_key(artifact: Path) -> None:
    from starlette.testclient import TestClient

    with client_with(artifact, api_keys=["one"]) as client:
        behind = TestClient(client.app, root_path="/models")
        assert [behind.get(f"/models{path}").status_code for path in ("/health", "/info")] == [200, 401]
        answer = behind.post("/models/embed", json={"inputs": "a"}, headers={"authorization": "Bearer one"})
        assert answer.status_code == 200


def test_pages_of_other_origins_may_read_answers_and_refusals(artifact: Path) -> None:
    page = {"origin": "https://a.example"}
    with client_with(artifact) as client:
        for body in ({"inputs": "a"}, {"inputs": 1}):
            answer = client.post("/embed", json=body, headers=page)
            assert answer.headers["access-control-allow-origin"] == "*"
        assert client.get("/info").headers["vary"] == "Origin"  # it may be cached
        assert "vary" not in client.post("/embed", json={"inputs": "a"}).headers
    with client_with(artifact, cors_origins=["https://b.example"]) as client:
        assert "access-control-allow-origin" not in client.post("/embed", json={"inputs": "a"}, headers=page).headers


def test_a_request_has_its_place_while_it_is_computed(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with client_with(artifact, limits=QueueLimits(requests=1)) as client:
        service = client.app.state.service
        compute, seen = service.scheduler.compute, []

        async def computing(*arguments: Any) -> Any:
            try:
                service.admission.check()
            except Refusal as refusal:
                seen.append(refusal.kind)
            return await compute(*arguments)

        monkeypatch.setattr(service.scheduler, "compute", computing)
        for _ in range(2):
            assert client.post("/embed", json={"inputs": "a"}).status_code == 200
        assert seen == ["overloaded"] * 2
        with service.admission.request():  # others are refused before they send their bodies
            answer = client.post("/embed", content=b"{", headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["error_type"], answer.headers["retry-after"]) == (
            429,
            "Overloaded",
            "1",
        )


def test_a_large_body_is_refused_while_it_arrives(artifact: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"inputs": "'
        for _ in range(100):
            yield b"a" * 100

    with client_with(artifact, payload_limit=1000) as client:
        kind = {"content-type": "application/json"}
        assert client.post("/embed", content=pieces(), headers=kind).status_code == 413
        assert client.post("/embed", content=b" " * 1001, headers=kind).status_code == 413
        assert client.post("/embed", json={"inputs": "a"}).status_code == 200


def test_slow_bodies_hold_bytes_and_no_places_of_others() -> None:
    settings = Settings(models=[], limits=QueueLimits(requests=1), payload_limit=100, body_seconds=20)
    admission = Admission(settings, lambda: 7)

    async def slowly(size: int) -> bytes:
        arrived = [{"type": "http.request", "body": b"a" * size, "more_body": True}]

        async def receive() -> Any:
            if not arrived:
                await asyncio.Event().wait()
            return arrived.pop()

        return await admission.body(receive)

    async def crowded() -> None:
        async with asyncio.timeout(10):
            slow = [asyncio.create_task(slowly(100)) for _ in range(8)]
            await asyncio.sleep(0)
            with pytest.raises(Refusal) as refused:
                await slowly(1)
            assert (refused.value.status, refused.value.retry_after) == (429, 7)
            slow.pop().cancel()
            await asyncio.sleep(0)
            with admission.request(), pytest.raises(Refusal):
                admission.check()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(slowly(100), 0.05)
            with admission.request():
                pass
            for each in slow:
                each.cancel()

    asyncio.run(crowded())


def test_more_texts_than_may_wait_are_refused(artifact: Path) -> None:
    with client_with(artifact, limits=QueueLimits(texts=3)) as client:
        answer = client.post("/embed", json={"inputs": ["a", "b", "c", "d"]})
        assert (answer.status_code, answer.json()["error"]) == (422, "batch size 4 > maximum allowed batch size 3")
        assert client.post("/embed", json={"inputs": ["a", "b", "c"]}).status_code == 200


def test_a_length_that_is_asked_for_cuts_where_the_server_cuts_nothing_else(artifact: Path) -> None:
    asked = {"input": "the cat " * 40, "model": "tiny"}
    with client_with(artifact, auto_truncate=False) as client:
        assert client.post("/v1/embeddings", json=asked).status_code == 422
        answer = client.post("/v1/embeddings", json={**asked, "truncate_prompt_tokens": 4})
        assert answer.json()["usage"]["prompt_tokens"] == 4


@pytest.mark.parametrize("path", ["/embed", "/tokenize"])
def test_a_text_that_would_keep_the_tokenizer_is_refused(artifact: Path, path: str) -> None:
    with client_with(artifact) as client:
        answer = client.post(path, json={"inputs": "a" * (2**20 + 1)})
        assert (answer.status_code, answer.json()["error_type"]) == (422, "Validation")
        assert "1048577 characters; split it" in answer.json()["error"]


def test_a_request_is_logged_without_its_texts(artifact: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "onnxembed.serve")
    with client_with(artifact, log_requests=True) as client:
        client.post("/embed", json={"inputs": "secret"}, headers={"traceparent": "00-ab-cd-01"})
    (line,) = [record.message for record in caplog.records if record.name == "onnxembed.serve"]
    assert '"status":200' in line
    assert "00-ab-cd-01" in line
    assert "secret" not in line


def test_names_that_cannot_be_meant_are_refused(artifact: Path) -> None:
    with pytest.raises(UsageError, match="two models are called 'a'"):
        app(f"a={artifact}", f"a={artifact}")
    with pytest.raises(UsageError, match="the default is 'b', which is not served; served are: tiny"):
        client_with(artifact, default="b")
    with pytest.raises(UsageError, match="name the models to serve"):
        app()
