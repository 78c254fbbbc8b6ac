"""Number formats in which another system may compute, as data, and graphs that compute so. Needs the extra [export].

How a system rounds depends on its kernels, so that its vectors can seldom be given back exactly. But rounded weights
move each vector in a direction of its own, which no other cause does: `agreement` measures how well two directions
agree. In 384 dimensions it is 0 +- 0.05 by chance.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxembed.arrays import Array, FloatArray, row_cosines
from onnxembed.explain.setup import Hypothesis
from onnxembed.runtime.outputs.pooling import normalize

AGREED = 0.5
"""The least mean agreement; measured: 0.5 to 0.7 for bf16, 0.5 to 0.9 for int8, -0.3 to 0.3 for the wrong format."""

LEAST = 0.2
"""The least agreement of a row; measured: 0.2 to 0.8, and -0.3 to 0.2 beside a change that nobody made.

Some tiny models have less with nothing but rounding, 0.07 to 0.17: they stay unexplained.
"""

# Both moves are of one size, within this factor.
_SIZES = 3


@dataclass(frozen=True)
class NumberFormat:
    """One format: in words, the type that weights are rounded to, or options of ONNX Runtime's quantize_dynamic.

    The type of integers, `weight_type`, stands there as its name.
    """

    words: str
    weights: str = ""
    quantized: Mapping[str, Any] | None = None


_INT8 = "compute with integer weights and activations (dynamic int8"

FORMATS: Mapping[str, NumberFormat] = {
    "bf16": NumberFormat("compute in bf16, or with weights that were rounded to it", weights="bfloat16"),
    "int8": NumberFormat(f"{_INT8}, one scale for each weight)", quantized={"weight_type": "QInt8"}),
    "int8 per channel": NumberFormat(
        f"{_INT8}, one scale for each channel)", quantized={"weight_type": "QInt8", "per_channel": True}
    ),
    "uint8": NumberFormat(f"{_INT8}, weights of 7 bits)", quantized={"weight_type": "QUInt8", "reduce_range": True}),
}
"""By name."""


def number_formats() -> list[Hypothesis]:
    """The formats as hypotheses."""
    return [
        Hypothesis("number format", each.words, "compute in fp32", build={"numbers": name})
        for name, each in FORMATS.items()
    ]


def rounded(tensor: Array, name: str) -> Array:
    """A weight, rounded to the type of a format and back."""
    import ml_dtypes

    dtype = FORMATS[name].weights if name else ""
    if not dtype or tensor.dtype.kind != "f":
        return tensor
    whole: Array = tensor.astype(getattr(ml_dtypes, dtype)).astype(tensor.dtype)
    return whole


def quantize(graph: Path, name: str, *, external: bool) -> None:
    """Put a graph's quantized form in its place, where a format asks for it."""
    options = FORMATS[name].quantized
    if options is None:
        return
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    made = graph.with_name("quantized.onnx")
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises to run a step that fused graphs do not need
    try:
        quantize_dynamic(
            graph,
            made,
            **{**options, "weight_type": QuantType[options["weight_type"]]},
            use_external_data_format=external,
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )
    finally:
        logging.disable(disabled)
    made.replace(graph)


@dataclass(frozen=True)
class Agreement:
    """How well the moves from exact vectors to theirs agree with those to rounded ones, over all rows."""

    mean: float
    least: float
    ratio: float
    """The size of the rounded ones' move by that of theirs, in the row in the middle."""

    @property
    def likely(self) -> bool:
        """Whether chance does not give it, on average and in size."""
        return self.mean >= AGREED and 1 / _SIZES <= self.ratio <= _SIZES

    @property
    def holds(self) -> bool:
        """Whether it is so in every row, too: else something beside it moves some of them."""
        return self.likely and self.least >= LEAST


def agreement(exact: FloatArray, rounded_ones: FloatArray, theirs: FloatArray) -> Agreement:
    """The agreement of vectors [N, D], of any length."""
    base = normalize(exact)
    to_theirs, to_rounded = normalize(theirs) - base, normalize(rounded_ones) - base
    sizes = np.linalg.norm(to_rounded, axis=1) / np.maximum(
        np.linalg.norm(to_theirs, axis=1), np.finfo(np.float32).tiny
    )
    if not to_rounded.any(axis=1).all():
        return Agreement(0.0, 0.0, 0.0)
    cosines = row_cosines(to_rounded, to_theirs)
    return Agreement(float(cosines.mean()), float(cosines.min()), float(np.median(sizes)))
