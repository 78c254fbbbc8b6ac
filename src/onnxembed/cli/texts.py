"""The texts that arguments stand for: themselves, the lines of a file, or standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from onnxembed.errors import UsageError


@contextmanager
def opened(texts: Sequence[str], field: str, jsonl: bool) -> Iterator[Iterable[str]]:
    """The texts that the arguments stand for."""
    from onnxembed.files import read_texts

    name = _file(texts, jsonl)
    if name is None:
        yield texts
    elif name == "-":
        yield read_texts(sys.stdin.buffer, "standard input", field if jsonl else None)
    else:
        with open(name, "rb") as file:
            yield read_texts(file, name, field if jsonl or name.endswith(".jsonl") else None)


def _file(texts: Sequence[str], jsonl: bool) -> str | None:
    """The file that the arguments name, "-" for standard input, None when they are the texts themselves."""
    from onnxembed.files import TEXT_FILES

    if not texts:
        raise UsageError("no texts: give texts, a .txt or .jsonl file, or - for standard input")
    name, others = texts[0], texts[1:]
    # An existing file is never meant as a text, not even among others or with an unknown ending.
    if others:
        for text in texts:
            if text == "-" or os.path.isfile(text):
                raise UsageError(f"{text} is a file among texts: give one file, or join several (cat ... | ... -)")
    elif name == "-" or name.endswith(TEXT_FILES) or (os.path.isfile(name) and jsonl):
        return name
    elif os.path.isfile(name):
        raise UsageError(
            f"{name} is a file, but neither .txt nor .jsonl; embed takes any as standard input: - < {name}"
        )
    if jsonl:
        raise UsageError("--jsonl is for a file or standard input, not for texts")
    return None
