"""A model that was used before a fork works in the child; a model that nothing refers to is freed."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

from onnxembed import OnnxEmbedder, OnnxReranker
from onnxembed.export.pipeline import export
from tiny_embedders import texts_of_many_lengths
from tiny_rerankers import write_reranker

FORKS = hasattr(os, "register_at_fork")

# Two sessions are open and all threads have worked before the forks; some happen in the middle of runs, some children
# end as programs do, with an interpreter that frees what it holds.
FORKED = """
import os, sys, threading
from itertools import islice
import numpy as np
from onnxembed import OnnxEmbedder, OnnxReranker

def texts(number):
    return ["the cat " * (place % 9) + str(place) for place in range(number)]

model = {model}
work = {work}
expected = work(300)
for _ in range(20000):  # the second session is opened in the background
    work(1)
    if len(model.model.backend.open_sessions) == {sessions}:
        break
assert len(model.model.backend.open_sessions) == {sessions}
ended, results = False, []
def embed():
    while not ended:
        work(40)
threads = [threading.Thread(target=embed) for _ in range({busy})]
for thread in threads:
    thread.start()
stream = {stream}
begun = list(islice(stream, 5))
for number in range({forks}):
    child = os.fork()
    if not child:
        ended = True
        assert np.abs(work(300) - expected).max() < 1e-6
        for _ in range(20):
            work(1)
        assert np.abs(np.array(begun + list(stream)) - expected).max() < 1e-6
        os._exit(7) if number % 2 else sys.exit(7)
    results.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
ended = True
assert np.abs(np.array(begun + list(stream)) - expected).max() < 1e-6
print(results)
"""
EMBED, EMBED_STREAM = "lambda number: model.encode(texts(number))", "model.embed(texts(300))"
SCORE = "lambda number: model.score('the cat', texts(number))"
SCORE_STREAM = "model.score_stream([('the cat', text) for text in texts(300)])"


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reranker")
    export(write_reranker(folder / "checkpoint"), folder / "artifact")
    return folder / "artifact"


def forked(
    busy: int, setting: str | None, *, model: str, work: str, stream: str, forks: int = 4, sessions: int = 2
) -> str:
    """What a script prints that forks while models are open; an error if it, or a child of it, does not end."""
    names = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    code = FORKED.format(busy=busy, forks=forks, sessions=sessions, model=model, work=work, stream=stream)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=names | ({"TOKENIZERS_PARALLELISM": setting} if setting else {}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not FORKS, reason="this system has no forks")
@pytest.mark.parametrize(("threads", "busy", "setting"), [(2, 0, "true"), (2, 2, None), (1, 1, None)])
def test_an_embedder_works_in_forked_children(artifact: Path, threads: int, busy: int, setting: str | None) -> None:
    model = f"OnnxEmbedder({str(artifact)!r}, providers='cpu', threads={threads})"
    assert forked(busy, setting, sessions=threads, model=model, work=EMBED, stream=EMBED_STREAM) == "[7, 7, 7, 7]"


@pytest.mark.skipif(not FORKS, reason="this system has no forks")
@pytest.mark.parametrize("busy", [0, 1])
def test_a_reranker_works_in_forked_children(reranker: Path, busy: int) -> None:
    model = f"OnnxReranker({str(reranker)!r}, providers='cpu', threads=2)"
    assert forked(busy, None, model=model, work=SCORE, stream=SCORE_STREAM) == "[7, 7, 7, 7]"


@pytest.mark.parametrize("kind", ["embedder", "reranker"])
def test_a_model_that_nothing_refers_to_is_freed_with_its_threads(artifact: Path, reranker: Path, kind: str) -> None:
    texts, before = texts_of_many_lengths(200), set(threading.enumerate())
    model = OnnxEmbedder(artifact, threads=2) if kind == "embedder" else OnnxReranker(reranker, threads=2)
    if isinstance(model, OnnxEmbedder):
        model.encode(texts)
    else:
        model.score("the cat", texts)
    backend = weakref.ref(model.model.backend)
    workers = set(threading.enumerate()) - before
    assert workers
    del model
    gc.collect()
    assert backend() is None
    for worker in workers:
        worker.join(60)
    assert not [worker for worker in workers if worker.is_alive()]


@pytest.mark.parametrize("begun", ["in a thread", "at exit"])
def test_texts_are_embedded_while_the_interpreter_ends(artifact: Path, begun: str) -> None:
    start = {
        "in a thread": "import threading; threading.Thread(target=embed).start()",
        "at exit": "import atexit; atexit.register(embed)",
    }[begun]
    code = (
        "import sys\nfrom onnxembed import OnnxEmbedder\n"
        "model = OnnxEmbedder(sys.argv[1], providers='cpu', threads=2)\n"
        "texts = ['the ' * (number % 9) + str(number) for number in range(9000)]\n"
        f"def embed(): print(model.encode(texts).shape)\n{start}"
    )
    done = subprocess.run([sys.executable, "-c", code, str(artifact)], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("(9000, 32)", "")
