"""Texts of many lengths and languages from the lines of any text files, for `onnxembed verify --texts`.

Usage: sample_texts.py COUNT FILE... > texts.txt. Each text is 1 to 40 following lines of one file, joined;
short ones are as frequent as in real use. The same arguments give the same texts.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path


def main() -> None:
    for text in sample(int(sys.argv[1]), [Path(name) for name in sys.argv[2:]]):
        print(text)


def sample(count: int, files: list[Path]) -> Iterator[str]:
    chance = random.Random(0)
    lines = [[line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()] for file in files]
    for number in range(count):
        source = lines[number % len(lines)]
        length = min(chance.choice([1, 1, 1, 2, 3, 5, 8, 13, 21, 40]), len(source))
        start = chance.randrange(len(source) - length + 1)
        yield " ".join(source[start : start + length])[:6000]


if __name__ == "__main__":
    main()
