"""Other systems that run now: our own server with other settings, libraries, and servers that misbehave."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed import OnnxEmbedder, UsageError
from onnxembed.decisions.flags import Flags
from onnxembed.errors import MissingExtraError, NetworkError
from onnxembed.explain import System, explain_system
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from running import Run, needs_torch, refused
from tiny import write_sentence_bert
from tiny_embedders import texts_of_many_lengths
from tiny_rerankers import write_cross_encoder

TEXTS = texts_of_many_lengths(12)

Answer = Callable[[str, Any], tuple[int, bytes]]


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """A server on loopback that answers each request with what `answer` makes of its path and JSON; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, content = answer(self.path, json.loads(body or "null"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def our_server(*models: str) -> Iterator[str]:
    """Our own server, with models under other settings, behind a plain HTTP server; its URL."""
    pytest.importorskip("starlette")
    from starlette.testclient import TestClient

    from onnxembed.serve import app

    with TestClient(app(*models), raise_server_exceptions=False) as client:

        def answer(path: str, body: Any) -> tuple[int, bytes]:
            response = client.get(path) if body is None else client.post(path, json=body)
            return response.status_code, response.content

        with serving(answer) as url:
            yield url


@pytest.fixture(scope="module")
def cls_artifact(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The tiny BERT with another pooling, as a careless deployment would have it."""
    folder = tmp_path_factory.mktemp("cls") / "onnx"
    export(checkpoint, folder, Options(flags=Flags(pooling=("cls",), normalize=False)))
    return folder


@pytest.mark.parametrize("kind", ["tei", "openai"])
def test_a_server_with_other_settings_is_explained(artifact: Path, cls_artifact: Path, kind: Any) -> None:
    with our_server(f"tiny={cls_artifact}") as url:
        report = explain_system(artifact, System(kind, url), TEXTS)
    assert report.explained
    assert "pooling" in {cause.name for cause in report.causes}, report.verdict
    system = {"tei": "text-embeddings-inference", "openai": "vLLM"}[kind]
    assert [*report.causes[0].fixes] == [system]


@pytest.mark.parametrize("kind", ["tei", "openai"])
def test_the_same_server_is_the_same(run: Run, artifact: Path, kind: str) -> None:
    with our_server(f"tiny={artifact}") as url:
        code, out, _ = run("explain", artifact, f"--{kind}", url)
        assert (code, out.startswith("The vectors are the same")) == (0, True)
        code, out, _ = run("verify", artifact, "--against", f"{kind}:{url}")
        assert (code, out.startswith("The vectors are the same")) == (0, True)


def test_verify_against_a_server_that_differs_fails_with_the_verdict(
    run: Run, artifact: Path, cls_artifact: Path
) -> None:
    with our_server(f"tiny={cls_artifact}") as url:
        code, out, _ = run("verify", artifact, "--against", f"tei:{url}")
    assert (code, "the first token (CLS)" in out) == (1, True)


BROKEN: dict[str, tuple[Answer, str]] = {
    "an error": (lambda path, body: (500, b"out of memory"), "answered 500 .* out of memory"),
    "a page": (lambda path, body: (200, b"<html>hello</html>"), "did not answer with JSON but with '<html>hello"),
    "too few": (lambda path, body: (200, b"[[1.0, 2.0]]"), "1 entries for 12 texts"),
    "an object": (lambda path, body: (200, b'{"no": 1}'), "answered with dict for 12 texts"),
    "words": (lambda path, body: (200, json.dumps(["a"] * 12).encode()), "something else than vectors"),
    "ragged rows": (lambda path, body: (200, json.dumps([[1.0] * (1 + i % 2) for i in range(12)]).encode()), "length"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_server_that_misbehaves_is_refused_in_one_sentence(artifact: Path, kind: str) -> None:
    answer, words = BROKEN[kind]
    with serving(answer) as url, pytest.raises(UsageError, match=words):
        explain_system(artifact, System("tei", url), TEXTS)


def test_a_server_that_is_not_there_is_a_network_that_failed(run: Run, artifact: Path) -> None:
    with serving(lambda path, body: (200, b"")) as url:
        pass
    with pytest.raises(NetworkError, match=r"does not answer.*is tei running there"):
        explain_system(artifact, System("tei", url), TEXTS)
    assert refused(run("explain", artifact, "--tei", url), "does not answer", code=3)
    assert refused(run("explain", artifact, "--tei", "localhost"), "not a URL such as http://localhost:8080")
    assert refused(run("explain", artifact), "name one thing to compare with")
    assert refused(run("explain", artifact, "--tei", url, "--openai", url), "name one thing to compare with")


def test_a_list_of_models_without_a_model_is_refused(artifact: Path) -> None:
    with serving(lambda path, body: (200, b'{"data": []}')) as url, pytest.raises(UsageError, match="lists no model"):
        explain_system(artifact, System("openai", f"{url}/v1"), TEXTS)


def test_a_library_that_is_not_installed_is_named(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastembed", None)
    with pytest.raises(MissingExtraError, match="pip install fastembed"):
        explain_system(artifact, System("fastembed", "any"), TEXTS)


@needs_torch
@pytest.mark.torch
def test_sentence_transformers_and_plain_transformers_are_asked(artifact: Path, checkpoint: Path) -> None:
    assert explain_system(artifact, System("sentence-transformers", str(checkpoint)), TEXTS).same
    report = explain_system(artifact, System("transformers", str(checkpoint), "cls"), TEXTS)
    assert [cause.name for cause in report.causes] == ["pooling"]
    report = explain_system(artifact, System("transformers", str(checkpoint), normalize=False), TEXTS)
    assert [cause.name for cause in report.causes] == ["normalization"]
    with pytest.raises(UsageError, match="not one of"):
        System("transformers", str(checkpoint), "middle").vectors(TEXTS)
    with pytest.raises(Exception, match="sentence-transformers cannot open"):
        System("sentence-transformers", str(checkpoint / "nothing")).vectors(TEXTS)


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny reranker of one label."""
    folder = tmp_path_factory.mktemp("reranker")
    write_cross_encoder(folder / "checkpoint")
    export(folder / "checkpoint", folder / "onnx")
    return folder / "onnx"


@needs_torch
@pytest.mark.torch
def test_scores_of_a_reranker_are_asked_and_explained(run: Run, reranker: Path) -> None:
    checkpoint = str(reranker.parent / "checkpoint")
    assert explain_system(reranker, System("sentence-transformers", checkpoint)).same
    report = explain_system(reranker, System("transformers", checkpoint))
    assert [cause.name for cause in report.causes] == ["activation of scores"], report.verdict
    with our_server(f"ranker={reranker}") as url:
        assert explain_system(reranker, System("tei", url)).same
        assert run("verify", reranker, "--against", f"tei:{url}")[0] == 0
    with pytest.raises(UsageError, match="gives no scores of pairs"):
        explain_system(reranker, System("openai", "http://localhost"))


def test_texts_of_the_servers_order_are_kept(artifact: Path, model: OnnxEmbedder) -> None:
    """The entries of OpenAI's answer have an index, and may come in any order."""
    vectors = model.encode(TEXTS)

    def answer(path: str, body: Any) -> tuple[int, bytes]:
        if path.endswith("models"):
            return 200, b'{"data": [{"id": "tiny"}]}'
        rows = [{"index": place, "embedding": row.tolist()} for place, row in enumerate(vectors)]
        return 200, json.dumps({"data": rows[::-1]}).encode()

    with serving(answer) as url:
        np.testing.assert_allclose(System("openai", url).vectors(TEXTS), vectors, atol=1e-6)


def test_prompts_are_those_that_the_texts_should_have(tmp_path: Path) -> None:
    """The server puts none before its texts, where the model's default asks for one."""
    write_sentence_bert(tmp_path / "checkpoint", prompts={"query": "to be: "}, default_prompt_name="query")
    export(tmp_path / "checkpoint", tmp_path / "onnx")
    with OnnxEmbedder(tmp_path / "onnx") as model:
        plain = model.encode(TEXTS, prompt="")
    with serving(lambda path, body: (200, json.dumps(plain.tolist()).encode())) as url:
        report = explain_system(tmp_path / "onnx", System("tei", url), TEXTS)
        assert "have no prompt" in report.verdict
        assert "'to be: '" in report.causes[0].fixes["text-embeddings-inference"]
        assert explain_system(tmp_path / "onnx", System("tei", url), TEXTS, prompt="").same
