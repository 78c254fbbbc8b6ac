"""Short runs of a graph, for what its files and nodes do not show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxembed.arrays import FloatArray
from onnxembed.errors import ModelFilesError
from onnxembed.execution.providers import wanted_providers
from onnxembed.execution.session import Session
from onnxembed.loading.onnx_file import OnnxFile, Value
from onnxembed.manifest import Decision

# Vectors are scaled to length 1 if all of them are so close to it: those that are not hardly ever are.
_LENGTH_1 = 1e-3


def run_ids(graph: OnnxFile, outputs: Sequence[Value], *texts: Sequence[int]) -> list[list[FloatArray]]:
    """For each text, given as its token ids, the graph's outputs [1, ...]; texts run one by one, as some graphs ask."""
    session = Session(graph.path, wanted_providers("cpu"), threads=1)
    names, inputs = [value.name for value in outputs], [value.name for value in graph.inputs]
    results = []
    for text in texts:
        ids = np.array([text], np.int64)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        results.append(session.run(names, {name: feeds[name] for name in inputs}))
    return results


def refuse_scaled(graph: OnnxFile, output: Value, normalize: Decision[bool]) -> None:
    """Raise ModelFilesError for a graph that scales its vectors to length 1 where it was decided that it does not.

    It is measured on a few token ids; for what was decided to be scaled, the runtime does it again, and nothing is run.
    """
    if normalize.value:
        return
    results = run_ids(graph, [output], [1], [0, 1, 1])
    lengths = np.concatenate([np.linalg.norm(vectors, axis=-1).ravel() for (vectors,) in results])
    if np.all(abs(lengths - 1) < _LENGTH_1):
        raise ModelFilesError(
            f"{graph.path} scales {output.name} to length 1, but the model's vectors are not scaled "
            f"({normalize.origin}: {normalize.reason}): the graph was made from another model"
        )
