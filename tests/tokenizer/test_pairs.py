"""Pairs that the tokenizers library cannot take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onnxembed import ModelFilesError, OnnxReranker
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from tiny_rerankers import write_reranker


class PanicException(BaseException):
    """By its name, a panic in Rust code."""


class Panicking:
    """A tokenizer that panics where it should tokenize."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode_batch_fast(self, texts: object) -> object:
        raise PanicException("index out of bounds")


def test_a_panic_is_not_taken_for_a_long_query(tmp_path: Path) -> None:
    export(write_reranker(tmp_path / "source"), tmp_path / "out", Options())
    with OnnxReranker(tmp_path / "out", truncation="only_second") as model:
        tokenizer: Any = model.model.tokenizer
        tokenizer._tokenizer = Panicking(tokenizer._tokenizer)
        with pytest.raises(ModelFilesError, match=r"cannot tokenize these texts: index out of bounds"):
            model.score("the cat", ["of that"])
