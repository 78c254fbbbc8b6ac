"""How one served model makes tokens of requests."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest

pytest.importorskip("msgspec", reason="pip install 'onnxembed[serve]'")

from onnxembed.serve.model import MAX_TOKENIZERS, Cut, ServedModel
from onnxembed.serve.settings import ModelOptions, ModelSource


def test_equal_cuts_are_tokenized_by_the_same_function_and_few_are_kept(artifact: Path) -> None:
    """The scheduler tokenizes texts together that have the same function."""
    model = ServedModel(ModelSource(str(artifact)), ModelOptions())
    assert model.tokenizing(Cut(side="left")) is model.tokenizing(Cut(side="left"))
    first = weakref.ref(model.tokenizing(Cut(max_length=3)))
    for length in range(4, 3 + MAX_TOKENIZERS):
        model.tokenizing(Cut(max_length=length))
    gc.collect()
    assert first() is None
    model.opened.close()
