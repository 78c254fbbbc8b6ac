"""Vectors in fewer bytes: half floats, 8-bit numbers, or one bit for each number.

The same numbers, to the bit, as `quantize_embeddings` of sentence-transformers 6.2 gives, and float16 besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args, overload

import numpy as np

from onnxembed.arrays import Array, FloatArray
from onnxembed.counting import counted
from onnxembed.errors import UsageError
from onnxembed.warning import warn

OutputDtype = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
"""The types that vectors can have. "binary" packs eight bits into an int8, "ubinary" into a uint8."""

DTYPES: tuple[OutputDtype, ...] = get_args(OutputDtype)

STEPS = 255
"""The steps of 8 bits between the ends of a range."""

FEW = 100
"""Ranges of fewer vectors than this are a matter of chance; sentence-transformers warns below this number, too."""


@overload
def quantize_embeddings(
    embeddings: Array,
    precision: OutputDtype,
    ranges: Array | None = None,
    calibration_embeddings: Array | None = None,
) -> Array: ...


@overload
def quantize_embeddings(
    embeddings: list[Array],
    precision: OutputDtype,
    ranges: Array | None = None,
    calibration_embeddings: Array | None = None,
) -> Array | list[Array]: ...


def quantize_embeddings(
    embeddings: Array | list[Array],
    precision: OutputDtype,
    ranges: Array | None = None,
    calibration_embeddings: Array | None = None,
) -> Array | list[Array]:
    """Vectors [N, D] as another type: [N, D], or [N, ceil(D / 8)] bytes of bits for "binary" and "ubinary".

    For int8 and uint8, 255 equal steps divide the range of each dimension; what lies outside gets its end. A bit says
    whether a number is above 0. "binary" is "ubinary" minus 128.

    Args:
        embeddings: vectors [N, D] of floats, one vector [D], or a list of the vectors [T, D] of several texts, which
            gives a list.
        precision: "float32", "float16", "int8", "uint8", "binary" or "ubinary": the `dtype` of `OnnxEmbedder.encode`,
            by the name that sentence-transformers gives it here.
        ranges: for int8 and uint8: the lowest and the highest number of each dimension, [2, D].
        calibration_embeddings: vectors [M, D] to take the ranges from, where none are given. Without either, they are
            those of `embeddings`, and the same vector gets other numbers among other vectors.

    Raises:
        UsageError: vectors that are not finite floats or do not fit into float16, ranges of another shape, or a single
            vector without ranges.
    """
    dtype = check_dtype(precision)
    if isinstance(embeddings, list):
        if not embeddings:
            return []
        if np.ndim(embeddings[0]) == 2:
            if ranges is None and needs_ranges(dtype):
                ranges = _ranges_for(np.concatenate(embeddings), dtype, calibration_embeddings)
            return [quantize(matrix, dtype, ranges) for matrix in embeddings]
    vectors = np.asarray(embeddings)
    if ranges is None and needs_ranges(dtype):
        if vectors.shape[0] == 0:
            return vectors.astype(np.dtype(dtype))
        ranges = _ranges_for(vectors, dtype, calibration_embeddings)
    return quantize(vectors, dtype, ranges)


def quantize(vectors: Array, dtype: OutputDtype, ranges: Array | None) -> Array:
    """`quantize_embeddings` of an array [N, D] or [D], for which the ranges are known where they are needed."""
    if not np.issubdtype(vectors.dtype, np.floating):
        raise UsageError(f"the vectors to quantize are {vectors.dtype}, not floats")
    if dtype == "float32":
        return vectors.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise UsageError(f"the vectors to quantize are not finite, so they have no {dtype} form")
    if dtype == "float16":
        return _halves(vectors)
    if needs_ranges(dtype):
        starts, steps = _starts_and_steps(check_ranges(ranges, vectors.shape[-1]))
        numbers: Array = np.clip(np.floor((vectors - starts) / steps), 0, STEPS)
        return numbers.astype(np.uint8) if dtype == "uint8" else (numbers - 128).astype(np.int8)
    bits: Array = np.packbits(vectors > 0, axis=-1)
    return bits if dtype == "ubinary" else (bits - 128).astype(np.int8)


def restore(quantized: Array, dimensions: int, ranges: Array | None = None) -> FloatArray:
    """The vectors [N, dimensions] that quantized ones stand for: a bit is 1 or -1, 8 bits are a place in a range.

    The type and the width say which form they have: int8 and uint8 of `dimensions` numbers need `ranges` [2, D].
    Raises UsageError for vectors of no such form.
    """
    if np.issubdtype(quantized.dtype, np.floating) and quantized.shape[-1] == dimensions:
        return quantized.astype(np.float32)
    if quantized.dtype in (np.int8, np.uint8) and quantized.shape[-1] == dimensions > 1:
        starts, steps = _starts_and_steps(check_ranges(ranges, dimensions))
        return ((quantized.astype(np.float32) + (128 if quantized.dtype == np.int8 else 0)) * steps + starts).astype(
            np.float32
        )
    if quantized.dtype in (np.int8, np.uint8) and quantized.shape[-1] == width("ubinary", dimensions):
        bits = np.unpackbits(unsigned_bits(quantized), axis=-1, count=dimensions)
        return bits.astype(np.float32) * 2 - 1
    raise UsageError(
        f"vectors {quantized.dtype} of {quantized.shape[-1]} numbers are no quantized form of {dimensions} dimensions"
    )


def unsigned_bits(packed: Array) -> Array:
    """The bytes of "ubinary" for those of either binary form."""
    return packed if packed.dtype == np.uint8 else packed.view(np.uint8) ^ np.uint8(128)


def quantization_ranges(calibration_embeddings: Array) -> FloatArray:
    """The lowest and the highest number of each dimension, float32 [2, D], of vectors [M, D] that are typical.

    Keep them beside the vectors: all vectors that are compared must have been quantized with the same ranges. Warns
    where there are fewer than 100 vectors. UsageError unless there are two or more, all finite.
    """
    vectors = np.asarray(calibration_embeddings)
    if vectors.ndim != 2 or len(vectors) < 2:
        raise UsageError(f"ranges are taken from two or more vectors [M, D], not from the shape {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise UsageError("ranges are taken from finite vectors, and these are not")
    if len(vectors) < FEW:
        taken = counted(len(vectors), "vector")
        warn(f"the ranges of 8-bit vectors are taken from {taken}; {FEW} or more give steadier ones")
    return np.vstack((vectors.min(axis=0), vectors.max(axis=0))).astype(np.float32)


def check_dtype(dtype: str) -> OutputDtype:
    """The type, by its name; UsageError for another name."""
    for name in DTYPES:
        if dtype == name:
            return name
    raise UsageError(f"dtype is {dtype!r}, not one of {', '.join(DTYPES)}")


def needs_ranges(dtype: OutputDtype) -> bool:
    """Whether vectors of this type depend on the range of each dimension."""
    return dtype in ("int8", "uint8")


def check_ranges(ranges: Array | None, dimensions: int) -> FloatArray:
    """The ranges as float32 [2, D]; UsageError if there are none, or they are not those of `dimensions` numbers."""
    if ranges is None:
        raise UsageError(
            "int8 and uint8 vectors need ranges= (--ranges FILE), the same for all vectors that are compared: "
            "onnxembed.quantization_ranges(vectors of 100 or more typical texts)"
        )
    numbers = np.asarray(ranges).astype(np.float32, copy=False)
    if numbers.shape != (2, dimensions):
        raise UsageError(
            f"ranges have the shape {numbers.shape}, not (2, {dimensions}): the lowest and the highest number of each "
            "dimension"
        )
    if not np.isfinite(numbers).all() or (numbers[0] > numbers[1]).any():
        raise UsageError(
            "two rows are ranges only if no number of the first is above that of the second, and all are finite; to "
            "take ranges from vectors, give those of 100 or more typical texts"
        )
    return numbers


def width(dtype: OutputDtype, dimensions: int) -> int:
    """How many numbers a vector of this type has."""
    return (dimensions + 7) // 8 if dtype in ("binary", "ubinary") else dimensions


def numpy_type(dtype: OutputDtype) -> np.dtype[np.generic]:
    """The type of numpy that vectors of this type have."""
    return np.dtype({"binary": "int8", "ubinary": "uint8"}.get(dtype, dtype))


@dataclass(frozen=True, eq=False)
class Quantizing:
    """The type that vectors of `dimensions` numbers are given, with the ranges for it."""

    dtype: OutputDtype
    dimensions: int
    ranges: FloatArray | None = None

    @property
    def width(self) -> int:
        """How many numbers a vector has then."""
        return width(self.dtype, self.dimensions)

    @property
    def numpy_type(self) -> np.dtype[np.generic]:
        """The type of numpy that it has."""
        return numpy_type(self.dtype)

    def __call__(self, vectors: FloatArray) -> Array:
        """Vectors [N, D] in that type, [N, width]."""
        return vectors if self.dtype == "float32" else quantize(vectors, self.dtype, self.ranges)


def quantizing(dtype: str | None, dimensions: int, ranges: Array | None = None) -> Quantizing:
    """What makes vectors of a type; UsageError for an unknown type, and for ranges that are missing or not needed."""
    name = check_dtype("float32" if dtype is None else dtype)
    if needs_ranges(name):
        return Quantizing(name, dimensions, check_ranges(ranges, dimensions))
    if ranges is not None:
        raise UsageError(f"ranges are for dtype='int8' and 'uint8', not for {name!r}")
    return Quantizing(name, dimensions)


def _halves(vectors: Array) -> Array:
    with np.errstate(over="ignore"):  # said by the error
        halves: Array = vectors.astype(np.float16)
    if not np.isfinite(halves).all():
        raise UsageError(f"float16 has no numbers above {np.finfo(np.float16).max:.0f}, which these vectors have")
    return halves


def _ranges_for(embeddings: Array, dtype: OutputDtype, calibration_embeddings: Array | None) -> FloatArray:
    """The ranges of the vectors to calibrate with, else of the vectors themselves."""
    if calibration_embeddings is not None:
        found = np.asarray(calibration_embeddings)
        return np.vstack((found.min(axis=0), found.max(axis=0))).astype(np.float32)
    if embeddings.ndim == 1 or len(embeddings) == 1:
        raise UsageError(f"a single vector has no {dtype} ranges: pass ranges= or calibration_embeddings=")
    return quantization_ranges(embeddings)


def _starts_and_steps(ranges: FloatArray) -> tuple[FloatArray, FloatArray]:
    starts = ranges[0]
    steps = (ranges[1] - starts) / STEPS
    return starts, np.where(steps == 0, 1, steps)
