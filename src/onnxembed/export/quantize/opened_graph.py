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
from onnxembed.export.quantize.measures import Measure
from onnxembed.progress import silent

GateFeeds = Mapping[str, FloatArray]
"""The gates of a GatedGraph by input name, each a scalar 0 or 1."""


@dataclass(frozen=True)
class OpenedGraph:
    """A graph in ONNX Runtime.

    Attributes:
        session: the InferenceSession.
        inputs: names of the graph's inputs; other feeds are left out.
        outputs: names of its outputs.
        measure: what is read for each text or pair.
    """

    session: Any
    inputs: frozenset[str]
    outputs: tuple[str, ...]
    measure: Measure

    def run(self, outputs: Sequence[str], feeds: Feeds, gates: GateFeeds | None = None) -> list[Array]:
        """The named outputs for the texts of `feeds`."""
        read = {name: value for name, value in {**feeds, **(gates or {})}.items() if name in self.inputs}
        arrays: list[Array] = self.session.run(list(outputs), read)
        return arrays

    def vectors(self, texts: Sequence[Feeds], gates: GateFeeds | None = None) -> FloatArray:
        """What is compared of each text or pair, computed in a run of its own: [N, K]."""
        return np.concatenate([self._vector(feeds, gates) for feeds in texts])

    def _vector(self, feeds: Feeds, gates: GateFeeds | None) -> FloatArray:
        return self.measure.row(self.outputs, lambda names: self.run(names, feeds, gates), feeds)


@contextmanager
def temporarily_opened(graph: Graph, folder: Path, measure: Measure) -> Iterator[OpenedGraph]:
    """Write a graph to a temporary folder in `folder` and open it."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        variant = write_graph(graph, Path(place), "fp32", silent)
        yield open_graph(Path(place) / variant.file, measure)


def open_graph(path: Path, measure: Measure) -> OpenedGraph:
    """Open a graph's file."""
    runtime = load_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs, outputs = ([value.name for value in values] for values in (session.get_inputs(), session.get_outputs()))
    return OpenedGraph(session, frozenset(inputs), tuple(outputs), measure)
