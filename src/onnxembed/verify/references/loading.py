"""How reference implementations are loaded: in float32, with eager attention, quietly, and from local files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from onnxembed.errors import VerificationError
from onnxembed.export.engines.quiet import quiet


@contextmanager
def reference_errors(action: str) -> Iterator[None]:
    """Silence the reference, and raise its errors as VerificationError: "the reference cannot `action` (...)"."""
    try:
        with quiet():
            yield
    except Exception as error:  # from three libraries and whatever they call
        line = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise VerificationError(f"the reference cannot {action} ({line})") from error


def model_options() -> dict[str, Any]:
    """The keyword arguments with which transformers loads a model in float32 with eager attention."""
    import torch

    return {"dtype": torch.float32, "attn_implementation": "eager"}
