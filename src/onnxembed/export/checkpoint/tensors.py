"""A checkpoint's tensors, by name, mapped from its safetensors (or torch.save's) files one at a time.

Each tensor is its own read-only memory map, dropped after use, so that reading a checkpoint never holds
more than the tensor at hand. (The safetensors library maps whole files: the pages read so far stay
resident, which for a large model is the whole checkpoint.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.checkpoint.pickles import read_pickle
from onnxembed.export.checkpoint.safetensors import read_safetensors
from onnxembed.export.checkpoint.tensor_record import DTYPES, TensorRecord
from onnxembed.foreign_errors import foreign_errors
from onnxembed.hub.checkpoint_files import WEIGHTS
from onnxembed.json_file import read_json

SINGLE, PICKLE = WEIGHTS
INDEX = f"{SINGLE}.index.json"

# Integer tensors are buffers (position ids), which nothing reads, or quantized weights, which need their scales.
WEIGHT_DTYPES = ("F64", "F32", "F16", "BF16")

# Checkpoints older than 2019 call LayerNorm's parameters gamma and beta; transformers renames them too.
RENAMED = {"weight": "gamma", "bias": "beta"}


class Checkpoint:
    """The tensors of a checkpoint folder; remembers which were used.

    `prefix` is what task classes put before the encoder's names ("bert."), or several such prefixes; it is removed.
    """

    def __init__(self, folder: Path, prefix: str | tuple[str, ...] = "") -> None:
        self.folder = folder
        records = tensor_records(folder)
        self._records = {without_prefix(prefix, name): record for name, record in records.items()}
        if len(self._records) < len(records):
            raise ModelFilesError(f"the weights in {folder} have tensors both with and without the prefix {prefix!r}")
        self._used: set[str] = set()

    def names(self) -> list[str]:
        """Names of all tensors, without the prefix."""
        return list(self._records)

    def largest(self) -> int:
        """How many numbers the largest tensor holds."""
        return max((math.prod(record.shape) for record in self._records.values()), default=0)

    def has(self, name: str) -> bool:
        """Whether there is a tensor `name`."""
        return name in self._records

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of the tensor `name`."""
        return self._record(name).shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """Type of the tensor `name`, as stored."""
        stored: np.dtype[Any] = np.dtype(DTYPES[self._record(name).dtype])
        return stored

    def read_stored(self, name: str) -> np.ndarray[Any, Any]:
        """The tensor `name`, of any type: integers too, for callers that can interpret them."""
        return self._record(name).map()

    def read(self, name: str) -> np.ndarray[Any, Any]:
        """The tensor `name` as a read-only view of the file, in its stored type."""
        record = self._record(name)
        if record.dtype not in WEIGHT_DTYPES:
            raise UnsupportedError(
                f"{record.file}: {name} is {record.dtype}; onnxembed reads weights of {', '.join(WEIGHT_DTYPES)}"
            )
        return record.map()

    def refuse_adapted(self, name: str, sharer: str) -> None:
        """Raise UnsupportedError if an adapter changes a tensor for one of the two that share it; `sharer`: the other.

        peft gives the adapted layer weights of its own, and leaves the other one those of the base.
        """

    def unused(self) -> list[str]:
        """Names of the tensors that were neither read nor asked for their shape."""
        return sorted(self._records.keys() - self._used)

    def _record(self, name: str) -> TensorRecord:
        stem, _, last = name.rpartition(".")
        for stored in (name, f"{stem}.{RENAMED.get(last, last)}"):
            if stored in self._records:
                self._used.add(stored)
                return self._records[stored]
        raise ModelFilesError(f"the weights in {self.folder} have no tensor {name}, which config.json calls for")


def check_finite(name: str, weight: np.ndarray[Any, Any]) -> None:
    """Raise ModelFilesError for a weight with NaN or infinite values, which some operators turn into plain zeros."""
    if not np.isfinite(weight).all():
        raise ModelFilesError(f"the weight {name} has values that are not finite (NaN or infinity): it is damaged")


def without_prefix(prefix: str | tuple[str, ...], name: str) -> str:
    """A tensor's name without the prefix, or the first of several that it has."""
    prefixes = (prefix,) if isinstance(prefix, str) else prefix
    return next((name.removeprefix(each) for each in prefixes if name.startswith(each)), name)


def tensor_records(folder: Path) -> dict[str, TensorRecord]:
    """All tensors of the folder, in the first format that it has."""
    for single, read in FORMATS.items():
        if (folder / single).is_file():
            return read(folder / single)
        if (folder / f"{single}.index.json").is_file():
            return _sharded(folder, f"{single}.index.json", read)
    raise ModelFilesError(f"{folder} has no {SINGLE} and no {INDEX}, and no {PICKLE} either")


def _sharded(folder: Path, index: str, read: Callable[[Path], dict[str, TensorRecord]]) -> dict[str, TensorRecord]:
    """The tensors of the shards that an index names."""
    with foreign_errors(f"{folder / index} is not an index of shards"):
        stored = dict(read_json(folder / index)["weight_map"])
        weight_map = {name: shard.removeprefix("./") for name, shard in stored.items()}
        outside = [shard for shard in weight_map.values() if not shard or Path(shard).name != shard]
    if outside:
        raise ModelFilesError(f"{folder / index} names {outside[0]!r}, which is outside the model's folder")
    shards = {}
    for shard in sorted(set(weight_map.values())):
        if not (folder / shard).is_file():
            raise ModelFilesError(f"{folder} lacks {shard}, which {index} names")
        shards[shard] = read(folder / shard)
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            raise ModelFilesError(f"{folder / shard} lacks the tensor {name} that {index} names")
    return {name: shards[shard][name] for name, shard in weight_map.items()}


# In order of preference; each may be sharded, with an index.
FORMATS = {SINGLE: read_safetensors, PICKLE: read_pickle}
