"""Attention against its definition in numpy: every kernel, window and padding, at lengths around every edge."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from onnxembed.export.artifact.graph_file import write_graph
from onnxembed.export.graph.attention import STREAMED, attention, local_mask, mask_for_heads, prepare_mask
from onnxembed.export.graph.blocks import FEWEST, SMALLEST
from onnxembed.export.graph.graph import Graph
from onnxembed.manifest import Precision
from onnxembed.progress import silent

HEADS, KEY_HEADS, SCALE = 4, 2, 0.3
Floats = NDArray[np.floating[Any]]


def open_attention(
    tmp_path: Path,
    *,
    causal: bool,
    reach: int | None = None,
    head_dim: int = 8,
    precision: Precision = "fp32",
    profile: str = "",
    arena: bool = True,
) -> onnxruntime.InferenceSession:
    """One attention of queries, keys and values that are the graph's inputs."""
    g = Graph(cast(Any, None), precision)
    g.input("attention_mask", TensorProto.INT64, ("batch", "sequence"))
    widths = {"query": HEADS * head_dim, "key": KEY_HEADS * head_dim, "value": KEY_HEADS * head_dim}
    given = [
        g.from_float32(g.input(name, TensorProto.FLOAT, ("batch", "sequence", width))) for name, width in widths.items()
    ]
    mask = mask_for_heads(prepare_mask(g, "attention_mask", causal=causal), head_dim)
    mask = mask if reach is None else local_mask(g, mask, reach)
    attended = attention(g, *given, heads=HEADS, key_heads=KEY_HEADS, head_dim=head_dim, mask=mask, scale=SCALE)
    g.output("attended", g.to_float32(attended), ("batch", "sequence", HEADS * head_dim))
    write_graph(g, tmp_path, precision, silent)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.enable_cpu_mem_arena = arena
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return onnxruntime.InferenceSession(next((tmp_path / "onnx").glob("*.onnx")), options)


def inputs(length: int, side: str | None, head_dim: int = 8) -> dict[str, NDArray[Any]]:
    """Three texts; two of them have more and more padding, up to all tokens but one."""
    rng = np.random.default_rng(length)
    mask = np.ones((3, length), np.int64)
    if side:
        for row, hidden in enumerate((length // 3, length - 1)):
            mask[row, :hidden] = 0
            mask[row] = mask[row] if side == "left" or (side == "both" and row) else mask[row, ::-1]
    widths = {"query": HEADS * head_dim, "key": KEY_HEADS * head_dim, "value": KEY_HEADS * head_dim}
    values = {name: rng.normal(size=(3, length, width)).astype(np.float32) for name, width in widths.items()}
    return {"attention_mask": mask, **values}


def expected(feeds: dict[str, NDArray[Any]], *, causal: bool, reach: int | None = None) -> Floats:
    """softmax(scale * q k^T) v over the keys that may be seen, in float64."""
    rows, length, width = feeds["query"].shape
    query, key, value = (
        feeds[name].astype(np.float64).reshape(rows, length, heads, -1).transpose(0, 2, 1, 3)
        for name, heads in (("query", HEADS), ("key", KEY_HEADS), ("value", KEY_HEADS))
    )
    key, value = (np.repeat(x, HEADS // KEY_HEADS, axis=1) for x in (key, value))
    distance = np.arange(length)[:, None] - np.arange(length)
    seen = np.abs(distance) <= (length if reach is None else reach)
    if causal:
        seen &= distance >= 0
    scores = np.where(seen & (feeds["attention_mask"][:, None, None] == 1), SCALE * query @ key.swapaxes(2, 3), -1e12)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    attended: Floats = weights / weights.sum(axis=-1, keepdims=True) @ value
    return attended.transpose(0, 2, 1, 3).reshape(rows, length, width)


def worst(session: onnxruntime.InferenceSession, feeds: dict[str, NDArray[Any]], wanted: Floats) -> float:
    """The largest difference at real tokens. Padding must hold finite numbers: 0 * NaN is NaN when pooled."""
    actual = session.run(None, feeds)[0]
    assert np.isfinite(actual).all()
    return float(np.abs(actual - wanted)[feeds["attention_mask"] == 1].max())


def edges(reach: int) -> list[int]:
    """Lengths around every edge of the blocks, and of the choice for or against them."""
    size = max(reach, SMALLEST)
    around = [size, 2 * size, 3 * size, FEWEST * size, (FEWEST + 1) * size, (FEWEST + 2) * size]
    return sorted({1, 2, reach, reach + 1, reach + 2, *(n + d for n in around for d in (-1, 0, 1)), 3 * size + 5} - {0})


SIDES = [None, "right", "left", "both"]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("reach", [0, 1, 12, SMALLEST, 45])
def test_local_attention_equals_its_definition_around_every_edge(reach: int, side: str | None, tmp_path: Path) -> None:
    session = open_attention(tmp_path, causal=False, reach=reach)
    for length in edges(reach):
        feeds = inputs(length, side)
        assert worst(session, feeds, expected(feeds, causal=False, reach=reach)) <= 1e-6, length


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("head_dim", [8, 24, 12])
@pytest.mark.parametrize("reach", [None, 0, 1, 11, 200])
def test_causal_attention_equals_its_definition(
    reach: int | None, head_dim: int, side: str | None, tmp_path: Path
) -> None:
    session = open_attention(tmp_path, causal=True, reach=reach, head_dim=head_dim)
    for length in (1, 2, 11, 12, 13, 70):
        feeds = inputs(length, side, head_dim)
        assert worst(session, feeds, expected(feeds, causal=True, reach=reach)) <= 1e-6, length


@pytest.mark.parametrize("reach", [None, 90])
@pytest.mark.parametrize("length", [STREAMED - 1, STREAMED, STREAMED + 77])
def test_long_causal_runs_equal_the_definition(length: int, reach: int | None, tmp_path: Path) -> None:
    feeds = inputs(length, "right")
    assert (
        worst(open_attention(tmp_path, causal=True, reach=reach), feeds, expected(feeds, causal=True, reach=reach))
        <= 1e-6
    )


@pytest.mark.parametrize("side", SIDES)
def test_global_attention_equals_its_definition(side: str | None, tmp_path: Path) -> None:
    session = open_attention(tmp_path, causal=False)
    for length in (1, 2, 70):
        feeds = inputs(length, side)
        assert worst(session, feeds, expected(feeds, causal=False)) <= 1e-6


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("side", SIDES[1:])
@pytest.mark.parametrize("reach", [None, 12])
def test_padding_is_hidden_however_high_its_scores_are(
    reach: int | None, side: str, causal: bool, tmp_path: Path
) -> None:
    session = open_attention(tmp_path, causal=causal, reach=reach)
    for length in (2, 13, 70):
        feeds = inputs(length, side)
        feeds["key"][feeds["attention_mask"] == 0] *= 1e6
        assert worst(session, feeds, expected(feeds, causal=causal, reach=reach)) <= 1e-6, length


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("side", SIDES)
def test_half_precision_takes_the_same_ways(side: str | None, causal: bool, tmp_path: Path) -> None:
    session = open_attention(tmp_path, causal=causal, reach=40, precision="fp16")
    feeds = inputs(40 * FEWEST + 3, side)
    assert worst(session, feeds, expected(feeds, causal=causal, reach=40)) <= 5e-3


LONG = 600  # tokens: T x T scores of one head are larger than all that a way without them makes
WAYS = [
    (True, None, None, {"GroupQueryAttention"}, False),
    (True, 9, None, {"GroupQueryAttention"}, False),
    (True, 9, "right", {"GroupQueryAttention"}, False),
    (True, 9, "left", {"MultiHeadAttention"}, True),
    (False, 9, None, {"MultiHeadAttention"}, False),
    (False, 9, "left", {"MultiHeadAttention"}, False),
    (False, LONG, None, {"MultiHeadAttention"}, False),
    (False, LONG, "left", {"MultiHeadAttention"}, True),
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_long_run_avoids_a_bias_for_every_pair_where_it_can(
    way: tuple[bool, int | None, str | None, set[str], bool], tmp_path: Path
) -> None:
    """Checks the nodes that ran and the sizes of their outputs in ONNX Runtime's own profile."""
    causal, reach, side, kernel, square = way
    session = open_attention(tmp_path, causal=causal, reach=reach, profile=str(tmp_path / "profile"))
    session.run(None, inputs(LONG, side))
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = [event["args"] for event in events if event["cat"] == "Node" and "output_size" in event["args"]]
    assert {node["op_name"] for node in nodes if node["op_name"].endswith("Attention")} == kernel
    assert any(int(node["output_size"]) >= 4 * LONG**2 for node in nodes) == square


def test_a_long_causal_run_keeps_no_scores(tmp_path: Path) -> None:
    """The kernel's own workspace is in no profile, so the memory of a run is measured against that of its scores."""
    length = 4 * STREAMED
    session = open_attention(tmp_path, causal=True, arena=False)
    session.run(None, inputs(8, None))
    feeds = {name: value[:1] for name, value in inputs(length, None).items()}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    session.run(None, feeds)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < HEADS * length**2 * 4 / 2
