"""The references of sparse embeddings, in float32 with eager attention. Needs the extra [torch].

sentence-transformers' SparseEncoder; for bge-m3's head, FlagEmbedding's formula on transformers' encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from onnxembed.arrays import FloatArray
from onnxembed.facts.facts import read_facts
from onnxembed.manifest import Manifest
from onnxembed.verify.references.linear_head import EncoderWithHead
from onnxembed.verify.references.loading import model_options, reference_errors


class SparseReference(Protocol):
    """A reference implementation of sparse embeddings."""

    name: str

    def token_ids(self, text: str) -> list[int]:
        """The token ids of a text."""
        ...

    def embed(self, texts: Sequence[str]) -> list[FloatArray]:
        """The weights [1, V] of each text; each is run alone."""
        ...


def load_sparse_reference(checkpoint: Path, manifest: Manifest) -> SparseReference:
    """The reference for a checkpoint's sparse embeddings."""
    sparse = read_facts(checkpoint).sparse
    if sparse and sparse.head:
        return LinearHeadReference(checkpoint, manifest, sparse.head)
    return SparseEncoderReference(checkpoint, manifest)


class SparseEncoderReference:
    """sentence-transformers' SparseEncoder."""

    @reference_errors("be loaded")
    def __init__(self, checkpoint: Path, manifest: Manifest) -> None:
        from sentence_transformers import SparseEncoder

        self.name = f"sentence-transformers {version('sentence-transformers')} SparseEncoder, float32, eager attention"
        self._model: Any = SparseEncoder(
            str(checkpoint), device="cpu", local_files_only=True, model_kwargs=model_options()
        )
        limit = manifest.tokenization.max_length
        if limit.origin != "file" or limit.value < self._model.max_seq_length:
            self._model.max_seq_length = limit.value

    @reference_errors("tokenize")
    def token_ids(self, text: str) -> list[int]:
        """The token ids of a text."""
        ids: list[int] = self._model.preprocess([text])["input_ids"][0].tolist()
        return ids

    @reference_errors("encode")
    def embed(self, texts: Sequence[str]) -> list[FloatArray]:
        """The weights [1, V] of each text; each is run alone."""
        options = {"batch_size": 1, "prompt": "", "show_progress_bar": False, "convert_to_sparse_tensor": False}
        return [row[None] for row in self._model.encode(list(texts), **options).numpy()]


class LinearHeadReference:
    """bge-m3's token weights, as FlagEmbedding computes them (inference/embedder/encoder_only/m3.py)."""

    @reference_errors("be loaded")
    def __init__(self, checkpoint: Path, manifest: Manifest, head: Path) -> None:
        self._encoder = EncoderWithHead(checkpoint, manifest, head)
        self.name = self._encoder.name
        roles = ("cls_token", "eos_token", "pad_token", "unk_token")
        self._unused = [getattr(self._encoder.tokenizer, f"{role}_id") for role in roles]

    @reference_errors("tokenize")
    def token_ids(self, text: str) -> list[int]:
        """The token ids of a text."""
        return self._encoder.token_ids(text)

    @reference_errors("be run")
    def embed(self, texts: Sequence[str]) -> list[FloatArray]:
        """The weights [1, V] of each text; each is run alone."""
        return [self._embed(self._encoder.token_ids(text)) for text in texts]

    def _embed(self, ids: Sequence[int]) -> FloatArray:
        weights = self._encoder.run(ids).relu()[:, 0].numpy()
        row = np.zeros((1, self._encoder.model.config.vocab_size), np.float32)
        for token, weight in zip(ids, weights, strict=True):
            if token not in self._unused and weight > row[0, token]:
                row[0, token] = weight
        return row
