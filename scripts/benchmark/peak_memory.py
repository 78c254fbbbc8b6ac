"""Run a command, and print how long it took and how much memory it took at most.

Usage: python -m benchmark.peak_memory COMMAND... The exit status is the command's.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time


def main() -> int:
    start = time.perf_counter()
    code = subprocess.run(sys.argv[1:], check=False).returncode
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(f"   {time.perf_counter() - start:.1f} s, peak memory {peak:,.0f} MB")
    return code


if __name__ == "__main__":
    sys.exit(main())
