"""The protocol of readouts: what is fetched from a graph for one run, and made of it; the error of a wrong width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from onnxembed.arrays import Feeds, FloatArray
from onnxembed.errors import ModelFilesError

PROMPT_MASK = "prompt_mask"
"""Among the inputs of a run, and of no graph: 1 for each token of a prompt that pooling leaves out, int64 [B, T]."""

Result_co = TypeVar("Result_co", covariant=True)


def wrong_width(vectors: FloatArray, dimension: int, key: str) -> ModelFilesError:
    """The error for vectors [..., D] of another length than the manifest says, whose key this is.

    A graph that names no size of its output shows it only when it runs.
    """
    return ModelFilesError(
        f"the graph makes vectors of {vectors.shape[-1]} numbers, not the manifest's {dimension} ({key}): "
        "export or download the model again"
    )


class Readout(Protocol[Result_co]):
    """What to fetch from the graph for the texts of one run, and what to make of it.

    A result has one item for each text of the run, in their order: it is an array with a row for each text, or a
    list. Worker threads call the methods, several at once.
    """

    @property
    def outputs(self) -> Sequence[str]:
        """The names of the graph's outputs to fetch."""

    def prepare(self, feeds: Feeds) -> Feeds:
        """The inputs to run instead of `feeds`, int64 [B, T] each, padded on the right; most readouts change nothing.

        Arrays that the graph does not take may be added: `read` gets them back.
        """

    def read(self, outputs: Sequence[FloatArray], feeds: Feeds) -> Result_co:
        """The result of a run, from its outputs, in the order of their names, and the prepared inputs."""
