"""What the server counts, for Prometheus: under the names of text-embeddings-inference, and some of our own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

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


class Metrics:
    """The server's counters. Safe to use from many threads."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...] = DURATIONS) -> Histogram:
            return Histogram(name, text, buckets=buckets, registry=registry)

        self._requests = counter("te_request_count", "Requests, by method", "method")
        self._successes = counter("te_request_success", "Requests that were answered, by method", "method")
        self._failures = counter("te_request_failure", "Requests that were not answered, by cause", "err")
        self._stages = {
            stage: histogram(f"te_request_{stage}", f"Seconds of {words}")
            for stage, words in {
                "duration": "a request",
                "tokenization_duration": "the tokenization of a request's texts",
                "queue_duration": "a request's wait for its first run",
                "inference_duration": "a request's runs, the first to the last",
            }.items()
        }
        self._input_length = histogram("te_request_input_length", "Tokens of a request", SIZES)
        self._queue_texts = Gauge("te_queue_size", "Texts that wait for a run", registry=registry)
        self._queue_tokens = Gauge("onnxembed_queue_tokens", "Tokens that wait for a run", registry=registry)
        self._run_texts = histogram("te_batch_next_size", "Texts of a run", SIZES)
        self._run_tokens = histogram("te_batch_next_tokens", "Tokens of a run", SIZES)
        self._run_seconds = histogram("onnxembed_run_duration", "Seconds of a run")
        self._tokens = counter("onnxembed_tokens", "Tokens computed; their rate is the speed")
        self._padding = counter("onnxembed_padding", "Slots computed that hold no token")
        self._answering = histogram("onnxembed_answer_duration", "Seconds of writing an answer as JSON")
        Gauge("onnxembed_requests", "Requests that are open", registry=registry).set_function(lambda: self.open)
        self.open = 0
        """Requests that are being read, computed or answered."""

    def text(self) -> tuple[bytes, str]:
        """All values as Prometheus reads them, and their content type."""
        return THEIR_COUNTERS.sub(rb"\1", generate_latest(self._registry)), CONTENT_TYPE_LATEST

    def begin(self, method: str) -> None:
        """A request has come."""
        self._requests.labels(method).inc()

    def succeed(self, method: str, seconds: float, answering: float) -> None:
        """A request has been answered."""
        self._successes.labels(method).inc()
        self._stages["duration"].observe(seconds)
        self._answering.observe(answering)

    def fail(self, kind: Kind | None) -> None:
        """A request was refused; None if its client has gone."""
        self._failures.labels(FAILURES.get(kind, "validation") if kind else DROPPED).inc()

    def computed(self, computed: Computed) -> None:
        """The texts of a request have been computed."""
        self._stages["tokenization_duration"].observe(computed.tokenization)
        self._stages["queue_duration"].observe(computed.queue)
        self._stages["inference_duration"].observe(computed.inference)
        self._input_length.observe(computed.tokens)

    def run(self, texts: int, tokens: int, slots: int, seconds: float) -> None:
        """A run has been computed."""
        self._run_texts.observe(texts)
        self._run_tokens.observe(tokens)
        self._run_seconds.observe(seconds)
        self._tokens.inc(tokens)
        self._padding.inc(slots - tokens)

    def queue(self, texts: int, tokens: int) -> None:
        """So many texts and tokens wait."""
        self._queue_texts.set(texts)
        self._queue_tokens.set(tokens)
