"""The types of arrays that travel through the package."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


IntArray = NDArray[np.int64]


Feeds = Mapping[str, IntArray]
