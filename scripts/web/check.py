"""Whether programs in JavaScript give a portable artifact's vectors: onnxruntime-web, and transformers.js, in node.

onnxruntime-web, in WebAssembly on one thread, gets the token ids of onnxembed, in one padded batch. transformers.js
gets the texts, and tokenizes them itself.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxembed import OnnxEmbedder

LIMIT = 1e-5
"""The largest difference of a number: both compute in fp32, in another order."""

SCRIPT = Path(__file__).with_name("check.mjs")

PROGRAMS = ("onnxruntime-web", "@huggingface/transformers")

TEXTS = [
    "the cat",
    "a",
    "What is the capital of France?",
    "Paris is the capital and the largest city of France, with an estimated population of two million people.",
    "Graphs of standard operators are read by any program that reads ONNX, at the cost of some speed. " * 3,
]


@dataclass(frozen=True)
class Answer:
    """What one program gave."""

    name: str
    version: str
    difference: float


def ask(artifact: Path, packages: Path, node: str = "node") -> Iterator[Answer]:
    """How far each program's vectors are from onnxembed's; exits with what node says if one gives none."""
    with OnnxEmbedder(artifact, providers="cpu") as model:
        vectors, tokens = model.encode(TEXTS), model.tokenize(TEXTS)
        pad = model.manifest.tokenization.pad_token_id.value
    length = max(map(len, tokens))
    ids = [[*text.ids.tolist(), *[pad] * (length - len(text))] for text in tokens]
    mask = [[1] * len(text) + [0] * (length - len(text)) for text in tokens]
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": [[0] * length for _ in ids]}
    question = json.dumps({"texts": TEXTS, "feeds": feeds})
    for program in PROGRAMS:
        command = [node, *map(str, (SCRIPT, packages.resolve(), artifact.resolve())), program]
        result = subprocess.run(command, input=question, capture_output=True, text=True, check=False, timeout=300)
        if result.returncode:
            errors = [line for line in result.stderr.splitlines() if re.match(r"\w*Error: ", line)]
            sys.exit(f"{program} failed: {' '.join(errors) or result.stderr[-500:]}")
        answer = json.loads(result.stdout.splitlines()[-1])
        yield Answer(program, answer["version"], _difference(np.array(answer["vectors"]), vectors))


def _difference(theirs: NDArray[np.float64], ours: NDArray[np.float32]) -> float:
    return float(np.abs(theirs - ours).max()) if theirs.shape == ours.shape else float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/web_check", description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path, help="an ONNX folder of sentence embeddings, exported as portable")
    parser.add_argument("--packages", type=Path, required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    answers = list(ask(options.artifact, options.packages))
    for answer in answers:
        print(f"{answer.name} {answer.version}: max abs difference {answer.difference:.1e} on {len(TEXTS)} texts")
    if any(not answer.difference <= LIMIT for answer in answers):
        sys.exit(f"not every program gives the vectors to {LIMIT:g}")


if __name__ == "__main__":
    main()
