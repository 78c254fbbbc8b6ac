"""The large job beside `encode`: in one process, part by part, so that what slows both cancels out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.bulk.work import Work
from onnxembed import OnnxEmbedder
from onnxembed.arrays import FloatArray
from onnxembed.bulk.chunks import Chunk
from onnxembed.bulk.making import VectorMaker
from onnxembed.bulk.parts import part_name
from onnxembed.bulk.run import Made, Watch

PATIENCE = 120.0
"""Seconds to wait until a part is on the disk."""


def rate(work: Work) -> None:
    """Texts per second of the job as a share of those of `encode`, peak memory by part, and the size of the output.

    After every second part, `encode` gets the texts of that part. A part's time runs from asking for its rows until its
    file is on the disk, so nothing of the job falls into the time of `encode`. What comes before the first part and
    after the last one is counted apart.
    """
    inputs = work.parquet(work.texts)
    earlier = work.record.steps.get("rate", {}).get("parts", [])
    began = time.perf_counter()
    model = work.open()
    opened = time.perf_counter()
    alternating = Alternating(work, model, list(earlier))
    work.job(inputs, work.large, compute=alternating)
    ended = time.perf_counter()
    if not alternating.parts:
        raise SystemExit(f"{work.large} is finished and its times are not in {work.record.path}: remove it")
    paired = [part for part in alternating.parts if part["encode_seconds"]]
    encode = sum(part["texts"] for part in paired) / sum(part["encode_seconds"] for part in paired)
    steady = sum(part["texts"] for part in paired) / sum(part["job_seconds"] for part in paired)
    around = {
        "open_seconds": opened - began,
        "before_seconds": alternating.started - opened,
        "after_seconds": ended - alternating.ended,
    }
    seconds = sum(around.values()) + sum(part["job_seconds"] for part in alternating.parts)
    peaks = [part["peak_mb"] for part in alternating.parts]
    tenth = max(1, len(peaks) // 10)
    size = sum(path.stat().st_size for path in work.large.glob("*.parquet"))
    figures: dict[str, Any] = {
        "texts": work.texts,
        "encode_texts_per_second": encode,
        "job_texts_per_second": steady,
        "share_of_encode": steady / encode,
        "share_of_encode_with_beginning_and_end": work.texts / seconds / encode,
        "peak_mb_first_tenth": max(peaks[:tenth]),
        "peak_mb_last_tenth": max(peaks[-tenth:]),
        "input_mb": inputs.stat().st_size / 1e6,
        "output_mb": size / 1e6,
        "output_bytes_per_text": size / work.texts,
        **around,
        "parts": alternating.parts,
    }
    work.record.keep("rate", figures, done=True)


@dataclass
class Alternating:
    """Embeds parts as a job does, and has `encode` embed the texts of every second one."""

    work: Work
    model: OnnxEmbedder
    parts: list[dict[str, Any]]
    started: float = field(default_factory=time.perf_counter)
    ended: float = 0.0

    def __call__(
        self, chunks: Iterator[Chunk], maker: VectorMaker, ranges: FloatArray | None, watch: Watch
    ) -> Iterator[Made]:
        begun = self.started = time.perf_counter()
        while True:
            reset_peak()
            chunk = next(chunks, None)
            if chunk is None:
                self.ended = begun
                return
            columns, ranges = maker.columns(chunk.texts, ranges)
            yield Made(chunk, columns, ranges)
            wait_for(self.work.large / part_name(chunk.number))
            job_seconds, peak = time.perf_counter() - begun, peak_mb()
            encode_seconds = None
            if chunk.number % 2 == 0:
                begun = time.perf_counter()
                self.model.encode(chunk.texts)
                encode_seconds = time.perf_counter() - begun
            figures = {"part": chunk.number, "texts": len(chunk.texts), "job_seconds": job_seconds, "peak_mb": peak}
            self.parts.append(figures | {"encode_seconds": encode_seconds})
            self.work.record.keep("rate", {"parts": self.parts}, done=False)
            begun = time.perf_counter()


def wait_for(path: Path) -> None:
    limit = time.perf_counter() + PATIENCE
    while not path.exists():
        if time.perf_counter() > limit:
            raise TimeoutError(f"{path} does not appear")
        time.sleep(0.001)


def reset_peak() -> None:
    """Have Linux measure the peak memory of this process anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float:
    """The largest resident memory since `reset_peak`."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6
