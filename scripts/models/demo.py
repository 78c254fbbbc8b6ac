"""A first look at an artifact: a table of similarities, the throughput, and the folder.

Usage: demo.py ARTIFACT
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from onnxembed import OnnxEmbedder

SENTENCES = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
    "A parser turns text into a tree.",
]
FILLER = "Rivers carry sediment from the mountains to the sea, and build deltas where they slow down. "


def main() -> None:
    folder = Path(sys.argv[1])
    with OnnxEmbedder(folder) as model:
        vectors = model.encode(SENTENCES)
        print("cosine similarity")
        for sentence, row in zip(SENTENCES, vectors @ vectors.T, strict=True):
            print("  " + " ".join(f"{value:6.3f}" for value in row) + f"   {sentence}")

        texts = [f"{i} " + FILLER * (1 + i % 8) for i in range(256)]
        tokens = model.token_count(texts)
        model.encode(texts[:16])
        start = time.perf_counter()
        model.encode(texts)
        seconds = time.perf_counter() - start
        print(f"\n{len(texts) / seconds:,.0f} texts/s, {tokens / seconds:,.0f} tokens/s")
        print(f"({len(texts)} texts, {tokens / len(texts):.0f} tokens on average, {model.threads} threads)")
        print(f"\nthe artifact: {folder.resolve()}")
        print(f'to use it:    OnnxEmbedder("{folder}").encode(["some text"])')


if __name__ == "__main__":
    main()
