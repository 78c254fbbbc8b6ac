"""Linears with a file of their own next to the checkpoint, such as bge-m3's heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onnxembed.arrays import Array
from onnxembed.errors import ModelFilesError
from onnxembed.export.checkpoint.pickles import read_pickle
from onnxembed.export.checkpoint.safetensors import read_safetensors
from onnxembed.export.checkpoint.tensors import WEIGHT_DTYPES, check_finite

FORMATS = {".pt": read_pickle, ".safetensors": read_safetensors}


def read_linear(file: Path, in_features: int, out_features: int | None = None) -> tuple[Array, Array | None]:
    """The float32 weight [out, in] of the Linear in `file`, and its bias [out] or None.

    Raises ModelFilesError for a file with other contents, or with a Linear of another width.
    """
    records = FORMATS[file.suffix](file)
    if "weight" not in records or records.keys() - {"weight", "bias"}:
        raise ModelFilesError(f"{file} holds {', '.join(sorted(records)) or 'nothing'}, not a Linear's weight and bias")
    weight, *others = (records[name] for name in ("weight", "bias") if name in records)
    wanted = (out_features or weight.shape[0], in_features)
    for record, shape in ((weight, wanted), *((bias, wanted[:1]) for bias in others)):
        if record.shape != shape or record.dtype not in WEIGHT_DTYPES:
            raise ModelFilesError(f"{file} has a tensor of shape {record.shape} ({record.dtype}), not {shape}")
    arrays = [np.ascontiguousarray(record.map(), dtype=np.float32) for record in (weight, *others)]
    for name, array in zip(("weight", "bias"), arrays, strict=False):
        check_finite(f"{name} of {file}", array)
    return arrays[0], arrays[1] if others else None
