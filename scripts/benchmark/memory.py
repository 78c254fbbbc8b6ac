"""Memory over streams of texts, and of one very long text with and without a mask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.client import Client
from benchmark.models import Model
from benchmark.report import MB, table

SAMPLES = 200


def streams(model: Model, python: Path, threads: int, counts: Mapping[str, int], work: Path) -> dict[str, Any]:
    """Resident memory over a stream of made-up texts of each kind: name -> {points, peak}."""
    answers = {}
    for kind, count in counts.items():
        with _opened(model, python, threads, work / f"stream-{kind}.log") as client:
            answers[f"{count:,} {kind} texts"] = client.ask("stream", kind=kind, count=count, samples=SAMPLES)
    return answers


def long_text(model: Model, python: Path, threads: int, length: int, work: Path) -> dict[str, Any]:
    """One text of `length` tokens, without padding and with its last token padded, which uses the masked graph."""
    answers = {}
    for masked in (False, True):
        with _opened(model, python, threads, work / f"forward-{masked}.log") as client:
            answers["masked" if masked else "unpadded"] = client.ask("forward", length=length, masked=masked)
    return answers


def stream_table(answers: Mapping[str, Any]) -> str:
    """A table of the resident memory early, later and at the end of each stream."""
    rows = []
    for name, stream in answers.items():
        points = stream["points"]
        tenth, half, last = points[len(points) // 10], points[len(points) // 2], points[-1]
        sizes = [f"{rss / MB:,.0f}" for _, _, rss in (points[0], tenth, half, last)]
        rows.append([name, *sizes, f"{stream['peak'] / MB:,.0f}", f"{last[0] / last[1]:,.0f}"])
    return table(["stream", "MB loaded", "at 10%", "at 50%", "at the end", "peak", "texts/s"], rows)


def long_text_table(model: str, length: int, answers: Mapping[str, Any]) -> str:
    """A table of the extra memory and the time of one long text, unpadded and masked."""
    rows = [
        [f"{model}, {length} tokens, {form}", f"{answer['extra'] / MB:,.0f}", f"{answer['seconds']:.2f}"]
        for form, answer in answers.items()
    ]
    faster = answers["masked"]["seconds"] / answers["unpadded"]["seconds"]
    return table(["one text", "extra MB", "seconds"], rows) + f"\n\nunpadded is {faster:.2f} x as fast as masked"


def _opened(model: Model, python: Path, threads: int, log: Path) -> Client:
    """A worker with the artifact's first variant."""
    client = Client(python, threads, log)
    precision = next(iter(model.manifest.variants))
    settings = {"artifact": str(model.artifact), "precision": precision, "threads": threads, "device": "cpu"}
    client.ask("load", system="onnxembed", settings=settings, corpora=None)
    return client
