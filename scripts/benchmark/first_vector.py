"""Seconds from the start of Python to the first vector of an artifact, the median of several processes.

Usage: first_vector.py ARTIFACT. Run it with the Python of the environment to be measured.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

REPEATS = 7


def main() -> None:
    code = f"from onnxembed import OnnxEmbedder; OnnxEmbedder({sys.argv[1]!r}).encode('hello world')"
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - start)
    print(f"onnxembed: {statistics.median(times):.2f} s from the start of Python to the first vector")


if __name__ == "__main__":
    main()
