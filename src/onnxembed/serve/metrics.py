"""What the server counts, for Prometheus: under the names of text-embeddings-inference, and some of our own.

Every number has a place in one row of floats. The processes of a server share a table of such rows, one for each, and
whoever is asked gives the sums. So any of them tells of all of them, and nothing is written to files.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from onnxembed.serve.errors import Kind

if TYPE_CHECKING:
    from onnxembed.serve.scheduler import Computed

DURATIONS = tuple(1.5e-5 * 1.5**n for n in range(35))
"""Upper bounds of durations in seconds: those of text-embeddings-inference."""

SIZES = tuple(float(2**n) for n in range(16))
"""Upper bounds of numbers of texts and tokens."""

FAILURES: Mapping[Kind, str] = {
    "overloaded": "overloaded",
    "batch_size": "batch_size",
    "model_type": "model_type",
    "tokenization": "tokenization",
    "inference": "inference",
    "unhealthy": "inference",
}
"""The `err` of text-embeddings-inference for a refusal; "validation" for all others."""

THEIR_COUNTERS = re.compile(rb"\b(te_\w+)_total\b")
"""The client library adds "_total" to the names of counters; text-embeddings-inference does not."""

DROPPED = "dropped"
"""The `err` of a request whose client has gone."""


@dataclass(frozen=True)
class Numbered:
    """A counter or a gauge, with a value of its label for each of its numbers, or none."""

    name: str
    help: str
    family: type[CounterMetricFamily] | type[GaugeMetricFamily]
    label: str = ""
    values: Sequence[str] = ("",)

    @property
    def places(self) -> int:
        """How many numbers it has."""
        return len(self.values)

    def collected(self, numbers: Sequence[float]) -> Metric:
        """What Prometheus is told."""
        family: Any = self.family(self.name, self.help, labels=[self.label] if self.label else [])
        for value, number in zip(self.values, numbers, strict=True):
            family.add_metric([value] if self.label else [], number)
        return family  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Distributed:
    """A histogram: a number for each upper bound, one for what is above them all, and the sum."""

    name: str
    help: str
    bounds: Sequence[float] = DURATIONS

    @property
    def places(self) -> int:
        """How many numbers it has."""
        return len(self.bounds) + 2

    def collected(self, numbers: Sequence[float]) -> Metric:
        """What Prometheus is told."""
        upper = [*map(floatToGoString, self.bounds), floatToGoString(float("inf"))]  # type: ignore[no-untyped-call]
        counts = np.cumsum(numbers[:-1]).tolist()
        return HistogramMetricFamily(self.name, self.help, list(zip(upper, counts, strict=True)), numbers[-1])


METHODS = ("POST",)
ERRORS = (*dict.fromkeys([*FAILURES.values(), "validation", DROPPED]),)

REQUESTS = Numbered("te_request_count", "Requests, by method", CounterMetricFamily, "method", METHODS)
SUCCESSES = Numbered(
    "te_request_success", "Requests that were answered, by method", CounterMetricFamily, "method", METHODS
)
FAILED = Numbered("te_request_failure", "Requests that were not answered, by cause", CounterMetricFamily, "err", ERRORS)
DURATION = Distributed("te_request_duration", "Seconds of a request")
TOKENIZATION = Distributed("te_request_tokenization_duration", "Seconds of the tokenization of a request's texts")
QUEUE = Distributed("te_request_queue_duration", "Seconds of a request's wait for its first run")
INFERENCE = Distributed("te_request_inference_duration", "Seconds of a request's runs, the first to the last")
INPUT_LENGTH = Distributed("te_request_input_length", "Tokens of a request", SIZES)
QUEUE_TEXTS = Numbered("te_queue_size", "Texts that wait for a run", GaugeMetricFamily)
QUEUE_TOKENS = Numbered("onnxembed_queue_tokens", "Tokens that wait for a run", GaugeMetricFamily)
RUN_TEXTS = Distributed("te_batch_next_size", "Texts of a run", SIZES)
RUN_TOKENS = Distributed("te_batch_next_tokens", "Tokens of a run", SIZES)
RUN_SECONDS = Distributed("onnxembed_run_duration", "Seconds of a run")
TOKENS = Numbered("onnxembed_tokens", "Tokens computed; their rate is the speed", CounterMetricFamily)
PADDING = Numbered("onnxembed_padding", "Slots computed that hold no token", CounterMetricFamily)
ANSWERING = Distributed("onnxembed_answer_duration", "Seconds of writing an answer as JSON")
OPEN = Numbered("onnxembed_requests", "Requests that are being read, computed or answered", GaugeMetricFamily)

ALL: Sequence[Numbered | Distributed] = (
    REQUESTS, SUCCESSES, FAILED, DURATION, TOKENIZATION, QUEUE, INFERENCE, INPUT_LENGTH, QUEUE_TEXTS, QUEUE_TOKENS,
    RUN_TEXTS, RUN_TOKENS, RUN_SECONDS, TOKENS, PADDING, ANSWERING, OPEN,
)  # fmt: skip
"""Every metric, in the order in which they are shown."""

FIRST: Mapping[str, int] = {
    metric.name: sum(before.places for before in ALL[:number]) for number, metric in enumerate(ALL)
}
"""The place of each metric's first number in a row, by the metric's name."""

PLACES = sum(metric.places for metric in ALL)
"""How many numbers a row has."""


class Metrics(Collector):
    """The counters of one process. Safe to use from many threads.

    Args:
        table: a row of PLACES numbers for each process of the server, zero at first, [processes, PLACES].
        row: the one of this process.
    """

    def __init__(self, table: NDArray[np.float64] | None = None, row: int = 0) -> None:
        self._table = np.zeros((1, PLACES)) if table is None else table
        # The numbers of a memoryview are Python's own, which are faster to add.
        self._row = cast("MutableSequence[float]", memoryview(self._table[row]))
        self._lock = threading.Lock()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """The sums of all processes, for the registry."""
        sums = self._table.sum(axis=0).tolist()
        for metric in ALL:
            first = FIRST[metric.name]
            yield metric.collected(sums[first : first + metric.places])

    def text(self) -> tuple[bytes, str]:
        """All values as Prometheus reads them, and their content type."""
        return THEIR_COUNTERS.sub(rb"\1", generate_latest(self._registry)), CONTENT_TYPE_LATEST

    def begin(self, method: str) -> None:
        """A request has come."""
        with self._lock:
            self._add(OPEN, 1)
            self._add(REQUESTS, 1, METHODS.index(method))

    def end(self) -> None:
        """A request has been answered, refused or dropped."""
        with self._lock:
            self._add(OPEN, -1)

    def succeed(self, method: str, seconds: float, answering: float) -> None:
        """A request has been answered."""
        with self._lock:
            self._add(SUCCESSES, 1, METHODS.index(method))
            self._observe(DURATION, seconds)
            self._observe(ANSWERING, answering)

    def fail(self, kind: Kind | None) -> None:
        """A request was refused; None if its client has gone."""
        error = FAILURES.get(kind, "validation") if kind else DROPPED
        with self._lock:
            self._add(FAILED, 1, ERRORS.index(error))

    def computed(self, computed: Computed) -> None:
        """The texts of a request have been computed."""
        with self._lock:
            self._observe(TOKENIZATION, computed.tokenization)
            self._observe(QUEUE, computed.queue)
            self._observe(INFERENCE, computed.inference)
            self._observe(INPUT_LENGTH, computed.tokens)

    def run(self, texts: int, tokens: int, slots: int, seconds: float) -> None:
        """A run has been computed."""
        with self._lock:
            self._observe(RUN_TEXTS, texts)
            self._observe(RUN_TOKENS, tokens)
            self._observe(RUN_SECONDS, seconds)
            self._add(TOKENS, tokens)
            self._add(PADDING, slots - tokens)

    def queue(self, texts: int, tokens: int) -> None:
        """Record how many texts and tokens wait."""
        with self._lock:
            self._set(QUEUE_TEXTS, texts)
            self._set(QUEUE_TOKENS, tokens)

    def _set(self, metric: Numbered, number: float) -> None:
        self._row[FIRST[metric.name]] = number

    def _add(self, metric: Numbered, number: float, place: int = 0) -> None:
        self._row[FIRST[metric.name] + place] += number

    def _observe(self, metric: Distributed, value: float) -> None:
        first = FIRST[metric.name]
        self._row[first + bisect_left(metric.bounds, value)] += 1
        self._row[first + len(metric.bounds) + 1] += value
