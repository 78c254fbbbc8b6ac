"""Where a tensor of a checkpoint lies in its file, for every file format."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

# The types that numpy (with ml_dtypes) has, under safetensors' names.
DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


@dataclass(frozen=True)
class TensorRecord:
    """Where one tensor lies.

    `strides` are the steps between neighbors of each axis, in elements; None when the last axis is the
    densest and nothing lies between, as always in safetensors.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...] | None = None

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return int(np.dtype(DTYPES[self.dtype]).itemsize)

    @property
    def elements(self) -> int:
        """How many elements of the file the tensor reaches over, from its first to its last."""
        if self.strides is None or 0 in self.shape:
            return prod(self.shape)
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))

    @property
    def end(self) -> int:
        """The first byte after the tensor."""
        return self.offset + self.elements * self.itemsize

    def map(self) -> np.ndarray[Any, Any]:
        """The tensor as a read-only view of the file, in its stored type."""
        dtype = np.dtype(DTYPES[self.dtype])
        if 0 in self.shape:
            return np.zeros(self.shape, dtype)  # nothing to map
        if self.strides is None:
            return np.memmap(self.file, dtype, "r", self.offset, self.shape)
        reach = np.memmap(self.file, dtype, "r", self.offset, (self.elements,))
        steps = [stride * self.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(reach, self.shape, steps, writeable=False)
