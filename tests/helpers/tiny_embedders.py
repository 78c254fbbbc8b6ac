"""Tiny embedders for tests, texts for them to embed, and a comparison of vectors."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxembed import OnnxEmbedder
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from tiny import WORDS, write_sentence_bert

Array = NDArray[np.float32]
METHODS = ("embed", "encode", "query_embed", "passage_embed", "encode_query", "encode_document")
D = 32
EDGE_TEXTS = [
    "the cat",
    "a",
    "it was that of the and to in is",
    "",
    "they have not had this from one by his with, as for on.",
    "the cat",
    "Mouse",
]
LONG = "the " * 30  # 32 tokens; the tiny model takes 20
DENSE = (  # in, out, activation
    (D, 24, "torch.nn.modules.activation.Tanh"),
    (24, 16, "torch.nn.modules.linear.Identity"),
    (16, 16, "torch.nn.modules.activation.GELU"),
)


def export_tiny(folder: Path, options: Options | None = None, **checkpoint: Any) -> Path:
    """Export a tiny sentence-transformers model of the given kind."""
    write_sentence_bert(folder / "checkpoint", **checkpoint)
    export(folder / "checkpoint", folder / "artifact", options)
    return folder / "artifact"


def texts_of_many_lengths(number: int) -> list[str]:
    """Distinct texts of 0 to 17 words: 2 to 19 tokens."""
    rng = random.Random(5)
    texts = {" ".join(rng.choices(WORDS, k=rng.randrange(18))) for _ in range(4 * number)}
    return rng.sample(sorted(texts), number)


def one_by_one(model: OnnxEmbedder, texts: Sequence[str], **options: Any) -> Array:
    return np.stack([model.encode(text, **options) for text in texts])


def assert_vectors_equal(ours: Array, theirs: Array, atol: float = 1e-6) -> None:
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol, equal_nan=False)
