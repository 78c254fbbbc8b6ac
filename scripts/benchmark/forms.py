"""How much more CPU time one artifact takes than another of the same model: of the portable form than of the fused.

    PYTHONPATH=scripts python -m benchmark.forms FUSED PORTABLE

Both are open in one process on one thread, and take turns on the same texts; the ratio of each round is printed.
"""

from __future__ import annotations

import random
import sys
import time

from benchmark.made_up import text
from onnxembed import OnnxEmbedder

ROUNDS = 5

CORPORA: dict[str, tuple[int, int]] = {"queries": (128, 1), "paragraphs": (64, 5), "documents": (16, 40)}
"""How many texts, and of how many sentences."""


def main(first: str, second: str) -> None:
    with (
        OnnxEmbedder(first, threads=1, providers="cpu") as one,
        OnnxEmbedder(second, threads=1, providers="cpu") as two,
    ):
        for name, (number, sentences) in CORPORA.items():
            texts = [text(random.Random(seed), sentences) for seed in range(number)]
            texts = [each[:1000] for each in texts]  # within 256 tokens
            for model in (one, two):
                model.encode(texts)  # the first time, ONNX Runtime takes memory
            ratios = [_seconds(two, texts) / _seconds(one, texts) for _ in range(ROUNDS)]
            print(f"{name}: " + ", ".join(f"{ratio:.2f}" for ratio in sorted(ratios)), flush=True)


def _seconds(model: OnnxEmbedder, texts: list[str]) -> float:
    begun = time.process_time()
    model.encode(texts)
    return time.process_time() - begun


if __name__ == "__main__":
    main(*sys.argv[1:])
