"""A checkpoint with a LoRA adapter of peft, merged into each weight when it is read.

A Linear's weight W [out, in] becomes W + scaling * B @ A, an embedding's table [rows, width] W + scaling * (B @ A).T.
With DoRA, each row of a Linear's sum is then scaled to the length that was trained for it.
Biases and whole layers that were trained too replace the base's. Reference: peft 0.21, tuners/lora: layer.py, dora.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.checkpoint.pickles import read_pickle
from onnxembed.export.checkpoint.safetensors import read_safetensors
from onnxembed.export.checkpoint.tensor_record import TensorRecord
from onnxembed.export.checkpoint.tensors import Checkpoint, without_prefix
from onnxembed.facts.adapter import LoraFacts
from onnxembed.facts.facts import Facts
from onnxembed.hub.checkpoint_files import ADAPTERS

# Rows that are merged at a time: the product of all rows of a table would be as large as the table.
ROWS = 16384

FACTOR = re.compile(r"(.+)\.(lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_[AB]|lora_magnitude_vector)")
LENGTHS = "lora_magnitude_vector"
LINEAR, TABLE = ("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B")
READERS = dict(zip(ADAPTERS, (read_safetensors, read_pickle), strict=True))


def open_weights(facts: Facts, prefix: str | tuple[str, ...]) -> Checkpoint:
    """The checkpoint's weights, with its LoRA adapter merged if it has one."""
    if facts.lora is None:
        return Checkpoint(facts.weights_folder, prefix)
    return LoraCheckpoint(facts.weights_folder, prefix, facts.lora)


class LoraCheckpoint(Checkpoint):
    """A checkpoint whose weights are read with an adapter merged: a float32 sum, one weight at a time."""

    def __init__(self, folder: Path, prefix: str | tuple[str, ...], lora: LoraFacts) -> None:
        super().__init__(folder, prefix)
        self._lora = lora
        self._factors: dict[str, dict[str, TensorRecord]] = {}
        self._replaced: set[str] = set()
        for stored, record in adapter_records(lora.folder).items():
            name = without_prefix(prefix, stored.removeprefix("base_model.model."))
            if (factor := FACTOR.fullmatch(name.replace(f"{LENGTHS}.weight", LENGTHS))) is not None:
                self._factors.setdefault(factor[1], {})[factor[2]] = record
            else:
                name = name.replace(".base_layer.", ".")
                self._records[name] = record
                self._replaced.add(name)
        for module in self._factors:
            self._check(module)

    def read(self, name: str) -> np.ndarray[Any, Any]:
        """The tensor `name`: a view of the file, or the float32 sum of a weight and its adapter."""
        stored = super().read(name)
        module, _, last = name.rpartition(".")
        factors = self._factors.get(module)
        if factors is None or last not in ("weight", "bias"):
            return stored
        if last == "bias":
            scaling = self._scaling(module)
            bias = factors.get("lora_B.bias")
            return stored if bias is None else stored.astype(np.float32) + scaling * bias.map().astype(np.float32)
        return self._merge(module, stored.astype(np.float32))

    def refuse_adapted(self, name: str, sharer: str) -> None:
        """As in `Checkpoint`."""
        if name in self._replaced or name.rpartition(".")[0] in self._factors:
            raise UnsupportedError(
                f"{self._lora.folder}: the adapter changes {name}, which {sharer} shares; peft leaves the latter as it "
                "was, so one tensor cannot be both: merge the adapter with untied weights first"
            )

    def _merge(self, module: str, merged: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        factors, scaling = self._factors[module], np.float32(self._scaling(module))
        first, second = (factors[name].map().astype(np.float32) for name in self._names(module))
        left, right = (first.T, second.T) if self._is_table(module) else (second, first)
        for start in range(0, len(merged), ROWS):
            merged[start : start + ROWS] += scaling * (left[start : start + ROWS] @ right)
        if (lengths := factors.get(LENGTHS)) is not None:
            merged *= (lengths.map().astype(np.float32) / np.linalg.norm(merged, axis=1))[:, None]
        return merged

    def _check(self, module: str) -> None:
        """Raise ModelFilesError for factors that fit no weight of the base, or only in part."""
        factors, where = self._factors[module], self._lora.folder
        if not self.has(f"{module}.weight"):
            raise ModelFilesError(f"{where}: the adapter has factors for {module}, which the base's weights lack")
        first, second = self._names(module)
        rows, columns = super().shape(f"{module}.weight")
        if first not in factors or second not in factors:
            raise ModelFilesError(
                f"{where}: the adapter of {module} has {', '.join(sorted(factors))}, not both factors"
            )
        rank = factors[first].shape[0]
        wanted = ((rank, rows), (columns, rank)) if self._is_table(module) else ((rank, columns), (rows, rank))
        if (factors[first].shape, factors[second].shape) != wanted:
            raise ModelFilesError(f"{where}: the factors of {module} do not fit its weight of {rows} x {columns}")
        self._lora.scaling(module, rank)
        self._check_lengths(module, rows)
        if "lora_B.bias" in factors and not self.has(f"{module}.bias"):
            raise ModelFilesError(f"{where}: the adapter has a bias for {module}, which has none to add it to")

    def _check_lengths(self, module: str, rows: int) -> None:
        """Raise for lengths that DoRA's formula for a Linear does not take, or that the config does not announce."""
        factors, where = self._factors[module], self._lora.folder
        if (LENGTHS in factors) != self._lora.dora:
            has = "has" if LENGTHS in factors else "has no"
            raise ModelFilesError(f"{where}: the adapter {has} {LENGTHS} for {module}, but use_dora says otherwise")
        if LENGTHS in factors and (self._is_table(module) or "lora_B.bias" in factors):
            raise UnsupportedError(f"{where}: DoRA for {module}, an embedding or a layer with lora_bias, is not merged")
        if LENGTHS in factors and factors[LENGTHS].shape != (rows,):
            raise ModelFilesError(f"{where}: the {LENGTHS} of {module} does not fit its weight of {rows} rows")

    def _is_table(self, module: str) -> bool:
        return "lora_embedding_A" in self._factors[module]

    def _names(self, module: str) -> tuple[str, str]:
        return TABLE if self._is_table(module) else LINEAR

    def _scaling(self, module: str) -> float:
        return self._lora.scaling(module, self._factors[module][self._names(module)[0]].shape[0])


def adapter_records(folder: Path) -> dict[str, TensorRecord]:
    """All tensors of an adapter's folder, in the first format that it has."""
    for name, read in READERS.items():
        if (folder / name).is_file():
            return read(folder / name)
    raise ModelFilesError(f"{folder} has an adapter_config.json, but no {' and no '.join(READERS)}")
