"""From an fp32 graph to one of integers: calibrate, widen what hurts most, measure, refuse what is too far away."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxembed.decisions.decide import Decisions
from onnxembed.errors import UnsupportedError, VerificationError
from onnxembed.export.artifact.graph_file import write_graph
from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.export.graph.graph import Graph
from onnxembed.export.progress import Progress
from onnxembed.export.quantize.calibration import (
    WatchingGraph,
    choose_sites,
    possible_smoothings,
    watch_channels,
    watch_rows,
)
from onnxembed.export.quantize.calibration_texts import Samples
from onnxembed.export.quantize.int8 import Int8Graph
from onnxembed.export.quantize.int8w import Int8WGraph
from onnxembed.export.quantize.int16 import Int16Graph
from onnxembed.export.quantize.opened_graph import Opened, cosines, open_file, opened
from onnxembed.export.quantize.plan import Plan
from onnxembed.export.quantize.sensitivity import GatedGraph
from onnxembed.manifest import MIN_COSINES, PoolingMode, Precision, Quality, Variant

MakeGraph = Callable[[Checkpoint], Graph]
Build = Callable[[MakeGraph], Graph]
"""Builds a model's whole graph in the vocabulary of the graph that is made for its weights."""

UNPLANNED: dict[Precision, MakeGraph] = {"int16": Int16Graph, "int8w": Int8WGraph}
"""What makes the graphs for which there is nothing to choose."""

ROOM = 0.55
"""The search goes on until the distance to 1 is this share of what is allowed: other texts may fare worse."""


def check_quantizable(decisions: Decisions, engine: str, precisions: Sequence[Precision]) -> None:
    """Refuse what has no form in integers: UnsupportedError, with what to do instead."""
    asked = f"--precision {','.join(precisions)}"
    if engine != "build":
        raise UnsupportedError(
            f"{asked}: a graph of engine {engine} is taken as it comes; only built ones can be quantized"
        )
    if decisions.embedding is None or decisions.sparse or decisions.multi_vector:
        raise UnsupportedError(
            f"{asked}: what rounding costs is measured for sentence embeddings alone, and this model gives other "
            "outputs; use fp16, or --task embedding where it has both"
        )


def write_quantized(
    build: Build,
    folder: Path,
    precision: Precision,
    samples: Samples,
    *,
    pooling: Sequence[PoolingMode],
    min_cosine: float | None,
    progress: Progress,
) -> Variant:
    """Write the `int16`, `int8` or `int8w` graph of a model; returns its manifest entry, with what was measured.

    Args:
        build: makes the graphs to compare.
        folder: the artifact's draft; temporary graphs lie in it, too.
        precision: "int16", "int8" or "int8w".
        samples: texts to calibrate on and to measure with.
        pooling: what is measured of a graph that does not pool itself.
        min_cosine: the lowest cosine with the fp32 vector that a text may have; MIN_COSINES when None.
        progress: told what is being done.

    Raises:
        UnsupportedError: the model has no products, or `min_cosine` is none.
        VerificationError: a held-back text's vector is further away than allowed; names what hurts most.
        MissingExtraError: onnxruntime is not installed.
    """
    floor = MIN_COSINES[precision] if min_cosine is None else min_cosine
    if not -1 <= floor <= 1:
        raise UnsupportedError(f"--min-cosine: {floor} is not a cosine")
    progress(f"calibrating {precision}", 0, 1)
    watching = WatchingGraph.made(build)
    if not watching.readers:
        raise UnsupportedError(f"--precision {precision}: this model has no matrix products; fp16 halves its table")
    if precision == "int8":
        with opened(watching, folder, pooling) as exact:
            expected = exact.vectors(samples.held_back)
            plan, damage = _plan(build, watching, exact, folder=folder, samples=samples, floor=floor)
        graph = build(lambda weights: Int8Graph(weights, plan))
        kept = tuple(sorted(plan.wide))
    else:
        with opened(watching, folder, pooling) as exact:
            expected = exact.vectors(samples.held_back)
        graph, kept, damage = build(UNPLANNED[precision]), (), {}
    variant = write_graph(graph, folder, precision, progress)
    found = cosines(open_file(folder / variant.file, pooling).vectors(samples.held_back), expected)
    lowest = float(found.min())
    if not lowest >= floor:
        worst = sorted(damage, key=lambda kind: -damage[kind])[:3]
        blame = f"; what hurts most: {', '.join(f'{kind} ({damage[kind]:.1e})' for kind in worst)}" if worst else ""
        raise VerificationError(
            f"{precision} vectors are too far from fp32's: min cosine {lowest:.6f} over {len(found)} texts, at least "
            f"{floor:g} is asked for{blame}. --min-cosine sets another limit, --calibration FILE takes texts like yours"
        )
    quality = Quality(
        texts=len(found),
        min_cosine=float(f"{lowest:.6f}"),
        mean_cosine=float(f"{found.mean():.6f}"),
        required=floor,
        kept_wider=kept,
    )
    return replace(variant, quality=quality)


def _plan(
    build: Build, watching: WatchingGraph, exact: Opened, *, folder: Path, samples: Samples, floor: float
) -> tuple[Plan, dict[str, float]]:
    """The plan for an int8 graph, and the damage that each kind of product and table does alone."""
    channels = watch_channels(watching, exact, samples.calibration)
    smoothings = possible_smoothings(watching, channels)
    rows_graph = WatchingGraph.made(build, smoothings)
    with opened(rows_graph, folder, exact.pooling) as session:
        rows = watch_rows(session, samples.calibration, smoothings)
    sites = choose_sites(watching, channels, smoothings, rows)
    expected = exact.vectors(samples.calibration)
    gated = GatedGraph.made(build, sites)
    with opened(gated, folder, exact.pooling) as session:

        def distances(wide: frozenset[str]) -> NDArray[np.float64]:
            """Of each text's vector to that of fp32, as 1 - cosine."""
            return 1 - cosines(session.vectors(samples.calibration, gated.gates(wide)), expected)

        kinds = _kinds(gated.keys)
        everything = frozenset(gated.keys)
        least = distances(everything).mean()
        damage = {kind: float(distances(everything - frozenset(keys)).mean() - least) for kind, keys in kinds.items()}
        order = [kinds[kind] for kind in _order(gated, kinds, damage, tables=frozenset(gated.keys) - sites.keys())]
        wide = _fewest(order, lambda each: bool(distances(each).max() <= ROOM * (1 - floor)))
    return Plan(sites, wide), damage


def _kinds(keys: Iterable[str]) -> dict[str, list[str]]:
    """The keys that are the same but for their numbers, as those of different layers are."""
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for key in keys:
        kinds[re.sub(r"\.\d+\.", ".N.", key)].append(key)
    return dict(kinds)


def _order(
    gated: GatedGraph, kinds: Mapping[str, Sequence[str]], damage: Mapping[str, float], tables: Set[str]
) -> list[str]:
    """The kinds in the order in which to widen them: tables, which cost no time; then the most damage for its size."""

    def rank(kind: str) -> tuple[float, float]:
        if kinds[kind][0] in tables:
            return 0, -damage[kind]
        sizes = (prod(gated.weights.shape(f"{key.partition('[')[0]}.weight")) for key in kinds[kind])
        return 1, -damage[kind] / sum(sizes)

    return sorted(kinds, key=rank)


def _fewest(order: Sequence[Sequence[str]], enough: Callable[[frozenset[str]], bool]) -> frozenset[str]:
    """The keys of the fewest first kinds that are enough; of all of them when none are."""
    wide: frozenset[str] = frozenset()
    for keys in order:
        if enough(wide):
            break
        wide |= frozenset(keys)
    return wide
