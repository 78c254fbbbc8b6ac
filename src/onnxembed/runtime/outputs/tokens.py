"""Token embeddings: the vector of each token of a text, before pooling."""

from __future__ import annotations

from collections.abc import Sequence

from onnxembed.arrays import Feeds, FloatArray
from onnxembed.manifest import TOKEN_EMBEDDINGS


class TokenReadout:
    """Reads the token embeddings of each text, [T, D]."""

    outputs = (TOKEN_EMBEDDINGS,)

    def prepare(self, feeds: Feeds) -> Feeds:
        """The feeds, unchanged."""
        return feeds

    def read(self, outputs: Sequence[FloatArray], feeds: Feeds) -> list[FloatArray]:
        """The embeddings of each text, from those [B, T, D] of all slots."""
        lengths = feeds["attention_mask"].sum(axis=1)
        return [vectors[:length] for vectors, length in zip(outputs[0], lengths, strict=True)]
