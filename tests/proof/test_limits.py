"""How far results may be from the proof's, by the precision of the graph and by the task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onnxembed.execution.providers import CPU, CUDA, Placement
from onnxembed.manifest import Manifest, Quality, Task, read_manifest
from onnxembed.proof.checking import asked_precision
from onnxembed.proof.limits import Limits, limits_for

QUALITY = Quality(texts=100, min_cosine=0.997, mean_cosine=0.999, required=0.995, kept_wider=())
SCORES = replace(QUALITY, min_cosine=None, mean_cosine=None, rank_agreement=0.99, max_score_diff=0.01)


@pytest.fixture
def manifest(artifact: Path) -> Manifest:
    return read_manifest(artifact)


def of_integers(manifest: Manifest, quality: Quality, task: Task, measured: Limits | None = None) -> Limits | None:
    """The limits of an integer graph."""
    variants = {"int8": replace(manifest.variants["fp32"], quality=quality)}
    return limits_for(replace(manifest, variants=variants), "int8", task, measured)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (None, Limits(0.1, 0.995)),  # unit vectors with a cosine of 0.995 are 0.1 apart
        (Limits(0.01, 0.999), Limits(0.1, 0.995)),
        (Limits(0.3, 0.98), Limits(0.6, 0.96)),
    ],
)
def test_an_integer_graph_may_be_twice_as_far_as_it_was_when_it_was_made(
    manifest: Manifest, measured: Limits | None, expected: Limits
) -> None:
    limits = of_integers(manifest, QUALITY, "embedding", measured)
    assert limits is not None
    assert limits.max_abs_diff == pytest.approx(expected.max_abs_diff)
    assert limits.min_cosine == pytest.approx(expected.min_cosine)


def test_scores_have_no_cosine_and_the_margin_of_their_export(manifest: Manifest) -> None:
    assert of_integers(manifest, SCORES, "reranking") == Limits(0.04)
    assert of_integers(manifest, SCORES, "reranking", Limits(0.05, 1.0)) == Limits(0.1)
    assert of_integers(manifest, replace(SCORES, max_score_diff=None), "reranking") is None
    assert limits_for(manifest, "fp32", "reranking") == Limits(1e-5)


@pytest.mark.parametrize(
    ("provider", "providers", "expected"),
    [
        (CUDA, [(CUDA, {"use_tf32": 1})], "fp16"),
        (CUDA, [(CUDA, {"use_tf32": "1"})], "fp16"),
        (CUDA, [CUDA], "fp32"),
        (CUDA, "auto", "fp32"),
        (CPU, "cpu", "fp32"),
    ],
)
def test_tf32_has_the_limits_of_fp16_where_the_caller_asks_for_it(provider: str, providers: Any, expected: str) -> None:
    opened: Any = SimpleNamespace(precision="fp32", provider=provider)
    assert asked_precision(opened, Placement(providers)) == expected
