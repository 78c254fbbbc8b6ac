"""What calibration decides about every product of a graph, and how weights become integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from onnxembed.arrays import Array
from onnxembed.export.graph.graph import Graph, GraphFactory

BuildModel = Callable[[GraphFactory], Graph]
"""Builds a model's whole graph, from inputs to outputs, in the graph that the factory makes for its weights."""

BYTE = 127
"""The largest integer of an 8-bit weight; -128 is left out, so that both signs reach equally far."""

RESIDUAL = 254
"""The scale of a second byte is the first's divided by this: rounding leaves at most half a unit over."""


@dataclass(frozen=True)
class ActivationQuant:
    """How a value is quantized to 8 bits, for all the products that read it.

    Attributes:
        smoothing: float32 [K]; divides the value's channels and multiplies the weights'. None for no smoothing.
        zero_point: the integer that stands for 0.
    """

    smoothing: Array | None = None
    zero_point: int = 128


@dataclass(frozen=True)
class QuantPlan:
    """How an int8 graph is quantized.

    Attributes:
        activations: how the value of each product is quantized, by `product_key`.
        high_precision: the products and tables whose weights take two bytes instead of one.
    """

    activations: Mapping[str, ActivationQuant]
    high_precision: frozenset[str] = frozenset()


def product_key(name: str, rows: slice | None) -> str:
    """The name of a product: that of its Linear, and which of its rows it takes."""
    return name if rows is None else f"{name}[{rows.start}:{rows.stop}]"


def row_scales(tensor: Array, largest: int = BYTE) -> Array:
    """The scale of each row of a matrix, whose integers run from -largest to largest; 1 for rows of zeros."""
    reach = np.abs(tensor).max(axis=1)
    return np.where(reach > 0, reach / np.float32(largest), np.float32(1)).astype(np.float32)


def rounded_rows(tensor: Array, largest: int = BYTE) -> Array:
    """The rows of a matrix divided by their `row_scales`, rounded."""
    rounded: Array = np.rint(tensor / row_scales(tensor, largest)[:, None])
    return rounded


def rounded_residual(tensor: Array) -> Array:
    """What `rounded_rows` leaves over, with scales RESIDUAL times smaller, rounded."""
    scaled = tensor / row_scales(tensor)[:, None]
    residual: Array = np.rint((scaled - np.rint(scaled)) * np.float32(RESIDUAL))
    return residual
