"""Make integer graphs: calibrate, keep what is most sensitive wider, measure, and refuse what is too far from fp32."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxembed.errors import UnsupportedError, VerificationError
from onnxembed.execution.processor import read_processor
from onnxembed.export.artifact.graph_file import write_graph
from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.export.graph.graph import Graph
from onnxembed.export.quantize.calibration import (
    WatchingGraph,
    choose_activations,
    possible_smoothings,
    watch_channels,
    watch_rows,
)
from onnxembed.export.quantize.calibration_texts import Samples
from onnxembed.export.quantize.int8 import Int8Graph
from onnxembed.export.quantize.int8w import Int8WGraph
from onnxembed.export.quantize.int16 import Int16Graph
from onnxembed.export.quantize.measures import Measure
from onnxembed.export.quantize.opened_graph import OpenedGraph, open_graph, temporarily_opened
from onnxembed.export.quantize.rounding import BuildModel, QuantPlan
from onnxembed.export.quantize.sensitivity import GatedGraph
from onnxembed.manifest import Precision, Variant
from onnxembed.progress import Progress

PRODUCTS_OF_BYTES = ("int16", "int8")
"""The precisions that want a processor with integer dot products."""

# The search goes on until a text's distance to its fp32 vector is this share of what is allowed: other texts may be
# further away than those it sees.
MARGIN = 0.55


@dataclass(frozen=True)
class IntegerGraph:
    """A graph to write, and what was found out on the way to it.

    Attributes:
        graph: the graph.
        kept_wider: the products and tables that stay 16-bit in an 8-bit graph, sorted.
        damage: the mean distance to fp32 that each layer group adds when it alone is 8-bit; for messages.
    """

    graph: Graph
    kept_wider: tuple[str, ...] = ()
    damage: Mapping[str, float] = field(default_factory=dict)


def write_quantized(
    build: BuildModel,
    folder: Path,
    precision: Precision,
    samples: Samples,
    *,
    measure: Measure,
    progress: Progress,
) -> Variant:
    """Write the `int16`, `int8` or `int8w` graph of a model; returns its manifest entry, with the measured quality.

    Args:
        build: builds the model's graph, in fp32 and in integers.
        folder: the artifact's draft; temporary graphs are written below it, too.
        precision: "int16", "int8" or "int8w".
        samples: texts or pairs to calibrate on and to measure with.
        measure: how the graph is compared with fp32, and how near it must be.
        progress: told what is being done.

    Raises:
        UnsupportedError: the model has no matrix products.
        VerificationError: the results of held-back texts are further away than allowed; names what costs most.
        MissingExtraError: onnxruntime is not installed.
    """
    progress(f"preparing {precision}", 0, 1)
    watching = WatchingGraph.of_model(build)
    if not watching.readers:
        raise UnsupportedError(
            f"--precision {precision}: this model has no matrix products to quantize; fp16 halves its table"
        )
    with temporarily_opened(watching, folder, measure) as exact:
        expected = exact.vectors(samples.held_back)
        integer = _integer_graph(build, precision, watching, exact, folder=folder, samples=samples)
    variant = write_graph(integer.graph, folder, precision, progress)
    ours = open_graph(folder / variant.file, measure).vectors(samples.held_back)
    quality = measure.quality(ours, expected, integer.kept_wider)
    name, lowest = measure.lowest(quality)
    if not lowest >= measure.floor:
        raise VerificationError(
            f"{precision} {measure.what} are too far from those of fp32: {name} {lowest:.6f} over {quality.texts} "
            f"{samples.what}, at least {measure.floor:g} is required{_most_sensitive(integer.damage)}. {measure.flag} "
            f"sets another limit, --calibration FILE calibrates on texts like yours{_of_processor(precision)}"
        )
    return replace(variant, quality=quality)


def _most_sensitive(damage: Mapping[str, float]) -> str:
    """The layer groups that cost most, as the end of a message; "" without any."""
    worst = sorted(damage, key=lambda group: -damage[group])[:3]
    return f"; what costs most: {', '.join(f'{group} ({damage[group]:.1e})' for group in worst)}" if worst else ""


def _of_processor(precision: Precision) -> str:
    """What this processor may have to do with it, as the end of a message; "" where it is not known to."""
    processor = read_processor()
    if precision not in PRODUCTS_OF_BYTES or not processor.cuts_off_sums:
        return ""
    return (
        f". This processor may be the cause: {processor.name} has no VNNI, and adds products of bytes in 16 bits, "
        f"where large ones are cut off. Use fp32 or fp16 here, and export {precision} on a processor that has it"
    )


def _integer_graph(
    build: BuildModel,
    precision: Precision,
    watching: WatchingGraph,
    exact: OpenedGraph,
    *,
    folder: Path,
    samples: Samples,
) -> IntegerGraph:
    """The graph of an integer precision; `exact` is `watching`, the fp32 graph, opened."""
    if precision == "int16":
        return IntegerGraph(build(Int16Graph))
    if precision == "int8w":
        return IntegerGraph(build(Int8WGraph))
    plan, damage = _plan(build, watching, exact, folder=folder, samples=samples)

    def int8(weights: Checkpoint) -> Graph:
        return Int8Graph(weights, plan)

    return IntegerGraph(build(int8), tuple(sorted(plan.high_precision)), damage)


def _plan(
    build: BuildModel, watching: WatchingGraph, exact: OpenedGraph, *, folder: Path, samples: Samples
) -> tuple[QuantPlan, dict[str, float]]:
    """The plan of an int8 graph, and the damage that each layer group does when it alone is 8-bit."""
    channels = watch_channels(watching, exact, samples.calibration)
    smoothings = possible_smoothings(watching, channels)
    with temporarily_opened(WatchingGraph.of_model(build, smoothings), folder, exact.measure) as opened:
        roundings = watch_rows(opened, samples.calibration, smoothings)
    activations = choose_activations(watching, channels, smoothings, roundings)
    expected = exact.vectors(samples.calibration)
    gated = GatedGraph.of_model(build, activations)
    with temporarily_opened(gated, folder, exact.measure) as opened:

        def distances(high_precision: frozenset[str]) -> NDArray[np.float64]:
            """How far the result of each text is from that of fp32."""
            ours = opened.vectors(samples.calibration, gated.gates(high_precision))
            return exact.measure.distances(ours, expected)

        groups = _layer_groups(gated.keys)
        everything = frozenset(gated.keys)
        least = distances(everything).mean()
        damage = {
            group: float(distances(everything - frozenset(keys)).mean() - least) for group, keys in groups.items()
        }
        order = _by_sensitivity(gated, groups, damage, tables=everything - activations.keys())
        allowed = MARGIN * (1 - exact.measure.floor)
        high_precision = _fewest(
            [groups[group] for group in order], lambda keys: bool(distances(keys).max() <= allowed)
        )
    return QuantPlan(activations, high_precision), damage


def _layer_groups(keys: Iterable[str]) -> dict[str, list[str]]:
    """Keys grouped by their name without the layer's number: the same product of all layers is one group."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for key in keys:
        groups[re.sub(r"\.\d+\.", ".N.", key)].append(key)
    return dict(groups)


def _by_sensitivity(
    gated: GatedGraph, groups: Mapping[str, Sequence[str]], damage: Mapping[str, float], tables: Set[str]
) -> list[str]:
    """The groups in the order in which to keep them in high precision.

    Tables come first, because they cost no time; then what does the most damage for its size.
    """

    def rank(group: str) -> tuple[float, float]:
        if groups[group][0] in tables:
            return 0, -damage[group]
        sizes = (prod(gated.weights.shape(f"{key.partition('[')[0]}.weight")) for key in groups[group])
        return 1, -damage[group] / sum(sizes)

    return sorted(groups, key=rank)


def _fewest(order: Sequence[Sequence[str]], enough: Callable[[frozenset[str]], bool]) -> frozenset[str]:
    """The keys of as few of the first groups as are enough, or of all groups if no number of them is."""
    keys: frozenset[str] = frozenset()
    for group in order:
        if enough(keys):
            break
        keys |= frozenset(group)
    return keys
