"""What the values that products read look like, measured by running the fp32 graph on texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from onnx import TensorProto, helper

from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.export.graph.graph import Array, Graph, Value
from onnxembed.export.quantize.calibration_texts import Feeds
from onnxembed.export.quantize.opened_graph import Opened
from onnxembed.export.quantize.plan import Site, product_key, rounded_rows, row_scales

ALPHAS = (0.5, 0.65, 0.8)
"""How much of an outlier may go into the weights; each value takes what loses least, or is not smoothed."""

WORTH = 0.9
"""Smoothing costs a pass over the value, so it must bring its error down to this share."""


@dataclass(frozen=True)
class Reader:
    """A product: its Linear, which rows of it, and the value that it multiplies."""

    name: str
    rows: slice | None
    x: Value

    @property
    def key(self) -> str:
        """As `product_key`."""
        return product_key(self.name, self.rows)


class WatchingGraph(Graph):
    """An fp32 graph that also gives statistics of the values that products read.

    Without smoothings, of each channel: "largest:X", "sums:X" and "squares:X" [K], the largest absolute value and
    the sums over the tokens. With them, of each token under the i-th: "above:X:i" and "below:X:i" [rows].
    """

    def __init__(self, weights: Checkpoint, smoothings: Mapping[Value, Sequence[Array | None]] | None = None) -> None:
        super().__init__(weights, "fp32")
        self.readers: list[Reader] = []
        self._smoothings = smoothings

    @classmethod
    def made(
        cls,
        build: Callable[[Callable[[Checkpoint], Graph]], Graph],
        smoothings: Mapping[Value, Sequence[Array | None]] | None = None,
    ) -> Self:
        """The whole graph of a model."""
        graph = build(lambda weights: cls(weights, smoothings))
        assert isinstance(graph, cls)
        return graph

    def product(self, x: Value, name: str, rows: slice | None = None) -> Value:
        """The product itself, its value watched."""
        if all(x != other.x for other in self.readers):
            self._watch(x, self.weights.shape(f"{name}.weight")[1])
        self.readers.append(Reader(name, rows, x))
        return super().product(x, name, rows)

    def _watch(self, x: Value, width: int) -> None:
        flat = self.op("Reshape", x, self.integers(-1, width))
        if self._smoothings is None:
            self._statistic("ReduceMax", self.op("Abs", flat), f"largest:{x}", 0)
            self._statistic("ReduceSum", flat, f"sums:{x}", 0)
            self._statistic("ReduceSumSquare", flat, f"squares:{x}", 0)
            return
        for i, smoothing in enumerate(self._smoothings[x]):
            smooth = flat if smoothing is None else self.op("Div", flat, self.constant(f"smoothing:{x}:{i}", smoothing))
            self._statistic("ReduceMax", smooth, f"above:{x}:{i}", -1)
            self._statistic("ReduceMin", smooth, f"below:{x}:{i}", -1)

    def _statistic(self, op_type: str, x: Value, name: str, axis: int) -> None:
        self._nodes.append(helper.make_node(op_type, [x, self.integers(axis)], [name], name=name, keepdims=0))
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ("values",)))

    def values(self) -> list[Value]:
        """The watched values, each once."""
        return list(dict.fromkeys(reader.x for reader in self.readers))

    def readers_of(self, x: Value) -> list[Reader]:
        """The products that read a value."""
        return [reader for reader in self.readers if reader.x == x]

    def matrix(self, reader: Reader) -> Array:
        """A product's weight, float32 (out, in)."""
        weight = np.asarray(self.weights.read(f"{reader.name}.weight"), np.float32)
        return weight if reader.rows is None else weight[reader.rows]


@dataclass(frozen=True)
class Channels:
    """Of each channel of a value [K]: the largest absolute value, the mean, and the mean of the squares."""

    largest: Array
    means: Array
    squares: Array


def watch_channels(graph: WatchingGraph, session: Opened, feeds: Iterable[Feeds]) -> dict[Value, Channels]:
    """The channels of every watched value, over all texts; the graph has no smoothings."""
    values = graph.values()
    largest: dict[Value, Array] = {}
    sums: dict[Value, Array] = {}
    squares: dict[Value, Array] = {}
    tokens = 0
    for each in feeds:
        tokens += each["input_ids"].size
        names = [f"{statistic}:{x}" for x in values for statistic in ("largest", "sums", "squares")]
        found = session.run(names, each)
        for x, most, total, square in zip(values, found[::3], found[1::3], found[2::3], strict=True):
            largest[x] = np.maximum(largest.get(x, most), most)
            sums[x] = sums.get(x, np.float64(0)) + total.astype(np.float64)
            squares[x] = squares.get(x, np.float64(0)) + square.astype(np.float64)
    return {x: Channels(largest[x], sums[x] / tokens, squares[x] / tokens) for x in values}


def possible_smoothings(graph: WatchingGraph, channels: Mapping[Value, Channels]) -> dict[Value, list[Array | None]]:
    """For every value none, and amax ** a / wmax ** (1 - a) for each of ALPHAS, of geometric mean 1."""
    smoothings: dict[Value, list[Array | None]] = {}
    for x, seen in channels.items():
        weight = np.max([np.abs(graph.matrix(reader)).max(axis=0) for reader in graph.readers_of(x)], axis=0)
        amax, wmax = (np.log(np.maximum(each, max(each.max() * 1e-3, 1e-20))) for each in (seen.largest, weight))
        smoothings[x] = [None]
        for alpha in ALPHAS:
            logs = alpha * amax - (1 - alpha) * wmax
            smoothings[x].append(np.exp(logs - logs.mean()).astype(np.float32))
    return smoothings


def watch_rows(
    session: Opened, feeds: Iterable[Feeds], smoothings: Mapping[Value, Sequence[Array | None]]
) -> dict[tuple[Value, int], tuple[int, float]]:
    """For every value under every smoothing: the zero point with the finest steps, and the mean of their squares."""
    watched = [(x, i) for x, each in smoothings.items() for i in range(len(each))]
    points = np.arange(1, 255, dtype=np.float64)
    sums = {each: np.zeros(len(points)) for each in watched}
    tokens = 0
    for each in feeds:
        tokens += each["input_ids"].size
        found = session.run([f"{side}:{x}:{i}" for x, i in watched for side in ("above", "below")], each)
        for place, above, below in zip(watched, found[::2], found[1::2], strict=True):
            steps = np.maximum(above[:, None] / (255 - points), -below[:, None] / points)  # [rows, points]
            sums[place] += np.square(steps).sum(axis=0)
    return {place: (int(points[each.argmin()]), float(each.min()) / tokens) for place, each in sums.items()}


def choose_sites(
    graph: WatchingGraph,
    channels: Mapping[Value, Channels],
    smoothings: Mapping[Value, Sequence[Array | None]],
    rows: Mapping[tuple[Value, int], tuple[int, float]],
) -> dict[str, Site]:
    """The site of every product: that of its value, smoothed as its products lose the least of their energy."""
    sites: dict[str, Site] = {}
    for x, options in smoothings.items():
        readers = graph.readers_of(x)
        matrices = [graph.matrix(reader) for reader in readers]
        errors = []
        for i, smoothing in enumerate(options):
            shares = [_weight_share(matrix, channels[x], smoothing) for matrix in matrices]
            step = rows[x, i][1] / 12  # the variance of a rounding error
            values = [
                step * _total(matrix if smoothing is None else matrix * smoothing) / _energy(matrix, channels[x])
                for matrix in matrices
            ]
            errors.append(sum(shares) + sum(values))
        best = min(range(len(options)), key=errors.__getitem__)
        best = best if errors[best] < WORTH * errors[0] else 0
        site = Site(options[best], rows[x, best][0])
        sites |= {reader.key: site for reader in readers}
    return sites


def _energy(matrix: Array, seen: Channels) -> float:
    return max(float((np.square(matrix) @ seen.squares).sum()), 1e-30)


def _total(matrix: Array) -> float:
    return float(np.square(matrix).sum())


def _weight_share(matrix: Array, seen: Channels, smoothing: Array | None) -> float:
    """What rounding the weights loses of a product's energy, channels varying independently around their means."""
    smooth = matrix if smoothing is None else matrix * smoothing
    errors = rounded_rows(smooth) * row_scales(smooth)[:, None] - smooth
    errors = errors if smoothing is None else errors / smoothing
    variance = seen.squares - np.square(seen.means)
    lost = np.square(errors) @ variance + np.square(errors @ seen.means)
    return float(lost.sum()) / _energy(matrix, seen)
