"""What calibration decides about every product of a graph, by the product's key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from onnxembed.export.graph.graph import Array


@dataclass(frozen=True)
class Site:
    """How a value is made into 8-bit integers, for all the products that read it.

    `smoothing` float32 [K] divides the value's channels and multiplies the weights', or is None.
    `zero_point` is the integer that stands for 0.
    """

    smoothing: Array | None = None
    zero_point: int = 128


@dataclass(frozen=True)
class Plan:
    """The site of each product, and the products and tables whose weights take two bytes instead of one."""

    sites: Mapping[str, Site]
    wide: frozenset[str] = field(default=frozenset())


def product_key(name: str, rows: slice | None) -> str:
    """What a product is called: its Linear's name, and which of its rows it takes."""
    return name if rows is None else f"{name}[{rows.start}:{rows.stop}]"


BYTE = 127
"""The largest integer of a narrow weight; -128 is left out, so that both signs reach equally far."""

REST = 254
"""The second byte's step is this part of the first's: what is left over is at most half a step."""


def row_scales(tensor: Array, largest: int = BYTE) -> Array:
    """The step of each row's integers from -largest to largest; rows of zeros have the step 1."""
    reach = np.abs(tensor).max(axis=1)
    return np.where(reach > 0, reach / np.float32(largest), np.float32(1)).astype(np.float32)


def rounded_rows(tensor: Array, largest: int = BYTE) -> Array:
    """The rows of a matrix in whole steps of `row_scales`."""
    rounded: Array = np.rint(tensor / row_scales(tensor, largest)[:, None])
    return rounded


def rounded_rest(tensor: Array) -> Array:
    """What `rounded_rows` leaves over, in steps REST times finer."""
    steps = tensor / row_scales(tensor)[:, None]
    rest: Array = np.rint((steps - np.rint(steps)) * np.float32(REST))
    return rest
