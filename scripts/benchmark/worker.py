"""One system under test in its own process: it reads one JSON request per line and answers with one line of JSON.

Started with the Python of the system's own environment, so it needs the standard library, numpy and that
system. Requests: {"do": "load" | "encode" | "single" | ..., and that request's own keys}.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

Answer = dict[str, Any]


def main() -> None:
    # Libraries print to standard output, which is only for answers here.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = worker.requests[request.pop("do")](**request)
        except Exception as error:  # any error of a system is an answer
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


class Worker:
    """Holds a loaded system and its corpora between requests."""

    def __init__(self) -> None:
        self.requests: Mapping[str, Callable[..., Answer]] = {
            "load": self.load,
            "encode": self.encode,
            "single": self.single,
            "rate": self.rate,
            "stream": self.stream,
            "forward": self.forward,
        }
        self.system: Any = None
        self.corpora: dict[str, dict[str, Any]] = {}

    def load(self, system: str, settings: dict[str, Any], corpora: str | None) -> Answer:
        """Import and open a system; `corpora` is a JSON file of name -> {"texts": [...], "query": str or null}."""
        from benchmark.systems import SYSTEMS

        if settings["device"] == "cpu" and hasattr(os, "sched_setaffinity"):
            # Keeps threads that libraries start themselves, such as tokenizers', within the same share of the machine.
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: settings["threads"]])
        if corpora:
            self.corpora = json.loads(Path(corpora).read_text(encoding="utf-8"))
        start = time.perf_counter()
        self.system = SYSTEMS[system](settings)
        return {"seconds": time.perf_counter() - start, "versions": self.system.versions()}

    def encode(self, corpus: str, batch: int | None = None, save: str | None = None) -> Answer:
        """Encode a corpus once; `save` names a .npy file for the result."""
        texts, query = self.corpora[corpus]["texts"], self.corpora[corpus]["query"]
        start, cpu = time.perf_counter(), time.process_time()
        result = self.system.encode(texts, batch, query)
        answer = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu, "peak": peak()}
        if save:
            import numpy as np

            np.save(save, np.asarray(result, np.float32))
        return answer

    def single(self, corpus: str, first: int, count: int) -> Answer:
        """Encode `count` texts of a corpus one at a time, starting with number `first`."""
        texts = self.corpora[corpus]["texts"]
        seconds = []
        for number in range(first, first + count):
            text = [texts[number % len(texts)]]
            start = time.perf_counter()
            self.system.encode(text, 1, None)
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds}

    def rate(self, kind: str, way: str) -> Answer:
        """Operations and seconds of a large matrix product (system "roof")."""
        return dict(self.system.rate(kind, way))

    def stream(self, kind: str, count: int, samples: int) -> Answer:
        """Embed a stream of made-up texts, and sample the resident memory as it runs."""
        from benchmark.made_up import texts

        every = max(1, count // samples)
        start = time.perf_counter()
        points = [(0, 0.0, resident())]
        for number, _ in enumerate(self.system.stream(texts(kind, count)), start=1):
            if number % every == 0:
                points.append((number, time.perf_counter() - start, resident()))
        return {"points": points, "peak": peak()}

    def forward(self, length: int, masked: bool) -> Answer:
        """Run the graph on one text of `length` tokens, the last of which may be padding."""
        self.system.forward(16, masked)
        before = resident()
        reset_peak()
        start, cpu = time.perf_counter(), time.process_time()
        self.system.forward(length, masked)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "extra": peak() - before}


def resident() -> int:
    """The process's resident memory in bytes."""
    return _status("VmRSS")


def peak() -> int:
    """The process's peak resident memory in bytes, since its start or the last reset."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Restart the measurement of `peak`."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(key: str) -> int:
    with suppress(OSError):  # only Linux has it
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
