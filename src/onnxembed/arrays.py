"""The types of arrays that travel through the package, and the cosine of their rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = np.ndarray[Any, Any]
"""An array of any type."""

FloatArray = NDArray[np.float32]

IntArray = NDArray[np.int64]

Feeds = Mapping[str, IntArray]
"""A graph's inputs by name, each [B, T]."""


def row_cosines(ours: FloatArray, theirs: FloatArray) -> NDArray[np.float64]:
    """The cosine of each row of `ours` with the same row of `theirs`: [N, D], [N, D] -> [N].

    A row of zeros has no direction: its cosine is 1 with another row of zeros, 0 with anything else.
    """
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    both = lengths[0] * lengths[1]
    cosines: NDArray[np.float64] = np.where(
        both > 0, (a * b).sum(axis=1) / np.where(both > 0, both, 1), lengths[0] == lengths[1]
    )
    return cosines
