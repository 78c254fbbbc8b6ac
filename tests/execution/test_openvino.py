"""OpenVINO's sessions.

The processors that OpenVINO computes in bf16 on are not at hand everywhere, so sessions are opened in fp32 here: what
is compared is that the graphs, their masks and the sharing of threads are right.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnxembed.errors import (
    ModelFilesError,
    ProviderError,
    TokenRowError,
    UsageError,
)
from onnxembed.execution.backend import GraphFiles
from onnxembed.execution.cores import available_threads
from onnxembed.execution.cpu import CpuBackend
from onnxembed.execution.openvino import OpenVinoSession
from onnxembed.execution.processor import read_processor
from onnxembed.execution.providers import CPU, OPENVINO, Placement, decide, wanted_providers
from onnxembed.execution.session import Session
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.loading.locate import locate
from onnxembed.manifest import TASKS
from onnxembed.proof import checking
from onnxembed.proof.limits import REQUIRED
from onnxembed.runtime.open_model import OpenModel
from onnxembed.runtime.outputs.dense import dense_readout
from onnxembed.runtime.outputs.pooling import normalize
from onnxembed.runtime.tokenizing import make_tokenizer
from tampering import change_graph, change_tensor

pytestmark = pytest.mark.usefixtures("cache")

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino (extra [openvino]) is missing")

IN_BF16 = read_processor().bf16_way(platform.system()) == "openvino"
"""Whether this processor has the instructions."""

SHAPES = [(1, 1, 0), (1, 64, 0), (2, 64, 0), (2, 64, 20), (3, 40, 13), (8, 16, 0), (64, 8, 0), (5, 33, 32)]
"""Texts, tokens, and how many of the first text are padding."""


fp32_session = partial(OpenVinoSession, built=True, precision="f32")


def in_fp32(graph: GraphFiles, place: Any) -> CpuBackend:
    """A backend that OpenVINO computes in fp32."""
    session = partial(fp32_session, streams=place.threads)
    return CpuBackend(graph, place.wanted[0], place.threads, place.tokens_per_run, open_session=session)


def opened_in_fp32(folder: Path, threads: int = 2) -> OpenModel:
    placement = Placement("cpu", threads=threads)
    return OpenModel(folder, TASKS, placement, make_tokenizer=make_tokenizer, open_backend=in_fp32)


def feeds(texts: int, tokens: int, padding: int, inputs: Sequence[str]) -> dict[str, Any]:
    ids = np.random.default_rng(texts * tokens).integers(5, 40, (texts, tokens))
    mask = np.ones_like(ids)
    mask[0, tokens - padding :] = 0
    return {name: {"input_ids": ids, "attention_mask": mask}.get(name, ids * 0) for name in inputs}


@pytest.fixture(scope="module", params=["fused", "portable"])
def form(request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("openvino") / "model"
    export(checkpoint, folder, Options(form=request.param))
    return folder


@needs_openvino
@pytest.mark.parametrize("threads", [1, 2])
def test_outputs_are_those_of_onnxruntime(form: Path, threads: int) -> None:
    graph, wanted = form / "onnx/model.onnx", wanted_providers("cpu")
    theirs, ours = Session(graph, wanted, 1), fp32_session(graph, wanted, threads)
    for shape in SHAPES:
        fed = feeds(*shape, sorted(theirs.inputs))
        for name in ("sentence_embedding", "token_embeddings"):
            (expected,), (result,) = theirs.run([name], fed), ours.run([name], fed)
            seen = fed["attention_mask"].astype(bool) if name == "token_embeddings" else slice(None)
            assert result.dtype == np.float32
            assert np.abs(result[seen] - expected[seen]).max() <= 1e-5, (shape, name)


@needs_openvino
@pytest.mark.skipif(not IN_BF16, reason="this processor does not compute in bf16")
def test_in_bf16_too_but_for_rounding(form: Path) -> None:
    """Two texts of 256 tokens were wrong in OpenVINO's branch without a mask, in a larger model."""
    graph, wanted = form / "onnx/model.onnx", wanted_providers("cpu")
    theirs, ours = Session(graph, wanted, 1), OpenVinoSession(graph, wanted, 1, built=True)
    for shape in SHAPES:
        fed = feeds(*shape, sorted(theirs.inputs))
        (expected,), (result,) = (session.run(["sentence_embedding"], fed) for session in (theirs, ours))
        assert (normalize(result) * normalize(expected)).sum(axis=1).min() >= REQUIRED["bf16"].min_cosine, shape
        assert np.abs(result - expected).max() > 1e-5, "nothing was rounded: this is fp32"


@needs_openvino
def test_every_run_takes_the_general_way(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No branch is left to OpenVINO."""
    import openvino

    session = fp32_session(artifact / "onnx/model.onnx", wanted_providers("cpu"), 1)
    nodes = session._compiled.get_runtime_model().get_ordered_ops()
    layers = {str(node.get_rt_info()["layerType"].value) for node in nodes}
    assert "FullyConnected" in layers
    assert "If" not in layers
    with pytest.raises(ModelFilesError, match=rf"has branches, in which OpenVINO {openvino.__version__[:6]}.* fp32"):
        OpenVinoSession(artifact / "onnx/model.onnx", wanted_providers("cpu"), 1, precision="f32")


@needs_openvino
@pytest.mark.parametrize("threads", [1, 2])
def test_a_model_gives_the_same_vectors(artifact: Path, threads: int) -> None:
    texts = ["the cat", "a", *(" ".join(["dog and the cat"] * count) for count in (1, 7, 30, 400))] * 9
    placement = Placement("cpu", threads=threads)
    plain = OpenModel(artifact, TASKS, placement, make_tokenizer=make_tokenizer)
    other = opened_in_fp32(artifact, threads)
    results = []
    for model in (plain, other):
        tokens = model.tokenize(texts)
        runs = model.backend.plan([len(text) for text in tokens])
        results.append(_vectors(model, tokens, runs))
        results.append(_vectors(model, tokens, [[place] for place in range(len(tokens))]))
        model.close()
    assert other.provider == OPENVINO
    for result in results[1:]:
        assert np.abs(result - results[0]).max() <= 1e-5


def _vectors(model: OpenModel, tokens: Sequence[Any], runs: Sequence[Sequence[int]]) -> Any:
    computing = model.computation(dense_readout(model.folder, model.manifest.require_embedding()))
    vectors: dict[int, Any] = {}
    futures = model.backend.start(computing.results, [[tokens[place] for place in run] for run in runs])
    for run, future in zip(runs, futures, strict=True):
        rows = [row for result in future.result() for row in result]
        vectors.update(zip(run, rows, strict=True))
    return np.array([vectors[place] for place in range(len(tokens))])


@needs_openvino
@pytest.mark.skipif(available_threads() < 2, reason="OpenVINO takes no more threads than there are cores")
def test_streams_run_side_by_side_and_one_text_with_all_threads(artifact: Path) -> None:
    session = partial(fp32_session, artifact / "onnx/model.onnx", wanted_providers("cpu"))
    asked = [
        [str(opened._compiled.get_property(name)) for name in ("NUM_STREAMS", "INFERENCE_NUM_THREADS")]
        for opened in (session(1, streams=2), session(2, streams=2))
    ]
    assert asked == [["2", "2"], ["1", "2"]]


@needs_openvino
def test_both_sessions_are_used(artifact: Path) -> None:
    graph = locate(artifact, device="cpu").graph
    backend = in_fp32(graph, decide(Placement("cpu", threads=2)))
    fed = feeds(1, 8, 0, ("input_ids", "attention_mask", "token_type_ids"))
    for _ in range(3000):
        backend.run(["sentence_embedding"], fed)
        if backend.opening is not None:
            break
    assert backend.opening is not None
    backend.opening.result()
    assert backend.open_sessions == ("side_by_side", "all_threads")
    backend.close()


@needs_openvino
def test_what_a_long_run_took_is_freed(artifact: Path) -> None:
    session = fp32_session(artifact / "onnx/model.onnx", wanted_providers("cpu"), 1)
    compiled, released = session._compiled, []
    session._compiled = SimpleNamespace(
        create_infer_request=compiled.create_infer_request,
        release_memory=lambda: released.append(compiled.release_memory()),
    )
    fed = feeds(2, 8, 0, ("input_ids", "attention_mask", "token_type_ids"))
    results, freed = [], []
    for shrink in (False, True, False):
        results += session.run(["sentence_embedding"], fed, shrink=shrink)
        freed.append(len(released))
    assert freed == [0, 1, 1]
    assert all(np.array_equal(results[0], other) for other in results)


@needs_openvino
def test_a_forked_child_computes(artifact: Path) -> None:
    backend = in_fp32(locate(artifact, device="cpu").graph, decide(Placement("cpu", threads=2)))
    fed = feeds(1, 8, 0, ("input_ids", "attention_mask", "token_type_ids"))
    (expected,) = backend.run(["sentence_embedding"], fed)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if np.abs(backend.run(["sentence_embedding"], fed)[0] - expected).max() <= 1e-6 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    backend.close()


@needs_openvino
def test_compiled_graphs_are_kept_and_another_graph_is_not_taken_for_them(
    artifact: Path, cache: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    fed = feeds(1, 8, 0, ("input_ids", "attention_mask", "token_type_ids"))

    def result() -> tuple[Any, bool]:
        session = fp32_session(copy / "onnx/model.onnx", wanted_providers("cpu"), 1)
        return session.run(["sentence_embedding"], fed)[0], bool(session._compiled.get_property("LOADED_FROM_CACHE"))

    first, again = result(), result()
    assert [first[1], again[1]] == [False, True]
    assert np.array_equal(first[0], again[0])
    assert list((cache / "onnxembed" / "openvino").iterdir())
    change_graph(copy, lambda graph: change_tensor(graph, "word_embeddings.weight", lambda weight: -weight))
    changed = result()
    assert not changed[1]
    assert np.abs(changed[0] - first[0]).max() > 1e-3


@needs_openvino
def test_without_a_place_for_a_cache_it_runs_all_the_same(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    fp32_session(artifact / "onnx/model.onnx", wanted_providers("cpu"), 1)


@needs_openvino
def test_ids_without_a_row_are_refused(artifact: Path) -> None:
    """OpenVINO itself gives such a token a row of something."""
    session = fp32_session(artifact / "onnx/model.onnx", wanted_providers("cpu"), 1)
    for wrong in (10**6, -1):
        fed = feeds(1, 8, 0, ("input_ids", "attention_mask", "token_type_ids"))
        fed["input_ids"][0, 3] = wrong
        with pytest.raises(TokenRowError, match=f"id {wrong}, for which the model's table has no row"):
            session.run(["sentence_embedding"], fed)


@needs_openvino
def test_bad_requests_are_one_sentence(artifact: Path, tmp_path: Path) -> None:
    graph = artifact / "onnx/model.onnx"
    session = fp32_session(graph, wanted_providers("cpu"), 1)
    with pytest.raises(UsageError, match="has no output nothing, only sentence_embedding, token_embeddings"):
        session.run(["nothing"], feeds(1, 8, 0, ("input_ids", "attention_mask")))
    with pytest.raises(UsageError, match="with no options of CPUExecutionProvider"):
        OpenVinoSession(graph, wanted_providers([(CPU, {"use_arena": "1"})]), 1)
    (tmp_path / "model.onnx").write_bytes(graph.read_bytes()[:1000])
    with pytest.raises(ModelFilesError, match="OpenVINO cannot open"):
        fp32_session(tmp_path / "model.onnx", wanted_providers("cpu"), 1)


@needs_openvino
@pytest.mark.skipif(IN_BF16, reason="this processor computes in bf16")
def test_openvino_without_the_instructions_is_no_bf16(artifact: Path) -> None:
    """It computes in fp32 then, and does not say so unless it is asked."""
    with pytest.raises(ProviderError, match=r"computes .* in f32 on this processor, not in bf16: use precision fp32"):
        OpenVinoSession(artifact / "onnx/model.onnx", wanted_providers("cpu"), 1, built=True)


@needs_openvino
def test_openvino_is_proved_with_pairs_of_one_length_too(artifact: Path) -> None:
    """In bf16 it has been wrong for two texts of one length alone."""
    placement = Placement("cpu", threads=1)
    model = opened_in_fp32(artifact, 1)
    proof = checking.find_proof(model)
    assert proof is not None
    figures = checking.check(model, placement, proof)
    assert [figure.way for figure in figures] == ["as scheduled", "in pairs"]
    assert max(figure.max_abs_diff for figure in figures) <= 1e-5
    model.close()
