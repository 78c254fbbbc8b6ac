"""How the values that products read are distributed, measured by running the fp32 graph on texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from onnx import TensorProto, helper

from onnxembed.arrays import Array, Feeds
from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.quantize.opened_graph import OpenedGraph
from onnxembed.export.quantize.rounding import ActivationQuant, BuildModel, product_key, rounded_rows, row_scales

ALPHAS = (0.5, 0.65, 0.8)
"""How much of an outlier may move into the weights: of these and no smoothing, each value takes the one that loses
least.
"""

WORTH = 0.9
"""Smoothing costs a pass over the value, so it must lower the error to at most this share."""

LOWEST_CHANNEL = 1e-3
"""Channels whose largest value is below this share of the largest channel's are smoothed as if they had that share."""

Smoothing = Array | None
"""What divides the channels of a value, float32 [K]; None for no smoothing."""

Smoothings = Mapping[Value, Sequence[Smoothing]]
"""The smoothings to compare for each value, the first of them None."""


@dataclass(frozen=True)
class Reader:
    """A product: its Linear, which of the Linear's rows it takes, and the value that it reads."""

    name: str
    rows: slice | None
    x: Value

    @property
    def key(self) -> str:
        """The product's `product_key`."""
        return product_key(self.name, self.rows)


@dataclass(frozen=True)
class Channels:
    """The channels of a value, each [K]: largest absolute values, means, and means of the squares."""

    largest: Array
    means: Array
    squares: Array


@dataclass(frozen=True)
class Rounding:
    """How finely the rows of a value can be rounded: the best zero point, and the mean square of the rows' scales."""

    zero_point: int
    mean_square_scale: float


class WatchingGraph(Graph):
    """An fp32 graph with additional outputs: statistics of the values that products read.

    Without smoothings, of each channel: "largest:X", "sums:X" and "squares:X" [K], the largest absolute value and
    the sums over the tokens. With them, of each token under the i-th: "above:X:i" and "below:X:i" [rows], the largest
    and the lowest value.
    """

    def __init__(self, weights: Checkpoint, smoothings: Smoothings | None = None) -> None:
        super().__init__(weights, "fp32")
        self.readers: list[Reader] = []
        self._smoothings = smoothings

    @classmethod
    def of_model(cls, build: BuildModel, smoothings: Smoothings | None = None) -> Self:
        """The whole graph of a model."""
        graph = build(lambda weights: cls(weights, smoothings))
        assert isinstance(graph, cls)
        return graph

    def product(self, x: Value, name: str, rows: slice | None = None) -> Value:
        """The fp32 product; its value is watched."""
        if x not in self.values():
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
        """A product's weight, float32 [N, K]."""
        weight = np.asarray(self.weights.read(f"{reader.name}.weight"), np.float32)
        return weight if reader.rows is None else weight[reader.rows]


def watch_channels(graph: WatchingGraph, opened: OpenedGraph, texts: Iterable[Feeds]) -> dict[Value, Channels]:
    """The channels of every watched value over all texts; `opened` is `graph`, which has no smoothings."""
    values = graph.values()
    names = [f"{statistic}:{x}" for x in values for statistic in ("largest", "sums", "squares")]
    largest: dict[Value, Array] = {}
    sums: dict[Value, Array] = {}
    squares: dict[Value, Array] = {}
    tokens = 0
    for feeds in texts:
        tokens += feeds["input_ids"].size
        outputs = opened.run(names, feeds)
        for x, most, total, square in zip(values, outputs[::3], outputs[1::3], outputs[2::3], strict=True):
            largest[x] = np.maximum(largest.get(x, most), most)
            sums[x] = sums.get(x, np.float64(0)) + total.astype(np.float64)
            squares[x] = squares.get(x, np.float64(0)) + square.astype(np.float64)
    return {x: Channels(largest[x], sums[x] / tokens, squares[x] / tokens) for x in values}


def possible_smoothings(graph: WatchingGraph, channels: Mapping[Value, Channels]) -> dict[Value, list[Smoothing]]:
    """For every value: None, and amax ** a / wmax ** (1 - a) for each a of ALPHAS, with a geometric mean of 1."""
    smoothings: dict[Value, list[Smoothing]] = {}
    for x, of_value in channels.items():
        weight = np.max([np.abs(graph.matrix(reader)).max(axis=0) for reader in graph.readers_of(x)], axis=0)
        amax, wmax = _logarithms(of_value.largest), _logarithms(weight)
        smoothings[x] = [None]
        for alpha in ALPHAS:
            logs = alpha * amax - (1 - alpha) * wmax
            smoothings[x].append(np.exp(logs - logs.mean()).astype(np.float32))
    return smoothings


def _logarithms(largest: Array) -> Array:
    logs: Array = np.log(np.maximum(largest, max(largest.max() * LOWEST_CHANNEL, 1e-20)))
    return logs


def watch_rows(
    opened: OpenedGraph, texts: Iterable[Feeds], smoothings: Smoothings
) -> dict[tuple[Value, int], Rounding]:
    """How finely the rows of every value can be rounded under each of its smoothings, by value and smoothing."""
    watched = [(x, i) for x, of_value in smoothings.items() for i in range(len(of_value))]
    names = [f"{side}:{x}:{i}" for x, i in watched for side in ("above", "below")]
    points = np.arange(1, 255, dtype=np.float64)
    sums = {place: np.zeros(len(points)) for place in watched}
    tokens = 0
    for feeds in texts:
        tokens += feeds["input_ids"].size
        outputs = opened.run(names, feeds)
        for place, above, below in zip(watched, outputs[::2], outputs[1::2], strict=True):
            scales = np.maximum(above[:, None] / (255 - points), -below[:, None] / points)  # [rows, points]
            sums[place] += np.square(scales).sum(axis=0)
    return {place: Rounding(int(points[of.argmin()]), float(of.min()) / tokens) for place, of in sums.items()}


def choose_activations(
    graph: WatchingGraph,
    channels: Mapping[Value, Channels],
    smoothings: Smoothings,
    roundings: Mapping[tuple[Value, int], Rounding],
) -> dict[str, ActivationQuant]:
    """How the value of every product is quantized: smoothed so that its products lose the least of their energy."""
    activations: dict[str, ActivationQuant] = {}
    for x, options in smoothings.items():
        readers = graph.readers_of(x)
        matrices = [graph.matrix(reader) for reader in readers]
        errors = []
        for i, smoothing in enumerate(options):
            shares = [_weight_share(matrix, channels[x], smoothing) for matrix in matrices]
            variance = roundings[x, i].mean_square_scale / 12  # of a rounding error
            values = [
                variance * _total(matrix if smoothing is None else matrix * smoothing) / _energy(matrix, channels[x])
                for matrix in matrices
            ]
            errors.append(sum(shares) + sum(values))
        best = min(range(len(options)), key=errors.__getitem__)
        best = best if errors[best] < WORTH * errors[0] else 0
        quant = ActivationQuant(options[best], roundings[x, best].zero_point)
        activations |= {reader.key: quant for reader in readers}
    return activations


def _energy(matrix: Array, channels: Channels) -> float:
    """The mean square of a product's outputs, summed, as if its channels were uncorrelated; never 0."""
    return max(float((np.square(matrix) @ channels.squares).sum()), 1e-30)


def _total(matrix: Array) -> float:
    return float(np.square(matrix).sum())


def _weight_share(matrix: Array, channels: Channels, smoothing: Smoothing) -> float:
    """The share of a product's energy that rounding its weights loses.

    Channels are taken to vary independently around their means.
    """
    smooth = matrix if smoothing is None else matrix * smoothing
    errors = rounded_rows(smooth) * row_scales(smooth)[:, None] - smooth
    errors = errors if smoothing is None else errors / smoothing
    variance = channels.squares - np.square(channels.means)
    lost = np.square(errors) @ variance + np.square(errors @ channels.means)
    return float(lost.sum()) / _energy(matrix, channels)
