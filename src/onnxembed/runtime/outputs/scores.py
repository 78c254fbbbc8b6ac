"""Scores of pairs: what a reranker's head gives, and its activation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxembed.arrays import Feeds, FloatArray
from onnxembed.manifest import LOGITS, Reranking
from onnxembed.runtime.outputs.pooling import ACTIVATIONS


class ScoresReadout:
    """Reads scores: [B] for a model of one label, else [B, labels]; the logits themselves if `raw`."""

    outputs = (LOGITS,)

    def __init__(self, section: Reranking, *, raw: bool) -> None:
        self._activation = "identity" if raw else section.activation.value
        self._labels = len(section.labels.value)

    def prepare(self, feeds: Feeds) -> Feeds:
        """The feeds, unchanged."""
        return feeds

    def read(self, outputs: Sequence[FloatArray], feeds: Feeds) -> FloatArray:
        """The scores of a run, from its logits [B, labels]."""
        (scores,) = outputs
        if self._activation != "identity":
            scores = ACTIVATIONS[self._activation](scores).astype(np.float32)
        return scores[:, 0] if self._labels == 1 else scores
