"""The tokenizers library's errors, which are bare Exceptions, as errors of onnxembed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from onnxembed.errors import ModelFilesError, OnnxEmbedError


@contextmanager
def tokenizer_errors(problem: str) -> Iterator[None]:
    """Raise ModelFilesError, `problem` and its cause, for whatever the library raises inside the block."""
    try:
        yield
    except OnnxEmbedError:
        raise
    except Exception as error:
        raise ModelFilesError(f"{problem}: {error}") from error
