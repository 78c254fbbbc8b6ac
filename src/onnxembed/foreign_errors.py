"""What other libraries raise, turned into the package's own error: one boundary for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from onnxembed.errors import ModelFilesError, OnnxEmbedError

PANIC = "PanicException"
"""The class of a panic in Rust code, as in the tokenizers library: no Exception, and of no module to import it from."""


@contextmanager
def foreign_errors(problem: str, but: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """Turn every error inside the block into ModelFilesError: `problem`, and the cause in one line.

    The package's own errors pass, as do warnings, the classes `but`, and what ends a program. RecursionError,
    MemoryError and the panics of Rust code are errors like others here: a file is the cause.
    """
    passing: tuple[type[BaseException], ...] = (OnnxEmbedError, Warning, *but)
    try:
        yield
    except passing:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != PANIC:
            raise
        raise ModelFilesError(f"{problem}: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "its values are nested too deeply"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    line = str(error).partition("\n")[0][:200]
    if isinstance(error, KeyError | IndexError | TypeError | AttributeError | ArithmeticError) or not line:
        return f"{type(error).__name__}: {line}"
    return line
