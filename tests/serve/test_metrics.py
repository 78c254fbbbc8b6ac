"""What Prometheus is told, against its own client library."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("msgspec", reason="pip install 'onnxembed[serve]'")

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from onnxembed.serve.metrics import PLACES, SIZES, Metrics


def lines(text: bytes, name: str) -> list[str]:
    return [line for line in text.decode().splitlines() if line.startswith(name) and "_created" not in line]


def test_a_histogram_is_the_client_librarys() -> None:
    ours, registry = Metrics(), CollectorRegistry()
    theirs = Histogram("te_batch_next_tokens", "Tokens of a run", registry=registry, buckets=SIZES)
    for tokens in (1, 2, 3, 512, 513, 32_768, 40_000):
        ours.run(1, tokens, tokens, 0.1)
        theirs.observe(tokens)
    assert lines(ours.text()[0], "te_batch_next_tokens") == lines(generate_latest(registry), "te_batch_next_tokens")


def test_every_process_tells_the_sums() -> None:
    table = np.zeros((2, PLACES))
    first, second = Metrics(table, 0), Metrics(table, 1)
    for each in (first, first, second):
        each.begin("POST")
        each.fail("malformed")
    first.end()
    first.queue(3, 40)
    second.queue(2, 10)
    for each in (first, second):
        text = each.text()[0].decode().splitlines()
        for line in (
            'te_request_count{method="POST"} 3.0',
            'te_request_failure{err="validation"} 3.0',
            "onnxembed_requests 2.0",
            "te_queue_size 5.0",
            "onnxembed_queue_tokens 50.0",
        ):
            assert line in text
