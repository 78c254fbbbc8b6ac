"""The files of one graph of an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from onnxembed.execution.backend import GraphFiles
from onnxembed.hub.model_files import ModelFiles
from onnxembed.manifest import FileRecord, Manifest


class LocatedArtifact(NamedTuple):
    """An artifact with the files of one of its graphs."""

    files: ModelFiles
    """All files of the model."""
    manifest: Manifest
    precision: str
    """The precision of the graph; the CPU may compute it in another."""
    graph: GraphFiles
    """The graph to open, with its packed form if a GPU may run it."""
    records: Mapping[str, FileRecord]
    """The manifest's records of the files that the runtime reads, by file; none for a model adopted in memory."""
    tokenizer: str | None = None
    """For a model that was adopted in memory, the text of its changed tokenizer.json."""
