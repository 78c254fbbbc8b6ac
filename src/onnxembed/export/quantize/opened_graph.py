"""A graph, opened to be measured: its vectors, and how near they are to another's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxembed.execution.providers import load_onnxruntime
from onnxembed.export.artifact.graph_file import write_graph
from onnxembed.export.graph.graph import Graph
from onnxembed.export.quantize.calibration_texts import Feeds
from onnxembed.manifest import SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS, PoolingMode
from onnxembed.runtime.outputs.pooling import pool

Vectors = NDArray[np.float32]
Gates = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Opened:
    """A graph in ONNX Runtime. `pooling` is what is done to its tokens where it does not pool itself."""

    session: Any
    inputs: frozenset[str]
    pooling: Sequence[PoolingMode]

    def run(self, outputs: Sequence[str], feeds: Feeds, gates: Gates | None = None) -> list[NDArray[Any]]:
        """Some outputs for one text."""
        given = {name: value for name, value in {**feeds, **(gates or {})}.items() if name in self.inputs}
        found: list[NDArray[Any]] = self.session.run(list(outputs), given)
        return found

    def vectors(self, texts: Sequence[Feeds], gates: Gates | None = None) -> Vectors:
        """The vector of each text, alone in its run: [N, D]."""
        return np.concatenate([self._vector(each, gates) for each in texts])

    def _vector(self, feeds: Feeds, gates: Gates | None) -> Vectors:
        if any(output.name == SENTENCE_EMBEDDING for output in self.session.get_outputs()):
            return self.run([SENTENCE_EMBEDDING], feeds, gates)[0]
        return pool(self.run([TOKEN_EMBEDDINGS], feeds, gates)[0], feeds["attention_mask"], self.pooling)


@contextmanager
def opened(graph: Graph, folder: Path, pooling: Sequence[PoolingMode]) -> Iterator[Opened]:
    """Write a graph to a temporary folder in `folder`, and open it."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        variant = write_graph(graph, Path(place), "fp32", lambda stage, done, total: None)
        yield open_file(Path(place) / variant.file, pooling)


def open_file(path: Path, pooling: Sequence[PoolingMode]) -> Opened:
    """Open a graph's file on the CPU."""
    runtime = load_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Opened(session, frozenset(value.name for value in session.get_inputs()), pooling)


def cosines(ours: Vectors, theirs: Vectors) -> NDArray[np.float64]:
    """The cosine of each row with the other's; vectors of zeros are like another one, and unlike all else."""
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    both = lengths[0] * lengths[1]
    found: NDArray[np.float64] = np.where(
        both > 0, (a * b).sum(axis=1) / np.where(both > 0, both, 1), lengths[0] == lengths[1]
    )
    return found
