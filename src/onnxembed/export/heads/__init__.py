"""From token embeddings to the outputs of each task, one module for each; this table collects them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from onnxembed.decisions.decide import Decisions
from onnxembed.export.graph.graph import Widths
from onnxembed.export.graph.inputs import Encoded
from onnxembed.export.heads import embedding, multi_vector, reranking, sparse
from onnxembed.facts.facts import Facts
from onnxembed.manifest import Embedding, MultiVector, Reranking, Sparse, Task


class TaskHead(Protocol):
    """What the module of a task defines."""

    def is_wanted(self, decisions: Decisions) -> bool:
        """Whether the model does this task."""
        ...

    def check(self, facts: Facts, decisions: Decisions) -> None:
        """Raise UnsupportedError for a head that onnxembed does not build."""
        ...

    def add_output(self, encoded: Encoded, facts: Facts, decisions: Decisions) -> None:
        """Compute the task's output in the graph, and declare it.

        Raises ModelFilesError for weights that are missing or not of the shape that the model's files give.
        """
        ...

    def section(
        self, facts: Facts, decisions: Decisions, widths: Widths, folder: Path
    ) -> Embedding | Sparse | MultiVector | Reranking:
        """The manifest's section about the task; `folder` is the artifact's draft, with its tokenizer files."""
        ...


HEADS: dict[Task, TaskHead] = {
    "embedding": embedding,
    "sparse": sparse,
    "multi_vector": multi_vector,
    "reranking": reranking,
}
"""The head of each task, in the order in which a graph's outputs are declared."""
