"""A graph opened in ONNX Runtime on the CPU, to measure it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxembed.arrays import Array, Feeds, FloatArray
from onnxembed.execution.providers import load_onnxruntime
from onnxembed.export.artifact.graph_file import write_graph
from onnxembed.export.graph.graph import Graph
from onnxembed.export.progress import silent
from onnxembed.manifest import SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS, PoolingMode
from onnxembed.runtime.outputs.pooling import pool

GateFeeds = Mapping[str, FloatArray]
"""The gates of a GatedGraph by input name, each a scalar 0 or 1."""


@dataclass(frozen=True)
class OpenedGraph:
    """A graph in ONNX Runtime.

    Attributes:
        session: the InferenceSession.
        inputs: names of the graph's inputs; other feeds are left out.
        pooling: how token embeddings are pooled where the graph does not pool them.
    """

    session: Any
    inputs: frozenset[str]
    pooling: Sequence[PoolingMode]

    def run(self, outputs: Sequence[str], feeds: Feeds, gates: GateFeeds | None = None) -> list[Array]:
        """The named outputs for the texts of `feeds`."""
        read = {name: value for name, value in {**feeds, **(gates or {})}.items() if name in self.inputs}
        arrays: list[Array] = self.session.run(list(outputs), read)
        return arrays

    def vectors(self, texts: Sequence[Feeds], gates: GateFeeds | None = None) -> FloatArray:
        """The vector of each text, computed in a run of its own: [N, D]."""
        return np.concatenate([self._vector(feeds, gates) for feeds in texts])

    def _vector(self, feeds: Feeds, gates: GateFeeds | None) -> FloatArray:
        if any(output.name == SENTENCE_EMBEDDING for output in self.session.get_outputs()):
            return self.run([SENTENCE_EMBEDDING], feeds, gates)[0]
        return pool(self.run([TOKEN_EMBEDDINGS], feeds, gates)[0], feeds["attention_mask"], self.pooling)


@contextmanager
def temporarily_opened(graph: Graph, folder: Path, pooling: Sequence[PoolingMode]) -> Iterator[OpenedGraph]:
    """Write a graph to a temporary folder in `folder` and open it."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        variant = write_graph(graph, Path(place), "fp32", silent)
        yield open_graph(Path(place) / variant.file, pooling)


def open_graph(path: Path, pooling: Sequence[PoolingMode]) -> OpenedGraph:
    """Open a graph's file."""
    runtime = load_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return OpenedGraph(session, frozenset(value.name for value in session.get_inputs()), pooling)
