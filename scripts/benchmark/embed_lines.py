"""Embed the first lines of a file in a process that cannot import torch, and print the speed and the memory.

Usage: python -m benchmark.embed_lines ARTIFACT COUNT FILE
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

from benchmark.worker import resident
from onnxembed import OnnxEmbedder

BLOCKED = ("torch", "transformers", "onnx", "safetensors", "ml_dtypes")


def main() -> None:
    for name in BLOCKED:
        sys.modules[name] = None  # type: ignore[assignment]  # makes an import of it fail
    warnings.simplefilter("ignore")
    folder, count = sys.argv[1], int(sys.argv[2])
    lines = Path(sys.argv[3]).read_text(encoding="utf-8").splitlines()
    texts = [line for line in lines if line][:count]
    start = time.perf_counter()
    with OnnxEmbedder(folder) as model:
        print(f"   opened in {time.perf_counter() - start:.1f} s, {resident() / 1e6:,.0f} MB resident")
        model.encode(texts[:2], prompt="")
        start = time.perf_counter()
        vectors = model.encode(texts, prompt="")
        seconds = time.perf_counter() - start
        tokens = model.token_count(texts)
    print(
        f"   {len(texts)} texts of {tokens / len(texts):.0f} tokens: {len(texts) / seconds:.2f} texts/s, "
        f"{tokens / seconds:.0f} tokens/s, {resident() / 1e6:,.0f} MB resident; vectors {vectors.shape}"
    )


if __name__ == "__main__":
    main()
