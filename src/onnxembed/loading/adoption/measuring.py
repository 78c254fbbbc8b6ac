"""Short runs of a graph, for what its files and nodes do not show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxembed.arrays import FloatArray, IntArray
from onnxembed.execution.providers import wanted_providers
from onnxembed.execution.session import Session
from onnxembed.loading.onnx_file import OnnxFile, Value


def run_ids(graph: OnnxFile, outputs: Sequence[Value], ids: IntArray) -> list[FloatArray]:
    """The graph's outputs for token ids [B, T] without padding."""
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    session = Session(graph.path, wanted_providers("cpu"), threads=1)
    return session.run([value.name for value in outputs], {value.name: feeds[value.name] for value in graph.inputs})
