"""What computes the runs of a graph: the protocol of backends, and the files that they open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeVar

from onnxembed.arrays import Feeds, FloatArray
from onnxembed.execution.providers import Place

Run = TypeVar("Run")
Result = TypeVar("Result")

Bf16Way = Literal["openvino", "fast_math"]
"""How a CPU computes an fp32 graph in bf16: OpenVINO does it on x86, a switch of ONNX Runtime on ARM64."""


class GraphFiles(NamedTuple):
    """The files of one graph."""

    path: Path
    size: int
    """Bytes of the graph and its weights."""
    cuda_only: bool = False
    """Whether the CPU has no kernels for the graph."""
    packed: Path | None = None
    """The form of the graph for CUDA whose runs have no padding, if there is one."""
    quantized: bool = False
    """Whether runs must hold texts of one length, because padding would change how values are rounded."""
    one_text: bool = False
    """Whether each run must hold a single text."""
    built: bool = False
    """Whether a builder of the export made it: the `else` of its branches is right for all runs, `then` for some."""
    bf16: Bf16Way | None = None
    """How the CPU computes this fp32 graph in bf16; None if it computes the graph as it is."""


class Backend(Protocol):
    """A graph that is open for runs from many threads."""

    @property
    def provider(self) -> str:
        """The ONNX Runtime provider that takes the graph's nodes first, or "OpenVINO"."""

    @property
    def blocks_ahead(self) -> int:
        """How many blocks of runs must have been started beside the one that is waited for, to keep the device busy."""

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""

    @property
    def runs_at_once(self) -> int:
        """How many runs are computed side by side, when there are many."""

    def plan(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group texts, given their numbers of tokens, into runs: lists of their indices."""

    def start(self, work: Callable[[Run], Result], runs: Sequence[Run]) -> list[Future[Result]]:
        """Do the work of each run on worker threads, or on the caller's; RuntimeError after `close`."""

    def submit(self, work: Callable[[Run], Result], run: Run) -> Future[Result]:
        """Do the work of a run that is one of many, on a worker thread; RuntimeError after `close`."""

    def run(self, outputs: Sequence[str], feeds: Feeds) -> list[FloatArray]:
        """Compute outputs by name, as float32, from inputs int64 [B, T].

        Raises DeviceMemoryError for a run that does not fit into the device's memory, and RuntimeError after `close`.
        """

    def one_session(self) -> AbstractContextManager[None]:
        """Meanwhile no further session is opened, so that runs of one kind are all computed by the same one."""

    def prove_later(self, prove: Callable[[str], None]) -> None:
        """Call `prove`, with a name, when a further session was opened, before anybody gets what that computes.

        What it runs on the thread that calls it goes to that session, which is not used if it raises.
        """

    def close(self) -> None:
        """Refuse further runs, wait for those that have begun, and free the graph. Safe to repeat."""


OpenBackend = Callable[[GraphFiles, Place], Backend]
"""Opens a graph at a place; `open_backend` does, and tests have others."""
