"""scripts/bench and scripts/quality: their parts, and smoke runs on the tiny model."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from benchmark.client import SCRIPTS, Client, WorkerError
from benchmark.corpora import COUNTS, corpora, distinct, held_back, reranking
from benchmark.entries import NOT_INSTALLED, lines
from benchmark.flops import count
from benchmark.measure import Line, Plan, Result, agreement, measure_rounds
from benchmark.models import Model
from benchmark.report import corpus_table
from benchmark.rounds import alternate, percentile, ratios
from onnxembed import OnnxEmbedder
from onnxembed.execution import processor
from onnxembed.execution.opening import why_no_bf16
from onnxembed.execution.processor import Processor
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import read_manifest
from tiny import CONFIG, write_sentence_bert


def run(module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A script of scripts/benchmark, as the wrapper starts it."""
    command = [sys.executable, "-m", f"benchmark.{module}", *map(str, arguments)]
    return subprocess.run(command, cwd=SCRIPTS, capture_output=True, text=True, check=False)


def test_alternation_is_fair() -> None:
    turns = list(alternate("abc", 6))
    assert Counter(turns) == {"a": 6, "b": 6, "c": 6}
    rounds = [turns[start : start + 3] for start in range(0, 18, 3)]
    assert all(set(order) == set("abc") for order in rounds)
    assert {order[0] for order in rounds} == set("abc")  # nobody always goes first


def test_ratios_are_taken_round_by_round() -> None:
    # The machine was ten times slower in the second round, for both.
    summary = ratios([2.0, 20.0, 2.0], [1.0, 10.0, 1.0])
    assert (summary.median, summary.least, summary.most) == (0.5, 0.5, 0.5)


def test_percentile() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([float(i) for i in range(100)], 0.99) == 99.0


def test_corpora_are_the_same_every_time() -> None:
    first, again = corpora(None), corpora(None)
    assert {name: asdict(corpus) for name, corpus in first.items()} == {
        name: asdict(corpus) for name, corpus in again.items()
    }
    assert {name: len(set(corpus.texts)) for name, corpus in first.items()} == COUNTS
    assert not set(first["paragraphs"].texts) & set(held_back(None, 100).texts)
    assert list(corpora(None, scale=0.1, books=True)) == [*COUNTS, "books"]
    assert corpora(None, seed=1)["queries"].texts != first["queries"].texts


def test_corpora_of_real_texts(shared_data: Path) -> None:
    named = corpora(shared_data / "eval", scale=0.25)
    assert named["queries"].source == "SciFact and STS-B"
    words = {name: float(np.median([len(text.split()) for text in corpus.texts])) for name, corpus in named.items()}
    assert words["queries"] < 20 < words["paragraphs"] < words["documents"]


def test_reranking_corpus_has_a_query() -> None:
    (corpus,) = reranking(None, scale=0.01).values()
    assert corpus.query
    assert len(corpus.texts) == 10


def test_too_few_different_texts_is_an_error() -> None:
    with pytest.raises(ValueError, match="only 1 different"):
        distinct(lambda: "same", 2)


def test_operations_are_those_counted_by_hand(tmp_path: Path) -> None:
    write_sentence_bert(tmp_path / "model", dense=((32, 16, "torch.nn.modules.activation.Tanh"),))
    export(tmp_path / "model", tmp_path / "onnx", Options(precisions=("fp32",)))
    flops = count(tmp_path / "onnx/onnx/model.onnx")
    hidden, inner, layers = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["num_hidden_layers"]
    assert flops.token == layers * 2 * (4 * hidden * hidden + 2 * hidden * inner)
    assert flops.pair == layers * 4 * hidden
    assert flops.text == 2 * 32 * 16
    assert flops.of([3, 5]) == 8 * flops.token + 2 * flops.text + (9 + 25) * flops.pair


def test_agreement_is_the_worst_text() -> None:
    vectors = np.eye(2)
    assert agreement(vectors * 3, vectors) == 1.0
    assert agreement(np.array([[1.0, 0.0], [1.0, 0.0]]), vectors) == 0.0
    assert agreement(np.array([1.0, 2.5]), np.array([1.0, 2.0])) == 0.5  # scores


def test_a_system_with_other_vectors_is_marked() -> None:
    about = {"texts": 2, "tokens": 6, "mean": 3.0, "median": 3.0, "longest": 4, "flops": 100.0, "source": "test"}
    result = Result("model", asdict(Plan(1, "cpu")), {"queries": about}, baseline="ours")
    result.agreement = {"ours": {"queries": 1.0}, "other": {"queries": 0.9}}
    result.throughput = {"queries": [(Line("ours", "fp32", None), [1.0]), (Line("other", "fp32", 32), [0.5])]}
    result.roof = {"fp32 one": [400.0]}
    ours, other = corpus_table(result, "queries").splitlines()[-2:]
    assert "NOT THE SAME" not in ours
    assert "| 25% |" in ours  # 100 operations in 1 s, of 400 a second
    assert "| 2.00 |" in other
    assert "NOT THE SAME" in other


def test_a_worker_says_what_failed(tmp_path: Path) -> None:
    with Client(Path(sys.executable), 1, tmp_path / "log") as client:
        settings = {"artifact": str(tmp_path), "precision": "fp32", "threads": 1, "device": "cpu"}
        with pytest.raises(WorkerError, match="onnxembed export"):
            client.ask("load", system="onnxembed", settings=settings, corpora=None)
        with pytest.raises(WorkerError, match="KeyError"):  # and lives on
            client.ask("load", system="none", settings=settings, corpora=None)


class Standing:
    """A worker that takes a second for everything."""

    def ask(self, do: str, **request: object) -> dict[str, float]:
        return {"seconds": 1.0, "cpu_seconds": 1.0, "flops": 1.0}


@pytest.fixture
def ended(tmp_path: Path) -> Iterator[Client]:
    """A worker whose process has been killed."""
    with Client(Path(sys.executable), 1, tmp_path / "log") as client:
        client._process.kill()
        yield client


def test_a_system_that_ends_is_left_out_and_the_others_go_on(ended: Client) -> None:
    plan, standing = Plan(1, "cpu", rounds=3), cast(Client, Standing())
    result = Result("model", asdict(plan), {}, baseline="ours")
    workers = {"ours": standing, "other": ended}
    chosen = [Line("ours", "fp32", None), Line("other", "fp32", 32)]
    measure_rounds(result, chosen, workers, standing, corpus="queries", plan=plan)
    assert result.throughput == {"queries": [(chosen[0], [1.0] * 3)]}
    assert list(workers) == ["ours"]
    assert result.absent["other"].startswith("left out from then on: the process ended (-9)")


def test_without_the_baseline_there_is_nothing_to_measure(ended: Client) -> None:
    plan, standing = Plan(1, "cpu"), cast(Client, Standing())
    result = Result("model", asdict(plan), {}, baseline="ours")
    with pytest.raises(WorkerError, match="the process ended"):
        measure_rounds(result, [Line("ours", "fp32", None)], {"ours": ended}, standing, corpus="queries", plan=plan)


def test_quick_run(artifact: Path, checkpoint: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw.json"
    ours = ("--model", artifact, checkpoint, "--threads", "1", "--work", tmp_path / "work")
    done = run("bench", "--quick", *ours, "--json", raw)
    assert done.returncode == 0, done.stderr
    assert f"- FastEmbed, as it comes: {NOT_INSTALLED}" in done.stdout
    assert f"- sentence-transformers, torch bf16: {NOT_INSTALLED}" in done.stdout
    (result,) = json.loads(raw.read_text())["results"]
    assert {name: about["longest"] for name, about in result["corpora"].items()} == {
        "queries": 20,
        "paragraphs": 20,
        "documents": 20,
    }
    computed = ["onnxembed fp32", "onnxembed fp16"]
    if not (why_not := why_no_bf16()):
        computed.append("onnxembed bf16")
    assert ("- onnxembed bf16: " in done.stdout) == bool(why_not)
    for measured in result["throughput"].values():
        assert [(line["label"], len(times)) for line, times in measured] == [(label, 2) for label in computed]
    assert {label: [len(seconds) for seconds in rounds] for label, rounds in result["singles"].items()} == {
        label: [5, 5] for label in computed
    }
    assert {name: len(rates) for name, rates in result["roof"].items()} == {"fp32 one": 6, "int8 one": 6}
    assert all(value > 0.999 for by_corpus in result["agreement"].values() for value in by_corpus.values())


@pytest.mark.parametrize("instructions", [("AVX2", "AVX-512 BF16"), ("AVX2", "AMX BF16"), ("NEON", "BF16")])
def test_bf16_is_a_line_where_the_cpu_has_it(
    instructions: tuple[str, ...], artifact: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "read_processor", lambda: Processor("a processor", instructions))
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    found = lines(Model("tiny", artifact, checkpoint), {"onnxembed": Path(sys.executable)}, 1, "cpu", tmp_path)
    assert [(entry.label, entry.settings["precision"]) for entry in found.entries] == [
        ("onnxembed fp32", "fp32"),
        ("onnxembed fp16", "fp16"),
        ("onnxembed bf16", "bf16"),
    ]
    assert "onnxembed bf16" not in found.absent


def test_without_bf16_the_table_says_why(
    artifact: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "read_processor", lambda: Processor("an older processor", ("AVX2",)))
    found = lines(Model("tiny", artifact, checkpoint), {"onnxembed": Path(sys.executable)}, 1, "cpu", tmp_path)
    assert "onnxembed bf16" not in [entry.label for entry in found.entries]
    assert "an older processor" in found.absent["onnxembed bf16"]
    assert "an older processor" in why_no_bf16()


def test_no_other_model_is_begun_when_the_time_is_over(artifact: Path, checkpoint: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw.json"
    model = ("--model", artifact, checkpoint)
    done = run(
        *("bench", "--quick", *model, *model, "--threads", "1", "--work", tmp_path, "--corpus", "queries"),
        *("--minutes", "0.001", "--json", raw),
    )
    assert done.returncode == 0, done.stderr
    assert "not measured: 0.001 minutes were over" in done.stdout
    assert len(json.loads(raw.read_text())["results"]) == 1


def test_a_gpu_is_measured_with_padding_and_without(checkpoint: Path, tmp_path: Path) -> None:
    export(checkpoint, tmp_path / "onnx", Options(precisions=("fp16",), packed=True))
    model = Model("tiny", tmp_path / "onnx", checkpoint)
    ours = lines(model, {"onnxembed": Path(sys.executable)}, 1, "cuda", tmp_path).entries
    assert [entry.label for entry in ours] == ["onnxembed fp16, packed", "onnxembed fp16"]
    packed, padded = (Path(entry.settings["artifact"]) for entry in ours)
    assert read_manifest(packed).variants["fp16"].packed
    assert read_manifest(padded).variants["fp16"].packed is None
    with OnnxEmbedder(padded, precision="fp16", providers="cpu") as embedder:
        assert embedder.encode("the cat").shape == (32,)


def test_gpu_check_runs_dry_on_a_cpu() -> None:
    pytest.importorskip("transformers", reason="random models are made by it; needs the [torch] extra")
    done = run("gpu_check", "--device", "cpu", "--architecture", "bert", "--architecture", "mistral", "--seconds", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failures on cpu" in done.stdout
    assert done.stdout.count("ok    bert") == 2  # fp32 and fp16
    assert "bert, fp16, packed                 not on a CPU" in done.stdout
    assert "mistral, fp32, packed" not in done.stdout


def test_memory_run(artifact: Path, checkpoint: Path, tmp_path: Path) -> None:
    done = run(
        "bench", "--memory", "1000", "--long-text", "20", "--model", artifact, checkpoint, "--work", tmp_path / "work"
    )
    assert done.returncode == 0, done.stderr
    assert "| 1,000 short texts |" in done.stdout
    assert "| 2 long texts |" in done.stdout
    assert "x as fast as masked" in done.stdout


def test_quality_run(artifact: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw.json"
    done = run("quality", artifact, "--count", "30", "--json", raw)
    assert done.returncode == 0, done.stderr
    (rows,) = json.loads(raw.read_text()).values()
    assert rows["fp32"]["min_cosine"] == pytest.approx(1, abs=1e-6)
    assert rows["fp32"]["alone"] == pytest.approx(1, abs=1e-6)
    assert 0.999 < rows["fp16"]["min_cosine"] < 1


def test_footprint_counts_what_a_package_requires() -> None:
    command = [sys.executable, str(SCRIPTS / "benchmark/footprint.py"), "onnxembed[cpu]", "onnxembed"]
    figures = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert figures["bytes"] > 20e6  # onnxruntime and numpy are among them, pytest's environment is not
    assert 5 < figures["distributions"] < 40


def test_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="is in the environment of scripts/bench only")
    from benchmark.plot import plot_memory

    plot_memory({"texts": {"points": [(0, 0.0, 1), (1, 1.0, 2)]}}, tmp_path / "memory.png")
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")
