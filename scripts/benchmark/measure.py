"""One model, all systems: load, check that the results agree, then measure in alternating rounds."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any, Literal

import numpy as np

from benchmark import roofs
from benchmark.client import Client, WorkerError
from benchmark.corpora import Corpus
from benchmark.entries import Device, Entry, Lines
from benchmark.flops import Flops, count
from benchmark.models import Model
from benchmark.rounds import alternate
from onnxembed import OnnxReranker
from onnxembed.tokenizer.texts import TextTokenizer

Clock = Literal["seconds", "cpu_seconds"]
"""Which of the two times of a measurement counts: that of the clock, or that of the processor."""

ROOF = "roof"
WARM_SECONDS = 5.0


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    threads: int
    device: Device
    rounds: int = 5
    singles: int = 40
    clock: Clock = "seconds"
    warm_seconds: float = WARM_SECONDS


@dataclass(frozen=True)
class Line:
    """A system at one batch size; None is its own default."""

    label: str
    kind: str
    batch: int | None
    best: bool = False


@dataclass
class Result:
    """Everything measured for one model: times in seconds, memory in bytes, one item per round."""

    model: str
    plan: dict[str, Any]
    corpora: dict[str, dict[str, Any]]
    baseline: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    load: dict[str, float] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=dict)
    gpu_memory: dict[str, int] = field(default_factory=dict)
    agreement: dict[str, dict[str, float]] = field(default_factory=dict)  # label -> corpus -> see `agreement`
    candidates: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)  # label -> corpus -> batch
    throughput: dict[str, list[tuple[Line, list[float]]]] = field(default_factory=dict)  # corpus -> lines
    singles: dict[str, list[list[float]]] = field(default_factory=dict)  # label -> rounds -> texts
    roof: dict[str, list[float]] = field(default_factory=dict)  # "fp32 one" -> operations per second

    def to_json(self) -> dict[str, Any]:
        """The result in plain values, for JSON."""
        return asdict(self)


def measure(model: Model, lines: Lines, corpora: Mapping[str, Corpus], plan: Plan, work: Path) -> Result:
    """Measure every line that can be measured; `absent` has the reasons for the others.

    A system whose process ends, for example for lack of memory, is left out from then on; the baseline must not end.
    """
    work.mkdir(parents=True, exist_ok=True)
    variants = model.manifest.variants
    flops = count(model.artifact / next(iter(variants.values())).file)
    result = Result(
        model.name,
        asdict(plan),
        {name: describe(corpus, lengths(model, corpus), flops) for name, corpus in corpora.items()},
        absent=dict(lines.absent),
    )
    texts = work / "corpora.json"
    texts.write_text(json.dumps({name: asdict(corpus) for name, corpus in corpora.items()}), encoding="utf-8")
    with ExitStack() as stack:
        workers: dict[str, Client] = {}
        for number, entry in enumerate(lines.entries):
            client = stack.enter_context(Client(entry.python, plan.threads, work / f"worker-{number}.log"))
            used = gpu_memory(plan.device)
            _log(f"{model.name}: {entry.label}")
            try:
                answer = client.ask("load", system=entry.system, settings=dict(entry.settings), corpora=str(texts))
                peak = [_first(client, entry, name, work) for name in corpora][-1]
            except WorkerError as error:
                result.absent[entry.label] = ": ".join(filter(None, (entry.why_not, str(error).splitlines()[0])))
                client.close()
                continue
            workers[entry.label] = client
            result.versions[entry.label], result.load[entry.label] = answer["versions"], answer["seconds"]
            result.peak[entry.label], result.gpu_memory[entry.label] = peak, gpu_memory(plan.device) - used
        entries = [entry for entry in lines.entries if entry.label in workers]
        result.baseline = entries[0].label
        _compare(result, entries, list(corpora), work)
        roof = stack.enter_context(_roof(lines, plan, work))
        for name in corpora:
            _log(f"{model.name}: {name}, {plan.rounds} rounds")
            chosen = _choose(result, [entry for entry in entries if entry.label in workers], workers, name, plan)
            measure_rounds(result, chosen, workers, roof, corpus=name, plan=plan)
        if "queries" in corpora:
            _log(f"{model.name}: single queries, {plan.rounds} rounds")
            _singles(result, list(workers), workers, plan)
    return result


def _lose(result: Result, workers: dict[str, Client], label: str, error: WorkerError) -> None:
    """Go on without a system that has failed, unless it is the baseline."""
    if label == result.baseline:
        raise error
    workers.pop(label).close()
    result.absent[label] = f"left out from then on: {str(error).splitlines()[0]}"
    _log(f"{label} is {result.absent[label]}")


def lengths(model: Model, corpus: Corpus) -> list[int]:
    """How many tokens the model reads of each text."""
    if model.manifest.reranking:
        with OnnxReranker(model.artifact, threads=1, providers="cpu") as reranker:
            return [len(tokens) for tokens in reranker.tokenize((corpus.query or "", text) for text in corpus.texts)]
    tokenization = model.manifest.tokenization
    tokenizer = TextTokenizer(model.artifact, tokenization, tokenization.max_length.value)
    return [len(tokens) for tokens in tokenizer.tokenize(corpus.texts)]


def describe(corpus: Corpus, tokens: Sequence[int], flops: Flops) -> dict[str, Any]:
    """The size of a corpus."""
    return {
        "source": corpus.source,
        "texts": len(tokens),
        "tokens": sum(tokens),
        "mean": mean(tokens),
        "median": median(tokens),
        "longest": max(tokens),
        "flops": flops.of(tokens),
    }


def agreement(ours: np.ndarray[Any, Any], reference: np.ndarray[Any, Any]) -> float:
    """The lowest cosine of two arrays of vectors [N, D]; for scores [N], 1 minus their largest difference."""
    if reference.ndim == 1:
        return float(1 - np.abs(ours - reference).max())
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(reference, axis=1)
    return float(((ours * reference).sum(axis=1) / norms).min())


def _log(message: str) -> None:
    """Print progress to standard error."""
    print(time.strftime("%H:%M:%S"), message, file=sys.stderr, flush=True)


def _saved(entry: Entry, corpus: str, work: Path) -> Path:
    return work / f"{entry.label} {corpus}.npy"


def _first(client: Client, entry: Entry, corpus: str, work: Path) -> int:
    """Encode with the system's defaults and save the vectors; returns the process's peak memory so far."""
    return int(client.ask("encode", corpus=corpus, batch=entry.batch, save=str(_saved(entry, corpus, work)))["peak"])


def _compare(result: Result, entries: Sequence[Entry], corpora: Sequence[str], work: Path) -> None:
    """Compare with sentence-transformers in its highest precision or, without it, with our first variant."""
    torch = [entry for entry in entries if entry.system.startswith("sentence-transformers")]
    reference = (torch or entries)[0]
    for entry in entries:
        result.agreement[entry.label] = {
            name: agreement(np.load(_saved(entry, name, work)), np.load(_saved(reference, name, work)))
            for name in corpora
        }


def _choose(
    result: Result, entries: Sequence[Entry], workers: dict[str, Client], corpus: str, plan: Plan
) -> list[Line]:
    """The lines of one corpus: each system with its default batch size, and with the fastest of those tried."""
    chosen = []
    for entry in entries:
        try:
            times = {
                batch: float(workers[entry.label].ask("encode", corpus=corpus, batch=batch)[plan.clock])
                for batch in entry.batches
            }
        except WorkerError as error:
            _lose(result, workers, entry.label, error)
            continue
        result.candidates.setdefault(entry.label, {})[corpus] = {str(batch): time for batch, time in times.items()}
        best = min(times, key=lambda batch: times[batch], default=None)
        chosen.append(Line(entry.label, entry.kind, entry.batch, best == entry.batch is not None))
        if best not in (None, entry.batch):
            chosen.append(Line(entry.label, entry.kind, best, best=True))
    return chosen


def measure_rounds(
    result: Result,
    chosen: Sequence[Line],
    workers: dict[str, Client],
    roof: Client,
    *,
    corpus: str,
    plan: Plan,
) -> None:
    times: dict[Line, list[float]] = defaultdict(list)
    for line in alternate([*chosen, None], plan.rounds):
        if line is None:
            _measure_roof(result, roof, plan)
        elif line.label in workers:
            try:
                answer = workers[line.label].ask("encode", corpus=corpus, batch=line.batch)
            except WorkerError as error:
                _lose(result, workers, line.label, error)
                continue
            times[line].append(float(answer[plan.clock]))
    result.throughput[corpus] = [(line, times[line]) for line in chosen if line.label in workers]


def _singles(result: Result, labels: Sequence[str], workers: Mapping[str, Client], plan: Plan) -> None:
    """Short queries one at a time."""
    for label in labels:
        stop = time.perf_counter() + plan.warm_seconds  # some systems first prepare for single texts here
        while time.perf_counter() < stop:
            workers[label].ask("single", corpus="queries", first=0, count=1)
    result.singles = {label: [] for label in labels}
    for label in alternate(labels, plan.rounds):
        first = len(result.singles[label]) * plan.singles
        answer = workers[label].ask("single", corpus="queries", first=first, count=plan.singles)
        result.singles[label].append(answer["seconds"])


def _roof(lines: Lines, plan: Plan, work: Path) -> Client:
    """A worker that multiplies matrices."""
    cuda = plan.device == "cuda"
    torch = [entry for entry in lines.entries if entry.system.startswith("sentence-transformers")]
    if cuda and not torch:
        raise WorkerError("the GPU's rate is measured with torch: give the Python of sentence-transformers")
    python = torch[0].python if cuda else lines.entries[0].python
    client = Client(python, plan.threads, work / "worker-roof.log")
    settings = {"threads": plan.threads, "device": plan.device, "graphs": {} if cuda else roofs.write(work)}
    client.ask("load", system="torch-roof" if cuda else ROOF, settings=settings, corpora=None)
    return client


def _measure_roof(result: Result, roof: Client, plan: Plan) -> None:
    """Measure products on one thread and, if there are more, on all together and side by side."""
    ways = ("one",) if plan.threads == 1 or plan.device == "cuda" else ("one", "together", "apart")
    for kind in ("fp16",) if plan.device == "cuda" else ("fp32", "int8"):
        for way in ways:
            answer = roof.ask("rate", kind=kind, way=way)
            result.roof.setdefault(f"{kind} {way}", []).append(answer["flops"] / answer[plan.clock])


def gpu_memory(device: Device) -> int:
    """Bytes in use on the first GPU; 0 on a CPU."""
    if device == "cpu":
        return 0
    query = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout) * 2**20
