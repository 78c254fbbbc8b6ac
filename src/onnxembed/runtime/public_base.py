"""What the public classes have in common: an open model underneath, which can be closed."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from onnxembed.runtime.open_model import OpenModel


class OnnxModel:
    """The base of OnnxEmbedder and OnnxReranker."""

    @classmethod
    def over(cls, model: OpenModel) -> Self:
        """The public class over a model that is open already."""
        made = cls.__new__(cls)
        made._use(model)
        return made

    def _use(self, model: OpenModel) -> None:
        self.model = model
        """The open model underneath."""
        self.folder, self.manifest = model.folder, model.manifest
        self.threads, self.max_length = model.threads, model.max_length
        self.provider = model.provider
        """The ONNX Runtime provider in use."""

    def close(self) -> None:
        """Free the graph and its threads; the model cannot be used afterwards. Safe to repeat.

        A stream that is still being read gives the results it has, then raises UsageError.
        """
        self.model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
