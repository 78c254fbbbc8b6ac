"""Token embeddings: the vector of each token of a text, before pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxembed.arrays import Feeds, FloatArray, IntArray
from onnxembed.manifest import TOKEN_EMBEDDINGS, Embedding


@dataclass(frozen=True, eq=False)
class TokenEmbeddings:
    """The tokens of a text, special tokens included, and the vector of each, before pooling."""

    tokens: tuple[str, ...]
    """As the vocabulary writes them, [T]."""
    offsets: IntArray
    """Where in the text each token begins and ends, in characters, [T, 2]; 0 and 0 for tokens that are not in it:
    special tokens, and those of a prompt."""
    vectors: FloatArray
    """float32 [T, D]."""

    def __len__(self) -> int:
        """How many tokens there are."""
        return len(self.tokens)


class TokenReadout:
    """Reads the token embeddings of each text, [T, D]."""

    def __init__(self, section: Embedding) -> None:
        pooled = section.pooled_by == "graph"
        self.outputs = (TOKEN_EMBEDDINGS if pooled else section.graph_output,)

    def prepare(self, feeds: Feeds) -> Feeds:
        """The feeds, unchanged."""
        return feeds

    def read(self, outputs: Sequence[FloatArray], feeds: Feeds) -> list[FloatArray]:
        """The embeddings of each text, from those [B, T, D] of all slots."""
        lengths = feeds["attention_mask"].sum(axis=1)
        return [vectors[:length] for vectors, length in zip(outputs[0], lengths, strict=True)]
