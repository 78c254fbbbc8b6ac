"""Low-rank adapters that a checkpoint stores next to its weights, one for each task: one of them is merged, or none.

A Linear's weight W [out, in] becomes W + alpha / rank * B @ A, an embedding's table [rows, width] W + alpha / rank *
A @ B. Reference: jinaai/xlm-roberta-flash-implementation, modeling_lora.py. Its checkpoints name them as torch's
parametrizations do: `X.parametrizations.weight.original` is X.weight, and `.0.lora_A` and `.0.lora_B` are the factors
of all tasks, stacked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from onnxembed.decisions.flags import NO_ADAPTER
from onnxembed.errors import ModelFilesError
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.manifest import Decision

PARAMETRIZED = "parametrizations.weight"

# Rows of an embedding's table that are merged at a time: the product of all rows would be as large as the table.
ROWS = 16384


def open_checkpoint(
    folder: Path, prefix: str | tuple[str, ...], adapter: Decision[str] | None, config: Config
) -> Checkpoint:
    """The checkpoint's weights with the adapter that was decided on; `adapter` is None for a model without adapters."""
    if adapter is None:
        return Checkpoint(folder, prefix)
    tasks = config.take("lora_adaptations", list)
    scale = config.take("lora_alpha", float) / (rank := config.take("lora_rank", int))
    config.ignore("lora_dropout_p", "lora_main_params_trainable")  # for training only
    task = None if adapter.value == NO_ADAPTER else tasks.index(adapter.value)
    return AdaptedCheckpoint(folder, prefix, task=task, tasks=len(tasks), rank=rank, scale=scale)


class AdaptedCheckpoint(Checkpoint):
    """A checkpoint whose weights may have adapters; reading `X.weight` gives it with the adapter of `task` merged.

    The sum is float32, and computed for one weight at a time, when it is read.
    """

    def __init__(
        self, folder: Path, prefix: str | tuple[str, ...], *, task: int | None, tasks: int, rank: int, scale: float
    ) -> None:
        super().__init__(folder, prefix)
        self._task, self._tasks, self._rank, self._scale = task, tasks, rank, scale
        if task is not None and not any(f".{PARAMETRIZED}.0." in name for name in self.names()):
            raise ModelFilesError(f"config.json names adapters, but the weights in {folder} have none")

    def has(self, name: str) -> bool:
        """Whether there is a tensor `name`, with adapters or without."""
        return super().has(self._stored_name(name))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of the tensor `name`.

        Raises ModelFilesError if the shapes of its adapters do not fit it and the config.
        """
        stored = self._stored_name(name)
        if stored != name:
            self._factors(stored)
        return super().shape(stored)

    def read(self, name: str) -> np.ndarray[Any, Any]:
        """The tensor `name`: a view of the file, or the float32 sum of a weight and its adapter."""
        stored = self._stored_name(name)
        weight = super().read(stored)
        if stored == name or self._task is None:
            return weight
        first, second = self._factors(stored)
        left = np.asarray(super().read(first)[self._task], np.float32)
        right = np.asarray(super().read(second)[self._task], np.float32)
        merged = weight.astype(np.float32)
        for start in range(0, len(merged), ROWS):
            merged[start : start + ROWS] += self._scale * (left[start : start + ROWS] @ right)
        return merged

    def _factors(self, stored: str) -> tuple[str, str]:
        """The names of the two factors of a weight's adapters, in the order in which they are multiplied."""
        first, second = (f"{stored.removesuffix('original')}0.lora_{part}" for part in "AB")
        rows, columns = super().shape(stored)
        left, right = (self._tasks, rows, self._rank), (self._tasks, self._rank, columns)
        shapes = super().shape(first), super().shape(second)
        if shapes == (left, right):
            return first, second
        if shapes == (right, left):
            return second, first
        raise ModelFilesError(
            f"{first} and {second} have the shapes {shapes[0]} and {shapes[1]}, which are not those of "
            f"{self._tasks} adapters of rank {self._rank} for a weight of {rows} x {columns}"
        )

    def _stored_name(self, name: str) -> str:
        stem, _, last = name.rpartition(".")
        adapted = f"{stem}.{PARAMETRIZED}.original"
        return adapted if last == "weight" and super().has(adapted) else name
